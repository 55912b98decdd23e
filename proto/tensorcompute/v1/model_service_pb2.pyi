from tensorcompute.v1 import tensor_pb2 as _tensor_pb2
from tensorcompute.v1 import tensor_service_pb2 as _tensor_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActivationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_KIND_UNSPECIFIED: _ClassVar[ActivationKind]
    ACTIVATION_KIND_IDENTITY: _ClassVar[ActivationKind]
    ACTIVATION_KIND_STEP: _ClassVar[ActivationKind]
    ACTIVATION_KIND_SIGN: _ClassVar[ActivationKind]
    ACTIVATION_KIND_SIGMOID: _ClassVar[ActivationKind]
    ACTIVATION_KIND_TANH: _ClassVar[ActivationKind]
    ACTIVATION_KIND_RELU: _ClassVar[ActivationKind]
    ACTIVATION_KIND_LEAKY_RELU: _ClassVar[ActivationKind]
    ACTIVATION_KIND_ELU: _ClassVar[ActivationKind]
    ACTIVATION_KIND_GELU: _ClassVar[ActivationKind]
    ACTIVATION_KIND_SILU: _ClassVar[ActivationKind]
    ACTIVATION_KIND_SOFTPLUS: _ClassVar[ActivationKind]
    ACTIVATION_KIND_SOFTMAX: _ClassVar[ActivationKind]

class TimeoutAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIMEOUT_ACTION_UNSPECIFIED: _ClassVar[TimeoutAction]
    TIMEOUT_ACTION_REJECT: _ClassVar[TimeoutAction]
    TIMEOUT_ACTION_DELAY: _ClassVar[TimeoutAction]

class MlpState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MLP_STATE_UNSPECIFIED: _ClassVar[MlpState]
    MLP_STATE_READY: _ClassVar[MlpState]
    MLP_STATE_UNLOADING: _ClassVar[MlpState]
    MLP_STATE_UNAVAILABLE: _ClassVar[MlpState]
ACTIVATION_KIND_UNSPECIFIED: ActivationKind
ACTIVATION_KIND_IDENTITY: ActivationKind
ACTIVATION_KIND_STEP: ActivationKind
ACTIVATION_KIND_SIGN: ActivationKind
ACTIVATION_KIND_SIGMOID: ActivationKind
ACTIVATION_KIND_TANH: ActivationKind
ACTIVATION_KIND_RELU: ActivationKind
ACTIVATION_KIND_LEAKY_RELU: ActivationKind
ACTIVATION_KIND_ELU: ActivationKind
ACTIVATION_KIND_GELU: ActivationKind
ACTIVATION_KIND_SILU: ActivationKind
ACTIVATION_KIND_SOFTPLUS: ActivationKind
ACTIVATION_KIND_SOFTMAX: ActivationKind
TIMEOUT_ACTION_UNSPECIFIED: TimeoutAction
TIMEOUT_ACTION_REJECT: TimeoutAction
TIMEOUT_ACTION_DELAY: TimeoutAction
MLP_STATE_UNSPECIFIED: MlpState
MLP_STATE_READY: MlpState
MLP_STATE_UNLOADING: MlpState
MLP_STATE_UNAVAILABLE: MlpState

class Activation(_message.Message):
    __slots__ = ("kind", "parameter")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    kind: ActivationKind
    parameter: float
    def __init__(self, kind: _Optional[_Union[ActivationKind, str]] = ..., parameter: _Optional[float] = ...) -> None: ...

class Operand(_message.Message):
    __slots__ = ("tensor", "data")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.Ref
    data: _tensor_pb2.TensorData
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., data: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ...) -> None: ...

class ForwardOutput(_message.Message):
    __slots__ = ("tensor", "data")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    data: _tensor_pb2.TensorData
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ..., data: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ...) -> None: ...

class ForwardOptions(_message.Message):
    __slots__ = ("keep", "return_data")
    KEEP_FIELD_NUMBER: _ClassVar[int]
    RETURN_DATA_FIELD_NUMBER: _ClassVar[int]
    keep: bool
    return_data: bool
    def __init__(self, keep: _Optional[bool] = ..., return_data: _Optional[bool] = ...) -> None: ...

class NeuronForwardRequest(_message.Message):
    __slots__ = ("context", "inputs", "weights", "bias", "activation", "options")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    inputs: Operand
    weights: Operand
    bias: Operand
    activation: Activation
    options: ForwardOptions
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., inputs: _Optional[_Union[Operand, _Mapping]] = ..., weights: _Optional[_Union[Operand, _Mapping]] = ..., bias: _Optional[_Union[Operand, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., options: _Optional[_Union[ForwardOptions, _Mapping]] = ...) -> None: ...

class NeuronForwardResponse(_message.Message):
    __slots__ = ("output",)
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    output: ForwardOutput
    def __init__(self, output: _Optional[_Union[ForwardOutput, _Mapping]] = ...) -> None: ...

class LayerForwardRequest(_message.Message):
    __slots__ = ("context", "inputs", "weight", "bias", "activation", "options")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    inputs: Operand
    weight: Operand
    bias: Operand
    activation: Activation
    options: ForwardOptions
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., inputs: _Optional[_Union[Operand, _Mapping]] = ..., weight: _Optional[_Union[Operand, _Mapping]] = ..., bias: _Optional[_Union[Operand, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., options: _Optional[_Union[ForwardOptions, _Mapping]] = ...) -> None: ...

class LayerForwardResponse(_message.Message):
    __slots__ = ("output",)
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    output: ForwardOutput
    def __init__(self, output: _Optional[_Union[ForwardOutput, _Mapping]] = ...) -> None: ...

class PerceptronForwardRequest(_message.Message):
    __slots__ = ("context", "inputs", "weights", "bias", "options")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    inputs: Operand
    weights: Operand
    bias: Operand
    options: ForwardOptions
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., inputs: _Optional[_Union[Operand, _Mapping]] = ..., weights: _Optional[_Union[Operand, _Mapping]] = ..., bias: _Optional[_Union[Operand, _Mapping]] = ..., options: _Optional[_Union[ForwardOptions, _Mapping]] = ...) -> None: ...

class PerceptronForwardResponse(_message.Message):
    __slots__ = ("output",)
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    output: ForwardOutput
    def __init__(self, output: _Optional[_Union[ForwardOutput, _Mapping]] = ...) -> None: ...

class MlpForwardRequest(_message.Message):
    __slots__ = ("context", "name", "inputs", "options", "version", "priority", "timeout_us")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    inputs: Operand
    options: ForwardOptions
    version: int
    priority: int
    timeout_us: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., inputs: _Optional[_Union[Operand, _Mapping]] = ..., options: _Optional[_Union[ForwardOptions, _Mapping]] = ..., version: _Optional[int] = ..., priority: _Optional[int] = ..., timeout_us: _Optional[int] = ...) -> None: ...

class MlpForwardResponse(_message.Message):
    __slots__ = ("output", "version")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    output: ForwardOutput
    version: int
    def __init__(self, output: _Optional[_Union[ForwardOutput, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class MlpForwardCall(_message.Message):
    __slots__ = ("id", "name", "version", "inputs", "priority", "timeout_us", "deadline_us", "tensors", "traceparent")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    version: int
    inputs: _tensor_pb2.TensorData
    priority: int
    timeout_us: int
    deadline_us: int
    tensors: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    traceparent: str
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., inputs: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_us: _Optional[int] = ..., deadline_us: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ForwardFailure(_message.Message):
    __slots__ = ("code", "reason", "message", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    retry_after_s: float
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class MlpForwardAnswer(_message.Message):
    __slots__ = ("id", "version", "output", "failure", "outputs")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    version: int
    output: _tensor_pb2.TensorData
    failure: ForwardFailure
    outputs: NamedTensors
    def __init__(self, id: _Optional[int] = ..., version: _Optional[int] = ..., output: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ..., failure: _Optional[_Union[ForwardFailure, _Mapping]] = ..., outputs: _Optional[_Union[NamedTensors, _Mapping]] = ...) -> None: ...

class MlpForwardStreamRequest(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[MlpForwardCall]
    def __init__(self, calls: _Optional[_Iterable[_Union[MlpForwardCall, _Mapping]]] = ...) -> None: ...

class MlpForwardStreamResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[MlpForwardAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[MlpForwardAnswer, _Mapping]]] = ...) -> None: ...

class NamedTensor(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: _tensor_pb2.TensorData
    def __init__(self, name: _Optional[str] = ..., data: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ...) -> None: ...

class NamedTensors(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ...) -> None: ...

class NamedOperand(_message.Message):
    __slots__ = ("name", "operand")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERAND_FIELD_NUMBER: _ClassVar[int]
    name: str
    operand: Operand
    def __init__(self, name: _Optional[str] = ..., operand: _Optional[_Union[Operand, _Mapping]] = ...) -> None: ...

class NamedOutput(_message.Message):
    __slots__ = ("name", "output")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    output: ForwardOutput
    def __init__(self, name: _Optional[str] = ..., output: _Optional[_Union[ForwardOutput, _Mapping]] = ...) -> None: ...

class ModelForwardRequest(_message.Message):
    __slots__ = ("context", "name", "version", "inputs", "options", "priority", "timeout_us")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    inputs: _containers.RepeatedCompositeFieldContainer[NamedOperand]
    options: ForwardOptions
    priority: int
    timeout_us: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[NamedOperand, _Mapping]]] = ..., options: _Optional[_Union[ForwardOptions, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_us: _Optional[int] = ...) -> None: ...

class ModelForwardResponse(_message.Message):
    __slots__ = ("outputs", "version")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[NamedOutput]
    version: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[NamedOutput, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class ModelForwardStreamRequest(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[MlpForwardCall]
    def __init__(self, calls: _Optional[_Iterable[_Union[MlpForwardCall, _Mapping]]] = ...) -> None: ...

class ModelForwardStreamResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[MlpForwardAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[MlpForwardAnswer, _Mapping]]] = ...) -> None: ...

class Dimension(_message.Message):
    __slots__ = ("size", "name")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    size: int
    name: str
    def __init__(self, size: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "dimensions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: _tensor_pb2.DType
    dimensions: _containers.RepeatedCompositeFieldContainer[Dimension]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., dimensions: _Optional[_Iterable[_Union[Dimension, _Mapping]]] = ...) -> None: ...

class SizeFormula(_message.Message):
    __slots__ = ("dimensions", "scale", "offset", "divisor")
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DIVISOR_FIELD_NUMBER: _ClassVar[int]
    dimensions: _containers.RepeatedScalarFieldContainer[str]
    scale: int
    offset: int
    divisor: int
    def __init__(self, dimensions: _Optional[_Iterable[str]] = ..., scale: _Optional[int] = ..., offset: _Optional[int] = ..., divisor: _Optional[int] = ...) -> None: ...

class ServedProgram(_message.Message):
    __slots__ = ("inputs", "outputs", "weights", "sizes", "operations", "contexts", "program", "is_batched", "text", "recorded_sizes", "default_dtype", "buffers")
    class RecordedSizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    IS_BATCHED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECORDED_SIZES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    weights: _containers.RepeatedScalarFieldContainer[str]
    sizes: _containers.RepeatedCompositeFieldContainer[SizeFormula]
    operations: _containers.RepeatedScalarFieldContainer[str]
    contexts: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Context]
    program: _tensor_pb2.Program
    is_batched: bool
    text: str
    recorded_sizes: _containers.ScalarMap[str, int]
    default_dtype: _tensor_pb2.DType
    buffers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., weights: _Optional[_Iterable[str]] = ..., sizes: _Optional[_Iterable[_Union[SizeFormula, _Mapping]]] = ..., operations: _Optional[_Iterable[str]] = ..., contexts: _Optional[_Iterable[_Union[_tensor_pb2.Context, _Mapping]]] = ..., program: _Optional[_Union[_tensor_pb2.Program, _Mapping]] = ..., is_batched: _Optional[bool] = ..., text: _Optional[str] = ..., recorded_sizes: _Optional[_Mapping[str, int]] = ..., default_dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., buffers: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateModelRequest(_message.Message):
    __slots__ = ("context", "name", "version", "program", "weights", "batching", "replicas", "public")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    program: ServedProgram
    weights: _containers.RepeatedCompositeFieldContainer[Operand]
    batching: BatchingConfig
    replicas: int
    public: bool
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., program: _Optional[_Union[ServedProgram, _Mapping]] = ..., weights: _Optional[_Iterable[_Union[Operand, _Mapping]]] = ..., batching: _Optional[_Union[BatchingConfig, _Mapping]] = ..., replicas: _Optional[int] = ..., public: _Optional[bool] = ...) -> None: ...

class CreateModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: MlpSummary
    def __init__(self, model: _Optional[_Union[MlpSummary, _Mapping]] = ...) -> None: ...

class LayerSpec(_message.Message):
    __slots__ = ("in_features", "out_features", "activation", "weight", "bias")
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    in_features: int
    out_features: int
    activation: Activation
    weight: Operand
    bias: Operand
    def __init__(self, in_features: _Optional[int] = ..., out_features: _Optional[int] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., weight: _Optional[_Union[Operand, _Mapping]] = ..., bias: _Optional[_Union[Operand, _Mapping]] = ...) -> None: ...

class LayerSummary(_message.Message):
    __slots__ = ("in_features", "out_features", "activation", "has_bias", "parameters")
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    HAS_BIAS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    in_features: int
    out_features: int
    activation: Activation
    has_bias: bool
    parameters: int
    def __init__(self, in_features: _Optional[int] = ..., out_features: _Optional[int] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., has_bias: _Optional[bool] = ..., parameters: _Optional[int] = ...) -> None: ...

class QueuePolicy(_message.Message):
    __slots__ = ("timeout_action", "default_timeout_us", "allow_timeout_override", "max_queue_size")
    TIMEOUT_ACTION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    ALLOW_TIMEOUT_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    timeout_action: TimeoutAction
    default_timeout_us: int
    allow_timeout_override: bool
    max_queue_size: int
    def __init__(self, timeout_action: _Optional[_Union[TimeoutAction, str]] = ..., default_timeout_us: _Optional[int] = ..., allow_timeout_override: _Optional[bool] = ..., max_queue_size: _Optional[int] = ...) -> None: ...

class BatchingConfig(_message.Message):
    __slots__ = ("max_batch_size", "preferred_batch_size", "max_queue_delay_us", "preserve_ordering", "priority_levels", "default_priority_level", "default_queue_policy", "priority_queue_policy")
    class PriorityQueuePolicyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: QueuePolicy
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[QueuePolicy, _Mapping]] = ...) -> None: ...
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    PRESERVE_ORDERING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PRIORITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_QUEUE_POLICY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_QUEUE_POLICY_FIELD_NUMBER: _ClassVar[int]
    max_batch_size: int
    preferred_batch_size: _containers.RepeatedScalarFieldContainer[int]
    max_queue_delay_us: int
    preserve_ordering: bool
    priority_levels: int
    default_priority_level: int
    default_queue_policy: QueuePolicy
    priority_queue_policy: _containers.MessageMap[int, QueuePolicy]
    def __init__(self, max_batch_size: _Optional[int] = ..., preferred_batch_size: _Optional[_Iterable[int]] = ..., max_queue_delay_us: _Optional[int] = ..., preserve_ordering: _Optional[bool] = ..., priority_levels: _Optional[int] = ..., default_priority_level: _Optional[int] = ..., default_queue_policy: _Optional[_Union[QueuePolicy, _Mapping]] = ..., priority_queue_policy: _Optional[_Mapping[int, QueuePolicy]] = ...) -> None: ...

class MlpReplica(_message.Message):
    __slots__ = ("engine", "state", "device")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    engine: str
    state: MlpState
    device: str
    def __init__(self, engine: _Optional[str] = ..., state: _Optional[_Union[MlpState, str]] = ..., device: _Optional[str] = ...) -> None: ...

class MlpSummary(_message.Message):
    __slots__ = ("name", "layers", "dtype", "device", "parameters", "parameter_bytes", "version", "state", "state_reason", "flops_per_row", "non_finite_parameters", "text", "batching", "is_persistent", "inputs", "outputs", "is_batched", "calls", "replicas", "wanted_replicas", "owner", "public")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    FLOPS_PER_ROW_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    IS_PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    IS_BATCHED_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    WANTED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    name: str
    layers: _containers.RepeatedCompositeFieldContainer[LayerSummary]
    dtype: _tensor_pb2.DType
    device: str
    parameters: int
    parameter_bytes: int
    version: int
    state: MlpState
    state_reason: str
    flops_per_row: int
    non_finite_parameters: int
    text: str
    batching: BatchingConfig
    is_persistent: bool
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    is_batched: bool
    calls: int
    replicas: _containers.RepeatedCompositeFieldContainer[MlpReplica]
    wanted_replicas: int
    owner: str
    public: bool
    def __init__(self, name: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerSummary, _Mapping]]] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., device: _Optional[str] = ..., parameters: _Optional[int] = ..., parameter_bytes: _Optional[int] = ..., version: _Optional[int] = ..., state: _Optional[_Union[MlpState, str]] = ..., state_reason: _Optional[str] = ..., flops_per_row: _Optional[int] = ..., non_finite_parameters: _Optional[int] = ..., text: _Optional[str] = ..., batching: _Optional[_Union[BatchingConfig, _Mapping]] = ..., is_persistent: _Optional[bool] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., is_batched: _Optional[bool] = ..., calls: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[MlpReplica, _Mapping]]] = ..., wanted_replicas: _Optional[int] = ..., owner: _Optional[str] = ..., public: _Optional[bool] = ...) -> None: ...

class WeightsFile(_message.Message):
    __slots__ = ("upload", "path", "layers")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    upload: int
    path: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, upload: _Optional[int] = ..., path: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateMlpRequest(_message.Message):
    __slots__ = ("context", "name", "layers", "dtype", "version", "file", "batching", "replicas", "public")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    layers: _containers.RepeatedCompositeFieldContainer[LayerSpec]
    dtype: _tensor_pb2.DType
    version: int
    file: WeightsFile
    batching: BatchingConfig
    replicas: int
    public: bool
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerSpec, _Mapping]]] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., version: _Optional[int] = ..., file: _Optional[_Union[WeightsFile, _Mapping]] = ..., batching: _Optional[_Union[BatchingConfig, _Mapping]] = ..., replicas: _Optional[int] = ..., public: _Optional[bool] = ...) -> None: ...

class CreateMlpResponse(_message.Message):
    __slots__ = ("mlp",)
    MLP_FIELD_NUMBER: _ClassVar[int]
    mlp: MlpSummary
    def __init__(self, mlp: _Optional[_Union[MlpSummary, _Mapping]] = ...) -> None: ...

class UpdateMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version", "batching", "replicas")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    batching: BatchingConfig
    replicas: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., batching: _Optional[_Union[BatchingConfig, _Mapping]] = ..., replicas: _Optional[int] = ...) -> None: ...

class UpdateMlpResponse(_message.Message):
    __slots__ = ("mlp",)
    MLP_FIELD_NUMBER: _ClassVar[int]
    mlp: MlpSummary
    def __init__(self, mlp: _Optional[_Union[MlpSummary, _Mapping]] = ...) -> None: ...

class DescribeMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DescribeMlpResponse(_message.Message):
    __slots__ = ("mlp",)
    MLP_FIELD_NUMBER: _ClassVar[int]
    mlp: MlpSummary
    def __init__(self, mlp: _Optional[_Union[MlpSummary, _Mapping]] = ...) -> None: ...

class ListMlpsRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ...) -> None: ...

class ListMlpsResponse(_message.Message):
    __slots__ = ("mlps",)
    MLPS_FIELD_NUMBER: _ClassVar[int]
    mlps: _containers.RepeatedCompositeFieldContainer[MlpSummary]
    def __init__(self, mlps: _Optional[_Iterable[_Union[MlpSummary, _Mapping]]] = ...) -> None: ...

class UnloadMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class UnloadMlpResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class LoadMlpResponse(_message.Message):
    __slots__ = ("mlp",)
    MLP_FIELD_NUMBER: _ClassVar[int]
    mlp: MlpSummary
    def __init__(self, mlp: _Optional[_Union[MlpSummary, _Mapping]] = ...) -> None: ...

class DeleteMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeleteMlpResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DownloadMlpRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DownloadMlpHeader(_message.Message):
    __slots__ = ("mlp", "total_bytes")
    MLP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    mlp: MlpSummary
    total_bytes: int
    def __init__(self, mlp: _Optional[_Union[MlpSummary, _Mapping]] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class DownloadMlpResponse(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: DownloadMlpHeader
    chunk: bytes
    trailer: _tensor_service_pb2.DownloadTrailer
    def __init__(self, header: _Optional[_Union[DownloadMlpHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., trailer: _Optional[_Union[_tensor_service_pb2.DownloadTrailer, _Mapping]] = ...) -> None: ...

class DurationTotal(_message.Message):
    __slots__ = ("count", "ns")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NS_FIELD_NUMBER: _ClassVar[int]
    count: int
    ns: int
    def __init__(self, count: _Optional[int] = ..., ns: _Optional[int] = ...) -> None: ...

class BatchStatistics(_message.Message):
    __slots__ = ("batch_size", "compute_input", "compute_infer", "compute_output")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_INPUT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_INFER_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    compute_input: DurationTotal
    compute_infer: DurationTotal
    compute_output: DurationTotal
    def __init__(self, batch_size: _Optional[int] = ..., compute_input: _Optional[_Union[DurationTotal, _Mapping]] = ..., compute_infer: _Optional[_Union[DurationTotal, _Mapping]] = ..., compute_output: _Optional[_Union[DurationTotal, _Mapping]] = ...) -> None: ...

class MlpStatistics(_message.Message):
    __slots__ = ("name", "version", "last_inference_ms", "inference_count", "execution_count", "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "batches", "rejected", "timed_out", "cancelled", "waiting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FAIL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_INPUT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_INFER_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: DurationTotal
    fail: DurationTotal
    queue: DurationTotal
    compute_input: DurationTotal
    compute_infer: DurationTotal
    compute_output: DurationTotal
    batches: _containers.RepeatedCompositeFieldContainer[BatchStatistics]
    rejected: int
    timed_out: int
    cancelled: int
    waiting: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., last_inference_ms: _Optional[int] = ..., inference_count: _Optional[int] = ..., execution_count: _Optional[int] = ..., success: _Optional[_Union[DurationTotal, _Mapping]] = ..., fail: _Optional[_Union[DurationTotal, _Mapping]] = ..., queue: _Optional[_Union[DurationTotal, _Mapping]] = ..., compute_input: _Optional[_Union[DurationTotal, _Mapping]] = ..., compute_infer: _Optional[_Union[DurationTotal, _Mapping]] = ..., compute_output: _Optional[_Union[DurationTotal, _Mapping]] = ..., batches: _Optional[_Iterable[_Union[BatchStatistics, _Mapping]]] = ..., rejected: _Optional[int] = ..., timed_out: _Optional[int] = ..., cancelled: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class GetMlpStatisticsRequest(_message.Message):
    __slots__ = ("context", "name", "version")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    version: int
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetMlpStatisticsResponse(_message.Message):
    __slots__ = ("statistics",)
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    statistics: MlpStatistics
    def __init__(self, statistics: _Optional[_Union[MlpStatistics, _Mapping]] = ...) -> None: ...
