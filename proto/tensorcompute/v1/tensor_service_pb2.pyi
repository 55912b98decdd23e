from tensorcompute.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionContext(_message.Message):
    __slots__ = ("session", "seq")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    seq: int
    def __init__(self, session: _Optional[bytes] = ..., seq: _Optional[int] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("min_protocol", "max_protocol", "client", "device")
    MIN_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    min_protocol: int
    max_protocol: int
    client: str
    device: str
    def __init__(self, min_protocol: _Optional[int] = ..., max_protocol: _Optional[int] = ..., client: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_inline_bytes", "max_unacked_bytes", "max_sessions", "max_session_bytes", "max_nesting", "max_chunk_bytes", "max_batches_in_flight")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_NESTING_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCHES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_inline_bytes: int
    max_unacked_bytes: int
    max_sessions: int
    max_session_bytes: int
    max_nesting: int
    max_chunk_bytes: int
    max_batches_in_flight: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_inline_bytes: _Optional[int] = ..., max_unacked_bytes: _Optional[int] = ..., max_sessions: _Optional[int] = ..., max_session_bytes: _Optional[int] = ..., max_nesting: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., max_batches_in_flight: _Optional[int] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session", "lease_s", "boot_id", "protocol", "server_version", "torch_version", "limits", "endpoint", "data_endpoint", "default_device", "operations_digest", "devices", "shared_memory", "lane_socket")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    DATA_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DEVICE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    LANE_SOCKET_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    lease_s: float
    boot_id: str
    protocol: int
    server_version: str
    torch_version: str
    limits: Limits
    endpoint: str
    data_endpoint: str
    default_device: str
    operations_digest: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceInfo]
    shared_memory: str
    lane_socket: str
    def __init__(self, session: _Optional[bytes] = ..., lease_s: _Optional[float] = ..., boot_id: _Optional[str] = ..., protocol: _Optional[int] = ..., server_version: _Optional[str] = ..., torch_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., endpoint: _Optional[str] = ..., data_endpoint: _Optional[str] = ..., default_device: _Optional[str] = ..., operations_digest: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceInfo, _Mapping]]] = ..., shared_memory: _Optional[str] = ..., lane_socket: _Optional[str] = ...) -> None: ...

class AttachSessionRequest(_message.Message):
    __slots__ = ("session", "attempt", "min_protocol", "max_protocol", "client")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MIN_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    attempt: bytes
    min_protocol: int
    max_protocol: int
    client: str
    def __init__(self, session: _Optional[bytes] = ..., attempt: _Optional[bytes] = ..., min_protocol: _Optional[int] = ..., max_protocol: _Optional[int] = ..., client: _Optional[str] = ...) -> None: ...

class AttachSessionResponse(_message.Message):
    __slots__ = ("opened", "received_seq", "next_id", "errors")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SEQ_FIELD_NUMBER: _ClassVar[int]
    NEXT_ID_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    opened: OpenSessionResponse
    received_seq: int
    next_id: int
    errors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Error]
    def __init__(self, opened: _Optional[_Union[OpenSessionResponse, _Mapping]] = ..., received_seq: _Optional[int] = ..., next_id: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[_tensor_pb2.Error, _Mapping]]] = ...) -> None: ...

class CancelSessionRequest(_message.Message):
    __slots__ = ("session", "through_seq")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    THROUGH_SEQ_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    through_seq: int
    def __init__(self, session: _Optional[bytes] = ..., through_seq: _Optional[int] = ...) -> None: ...

class CancelSessionResponse(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    def __init__(self, batches: _Optional[int] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSessionProgressRequest(_message.Message):
    __slots__ = ("session", "forward_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FORWARD_ID_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    forward_id: int
    def __init__(self, session: _Optional[bytes] = ..., forward_id: _Optional[int] = ...) -> None: ...

class GetSessionProgressResponse(_message.Message):
    __slots__ = ("received_seq", "answered_seq", "kept_bytes", "has_unread", "has_forward", "waiting", "chunk_bytes")
    RECEIVED_SEQ_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_SEQ_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAS_UNREAD_FIELD_NUMBER: _ClassVar[int]
    HAS_FORWARD_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_seq: int
    answered_seq: int
    kept_bytes: int
    has_unread: bool
    has_forward: bool
    waiting: int
    chunk_bytes: int
    def __init__(self, received_seq: _Optional[int] = ..., answered_seq: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., has_unread: _Optional[bool] = ..., has_forward: _Optional[bool] = ..., waiting: _Optional[int] = ..., chunk_bytes: _Optional[int] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("session", "batch")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    batch: _tensor_pb2.Batch
    def __init__(self, session: _Optional[bytes] = ..., batch: _Optional[_Union[_tensor_pb2.Batch, _Mapping]] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("reply",)
    REPLY_FIELD_NUMBER: _ClassVar[int]
    reply: _tensor_pb2.BatchReply
    def __init__(self, reply: _Optional[_Union[_tensor_pb2.BatchReply, _Mapping]] = ...) -> None: ...

class ExecuteStreamRequest(_message.Message):
    __slots__ = ("session", "batch")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    batch: _tensor_pb2.Batch
    def __init__(self, session: _Optional[bytes] = ..., batch: _Optional[_Union[_tensor_pb2.Batch, _Mapping]] = ...) -> None: ...

class ExecuteStreamResponse(_message.Message):
    __slots__ = ("reply",)
    REPLY_FIELD_NUMBER: _ClassVar[int]
    reply: _tensor_pb2.BatchReply
    def __init__(self, reply: _Optional[_Union[_tensor_pb2.BatchReply, _Mapping]] = ...) -> None: ...

class EmptyFactory(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OnesFactory(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ZerosFactory(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FullFactory(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _tensor_pb2.Value
    def __init__(self, value: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ...) -> None: ...

class RandFactory(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RandnFactory(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RandintFactory(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: int
    high: int
    def __init__(self, low: _Optional[int] = ..., high: _Optional[int] = ...) -> None: ...

class ArangeFactory(_message.Message):
    __slots__ = ("start", "end", "step")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    start: _tensor_pb2.Value
    end: _tensor_pb2.Value
    step: _tensor_pb2.Value
    def __init__(self, start: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ..., end: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ..., step: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ...) -> None: ...

class EyeFactory(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class LinspaceFactory(_message.Message):
    __slots__ = ("start", "end", "steps")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    start: float
    end: float
    steps: int
    def __init__(self, start: _Optional[float] = ..., end: _Optional[float] = ..., steps: _Optional[int] = ...) -> None: ...

class CreateTensorRequest(_message.Message):
    __slots__ = ("context", "shape", "dtype", "device", "requires_grad", "data", "empty", "ones", "zeros", "full", "rand", "randn", "randint", "arange", "eye", "linspace")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_GRAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    ONES_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    RAND_FIELD_NUMBER: _ClassVar[int]
    RANDN_FIELD_NUMBER: _ClassVar[int]
    RANDINT_FIELD_NUMBER: _ClassVar[int]
    ARANGE_FIELD_NUMBER: _ClassVar[int]
    EYE_FIELD_NUMBER: _ClassVar[int]
    LINSPACE_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: _tensor_pb2.DType
    device: str
    requires_grad: bool
    data: _tensor_pb2.TensorData
    empty: EmptyFactory
    ones: OnesFactory
    zeros: ZerosFactory
    full: FullFactory
    rand: RandFactory
    randn: RandnFactory
    randint: RandintFactory
    arange: ArangeFactory
    eye: EyeFactory
    linspace: LinspaceFactory
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., device: _Optional[str] = ..., requires_grad: _Optional[bool] = ..., data: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ..., empty: _Optional[_Union[EmptyFactory, _Mapping]] = ..., ones: _Optional[_Union[OnesFactory, _Mapping]] = ..., zeros: _Optional[_Union[ZerosFactory, _Mapping]] = ..., full: _Optional[_Union[FullFactory, _Mapping]] = ..., rand: _Optional[_Union[RandFactory, _Mapping]] = ..., randn: _Optional[_Union[RandnFactory, _Mapping]] = ..., randint: _Optional[_Union[RandintFactory, _Mapping]] = ..., arange: _Optional[_Union[ArangeFactory, _Mapping]] = ..., eye: _Optional[_Union[EyeFactory, _Mapping]] = ..., linspace: _Optional[_Union[LinspaceFactory, _Mapping]] = ...) -> None: ...

class CreateTensorResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class ReshapeRequest(_message.Message):
    __slots__ = ("context", "input", "shape")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    input: _tensor_pb2.Ref
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class ReshapeResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class TransposeRequest(_message.Message):
    __slots__ = ("context", "input", "dim0", "dim1")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DIM0_FIELD_NUMBER: _ClassVar[int]
    DIM1_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    input: _tensor_pb2.Ref
    dim0: int
    dim1: int
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., dim0: _Optional[int] = ..., dim1: _Optional[int] = ...) -> None: ...

class TransposeResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class PermuteRequest(_message.Message):
    __slots__ = ("context", "input", "dims")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    input: _tensor_pb2.Ref
    dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., dims: _Optional[_Iterable[int]] = ...) -> None: ...

class PermuteResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class AddRequest(_message.Message):
    __slots__ = ("context", "input", "other", "scalar", "alpha", "in_place")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    IN_PLACE_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    input: _tensor_pb2.Ref
    other: _tensor_pb2.Ref
    scalar: _tensor_pb2.Value
    alpha: _tensor_pb2.Value
    in_place: bool
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., other: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., scalar: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ..., alpha: _Optional[_Union[_tensor_pb2.Value, _Mapping]] = ..., in_place: _Optional[bool] = ...) -> None: ...

class AddResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class ToDeviceRequest(_message.Message):
    __slots__ = ("context", "input", "device", "dtype", "copy")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    input: _tensor_pb2.Ref
    device: str
    dtype: _tensor_pb2.DType
    copy: bool
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., device: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., copy: _Optional[bool] = ...) -> None: ...

class ToDeviceResponse(_message.Message):
    __slots__ = ("tensor",)
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class GetTensorRequest(_message.Message):
    __slots__ = ("context", "tensor", "include_data", "include_text")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DATA_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TEXT_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    tensor: _tensor_pb2.Ref
    include_data: bool
    include_text: bool
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., tensor: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., include_data: _Optional[bool] = ..., include_text: _Optional[bool] = ...) -> None: ...

class GetTensorResponse(_message.Message):
    __slots__ = ("tensor", "data", "text")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorMeta
    data: _tensor_pb2.TensorData
    text: str
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ..., data: _Optional[_Union[_tensor_pb2.TensorData, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class ListTensorsRequest(_message.Message):
    __slots__ = ("context", "page_size", "page_token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    page_size: int
    page_token: str
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class TensorName(_message.Message):
    __slots__ = ("name", "tensor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _tensor_pb2.Ref
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ...) -> None: ...

class ListTensorsResponse(_message.Message):
    __slots__ = ("tensors", "next_page_token", "total_tensors", "total_bytes", "peak_results", "names")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TENSORS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESULTS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorMeta]
    next_page_token: str
    total_tensors: int
    total_bytes: int
    peak_results: int
    names: _containers.RepeatedCompositeFieldContainer[TensorName]
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorMeta, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_tensors: _Optional[int] = ..., total_bytes: _Optional[int] = ..., peak_results: _Optional[int] = ..., names: _Optional[_Iterable[_Union[TensorName, _Mapping]]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionInfo(_message.Message):
    __slots__ = ("id", "principal", "client", "peer", "engine", "age_s", "is_attached", "lease_left_s", "tensors", "tensor_bytes", "batches")
    ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    IS_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    id: str
    principal: str
    client: str
    peer: str
    engine: str
    age_s: float
    is_attached: bool
    lease_left_s: float
    tensors: int
    tensor_bytes: int
    batches: int
    def __init__(self, id: _Optional[str] = ..., principal: _Optional[str] = ..., client: _Optional[str] = ..., peer: _Optional[str] = ..., engine: _Optional[str] = ..., age_s: _Optional[float] = ..., is_attached: _Optional[bool] = ..., lease_left_s: _Optional[float] = ..., tensors: _Optional[int] = ..., tensor_bytes: _Optional[int] = ..., batches: _Optional[int] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionInfo]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionInfo, _Mapping]]] = ...) -> None: ...

class ListSessionTensorsRequest(_message.Message):
    __slots__ = ("id", "page_size", "page_token")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    page_size: int
    page_token: str
    def __init__(self, id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionTensorsResponse(_message.Message):
    __slots__ = ("session", "page")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    session: str
    page: ListTensorsResponse
    def __init__(self, session: _Optional[str] = ..., page: _Optional[_Union[ListTensorsResponse, _Mapping]] = ...) -> None: ...

class FreeTensorsRequest(_message.Message):
    __slots__ = ("context", "tensors")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Ref]
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_tensor_pb2.Ref, _Mapping]]] = ...) -> None: ...

class FreeTensorsResponse(_message.Message):
    __slots__ = ("freed",)
    FREED_FIELD_NUMBER: _ClassVar[int]
    freed: int
    def __init__(self, freed: _Optional[int] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("context", "id", "dtype", "shape", "crc32", "create_tensor", "device")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    CREATE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    id: int
    dtype: _tensor_pb2.DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    crc32: int
    create_tensor: bool
    device: str
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., id: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., crc32: _Optional[int] = ..., create_tensor: _Optional[bool] = ..., device: _Optional[str] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("received_bytes", "tensor")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, received_bytes: _Optional[int] = ..., tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("context", "tensor", "chunk_bytes", "without_crc32")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_CRC32_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    tensor: _tensor_pb2.Ref
    chunk_bytes: int
    without_crc32: bool
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., tensor: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ..., chunk_bytes: _Optional[int] = ..., without_crc32: _Optional[bool] = ...) -> None: ...

class DownloadHeader(_message.Message):
    __slots__ = ("dtype", "shape", "total_bytes")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    dtype: _tensor_pb2.DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    total_bytes: int
    def __init__(self, dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class DownloadTrailer(_message.Message):
    __slots__ = ("crc32",)
    CRC32_FIELD_NUMBER: _ClassVar[int]
    crc32: int
    def __init__(self, crc32: _Optional[int] = ...) -> None: ...

class DownloadResponse(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: DownloadHeader
    chunk: bytes
    trailer: DownloadTrailer
    def __init__(self, header: _Optional[_Union[DownloadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., trailer: _Optional[_Union[DownloadTrailer, _Mapping]] = ...) -> None: ...

class OpenTransferRequest(_message.Message):
    __slots__ = ("upload", "download", "connection", "lane", "forwards", "receive")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    FORWARDS_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_FIELD_NUMBER: _ClassVar[int]
    upload: UploadHeader
    download: DownloadRequest
    connection: SessionContext
    lane: SessionContext
    forwards: SessionContext
    receive: ReceiveHeader
    def __init__(self, upload: _Optional[_Union[UploadHeader, _Mapping]] = ..., download: _Optional[_Union[DownloadRequest, _Mapping]] = ..., connection: _Optional[_Union[SessionContext, _Mapping]] = ..., lane: _Optional[_Union[SessionContext, _Mapping]] = ..., forwards: _Optional[_Union[SessionContext, _Mapping]] = ..., receive: _Optional[_Union[ReceiveHeader, _Mapping]] = ...) -> None: ...

class ReceiveHeader(_message.Message):
    __slots__ = ("context", "uploads")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    uploads: _containers.RepeatedCompositeFieldContainer[UploadHeader]
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., uploads: _Optional[_Iterable[_Union[UploadHeader, _Mapping]]] = ...) -> None: ...

class OpenTransferResponse(_message.Message):
    __slots__ = ("ticket", "size_bytes", "expires_s", "dtype", "shape", "key", "data_endpoint", "socket", "certificate_sha256", "house_proof", "endpoint", "shared_memory")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    HOUSE_PROOF_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    size_bytes: int
    expires_s: float
    dtype: _tensor_pb2.DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    key: bytes
    data_endpoint: str
    socket: str
    certificate_sha256: bytes
    house_proof: bytes
    endpoint: str
    shared_memory: str
    def __init__(self, ticket: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., expires_s: _Optional[float] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., key: _Optional[bytes] = ..., data_endpoint: _Optional[str] = ..., socket: _Optional[str] = ..., certificate_sha256: _Optional[bytes] = ..., house_proof: _Optional[bytes] = ..., endpoint: _Optional[str] = ..., shared_memory: _Optional[str] = ...) -> None: ...

class SendTensorsRequest(_message.Message):
    __slots__ = ("context", "tensors", "key", "size_bytes", "data_endpoint", "socket", "certificate_sha256", "house_proof")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    HOUSE_PROOF_FIELD_NUMBER: _ClassVar[int]
    context: SessionContext
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Ref]
    key: bytes
    size_bytes: int
    data_endpoint: str
    socket: str
    certificate_sha256: bytes
    house_proof: bytes
    def __init__(self, context: _Optional[_Union[SessionContext, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_tensor_pb2.Ref, _Mapping]]] = ..., key: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., data_endpoint: _Optional[str] = ..., socket: _Optional[str] = ..., certificate_sha256: _Optional[bytes] = ..., house_proof: _Optional[bytes] = ...) -> None: ...

class SendTensorsResponse(_message.Message):
    __slots__ = ("sent_bytes", "done")
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    sent_bytes: int
    done: bool
    def __init__(self, sent_bytes: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeviceInfo(_message.Message):
    __slots__ = ("name", "description", "total_bytes", "free_bytes", "allocated_bytes", "engine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    total_bytes: int
    free_bytes: int
    allocated_bytes: int
    engine: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., engine: _Optional[str] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("id", "device", "boot_id", "sessions", "state", "node", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    device: str
    boot_id: str
    sessions: int
    state: str
    node: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., device: _Optional[str] = ..., boot_id: _Optional[str] = ..., sessions: _Optional[int] = ..., state: _Optional[str] = ..., node: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "boot_id", "torch_version", "devices", "limits", "min_protocol", "max_protocol", "sessions", "operations_digest", "uptime_s", "engines", "own_limits", "used_memory_bytes", "max_memory_bytes", "principal")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MIN_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    OWN_LIMITS_FIELD_NUMBER: _ClassVar[int]
    USED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    version: str
    boot_id: str
    torch_version: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceInfo]
    limits: Limits
    min_protocol: int
    max_protocol: int
    sessions: int
    operations_digest: str
    uptime_s: float
    engines: _containers.RepeatedCompositeFieldContainer[EngineInfo]
    own_limits: _containers.RepeatedCompositeFieldContainer[LimitInfo]
    used_memory_bytes: int
    max_memory_bytes: int
    principal: str
    def __init__(self, version: _Optional[str] = ..., boot_id: _Optional[str] = ..., torch_version: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceInfo, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., min_protocol: _Optional[int] = ..., max_protocol: _Optional[int] = ..., sessions: _Optional[int] = ..., operations_digest: _Optional[str] = ..., uptime_s: _Optional[float] = ..., engines: _Optional[_Iterable[_Union[EngineInfo, _Mapping]]] = ..., own_limits: _Optional[_Iterable[_Union[LimitInfo, _Mapping]]] = ..., used_memory_bytes: _Optional[int] = ..., max_memory_bytes: _Optional[int] = ..., principal: _Optional[str] = ...) -> None: ...

class LimitInfo(_message.Message):
    __slots__ = ("name", "limit", "used")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: float
    used: float
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[float] = ..., used: _Optional[float] = ...) -> None: ...
