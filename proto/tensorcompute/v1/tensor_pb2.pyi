from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    D_TYPE_UNSPECIFIED: _ClassVar[DType]
    D_TYPE_FLOAT32: _ClassVar[DType]
    D_TYPE_FLOAT64: _ClassVar[DType]
    D_TYPE_FLOAT16: _ClassVar[DType]
    D_TYPE_BFLOAT16: _ClassVar[DType]
    D_TYPE_UINT8: _ClassVar[DType]
    D_TYPE_INT8: _ClassVar[DType]
    D_TYPE_INT16: _ClassVar[DType]
    D_TYPE_INT32: _ClassVar[DType]
    D_TYPE_INT64: _ClassVar[DType]
    D_TYPE_BOOL: _ClassVar[DType]
    D_TYPE_COMPLEX64: _ClassVar[DType]
    D_TYPE_COMPLEX128: _ClassVar[DType]
    D_TYPE_COMPLEX32: _ClassVar[DType]
    D_TYPE_UINT16: _ClassVar[DType]
    D_TYPE_UINT32: _ClassVar[DType]
    D_TYPE_UINT64: _ClassVar[DType]
    D_TYPE_FLOAT8_E4M3FN: _ClassVar[DType]
    D_TYPE_FLOAT8_E5M2: _ClassVar[DType]

class MemoryFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_FORMAT_UNSPECIFIED: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_CONTIGUOUS: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_PRESERVE: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_CHANNELS_LAST: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_CHANNELS_LAST_3D: _ClassVar[MemoryFormat]

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYOUT_UNSPECIFIED: _ClassVar[Layout]
    LAYOUT_STRIDED: _ClassVar[Layout]
    LAYOUT_SPARSE_COO: _ClassVar[Layout]
    LAYOUT_SPARSE_CSR: _ClassVar[Layout]
    LAYOUT_SPARSE_CSC: _ClassVar[Layout]
    LAYOUT_SPARSE_BSR: _ClassVar[Layout]
    LAYOUT_SPARSE_BSC: _ClassVar[Layout]
D_TYPE_UNSPECIFIED: DType
D_TYPE_FLOAT32: DType
D_TYPE_FLOAT64: DType
D_TYPE_FLOAT16: DType
D_TYPE_BFLOAT16: DType
D_TYPE_UINT8: DType
D_TYPE_INT8: DType
D_TYPE_INT16: DType
D_TYPE_INT32: DType
D_TYPE_INT64: DType
D_TYPE_BOOL: DType
D_TYPE_COMPLEX64: DType
D_TYPE_COMPLEX128: DType
D_TYPE_COMPLEX32: DType
D_TYPE_UINT16: DType
D_TYPE_UINT32: DType
D_TYPE_UINT64: DType
D_TYPE_FLOAT8_E4M3FN: DType
D_TYPE_FLOAT8_E5M2: DType
MEMORY_FORMAT_UNSPECIFIED: MemoryFormat
MEMORY_FORMAT_CONTIGUOUS: MemoryFormat
MEMORY_FORMAT_PRESERVE: MemoryFormat
MEMORY_FORMAT_CHANNELS_LAST: MemoryFormat
MEMORY_FORMAT_CHANNELS_LAST_3D: MemoryFormat
LAYOUT_UNSPECIFIED: Layout
LAYOUT_STRIDED: Layout
LAYOUT_SPARSE_COO: Layout
LAYOUT_SPARSE_CSR: Layout
LAYOUT_SPARSE_CSC: Layout
LAYOUT_SPARSE_BSR: Layout
LAYOUT_SPARSE_BSC: Layout

class Ref(_message.Message):
    __slots__ = ("id", "path")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: int
    path: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., path: _Optional[_Iterable[int]] = ...) -> None: ...

class TensorMeta(_message.Message):
    __slots__ = ("shape", "dtype", "device", "requires_grad", "same_as", "id", "layout")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_GRAD_FIELD_NUMBER: _ClassVar[int]
    SAME_AS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DType
    device: str
    requires_grad: bool
    same_as: Ref
    id: Ref
    layout: Layout
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DType, str]] = ..., device: _Optional[str] = ..., requires_grad: _Optional[bool] = ..., same_as: _Optional[_Union[Ref, _Mapping]] = ..., id: _Optional[_Union[Ref, _Mapping]] = ..., layout: _Optional[_Union[Layout, str]] = ...) -> None: ...

class TensorData(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class HostArray(_message.Message):
    __slots__ = ("kind", "data", "upload", "view")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[HostArray.Kind]
        KIND_TENSOR: _ClassVar[HostArray.Kind]
        KIND_NDARRAY: _ClassVar[HostArray.Kind]
        KIND_SEQUENCE: _ClassVar[HostArray.Kind]
        KIND_NUMBER: _ClassVar[HostArray.Kind]
    KIND_UNSPECIFIED: HostArray.Kind
    KIND_TENSOR: HostArray.Kind
    KIND_NDARRAY: HostArray.Kind
    KIND_SEQUENCE: HostArray.Kind
    KIND_NUMBER: HostArray.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    kind: HostArray.Kind
    data: TensorData
    upload: int
    view: View
    def __init__(self, kind: _Optional[_Union[HostArray.Kind, str]] = ..., data: _Optional[_Union[TensorData, _Mapping]] = ..., upload: _Optional[int] = ..., view: _Optional[_Union[View, _Mapping]] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("shape", "strides")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDES_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    strides: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., strides: _Optional[_Iterable[int]] = ...) -> None: ...

class Foreign(_message.Message):
    __slots__ = ("type", "base", "answers", "items", "iterated", "memory")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITERATED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    type: str
    base: Value
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    items: Sequence
    iterated: Sequence
    memory: Memory
    def __init__(self, type: _Optional[str] = ..., base: _Optional[_Union[Value, _Mapping]] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., items: _Optional[_Union[Sequence, _Mapping]] = ..., iterated: _Optional[_Union[Sequence, _Mapping]] = ..., memory: _Optional[_Union[Memory, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("method", "value", "raised", "message")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    method: str
    value: Value
    raised: str
    message: str
    def __init__(self, method: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., raised: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("dtype", "shape", "strides", "offset", "data", "is_scalar")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_SCALAR_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    strides: _containers.RepeatedScalarFieldContainer[int]
    offset: int
    data: bytes
    is_scalar: bool
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., strides: _Optional[_Iterable[int]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., is_scalar: _Optional[bool] = ...) -> None: ...

class Complex(_message.Message):
    __slots__ = ("real", "imag")
    REAL_FIELD_NUMBER: _ClassVar[int]
    IMAG_FIELD_NUMBER: _ClassVar[int]
    real: float
    imag: float
    def __init__(self, real: _Optional[float] = ..., imag: _Optional[float] = ...) -> None: ...

class Slice(_message.Message):
    __slots__ = ("start", "stop", "step")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    start: Value
    stop: Value
    step: Value
    def __init__(self, start: _Optional[_Union[Value, _Mapping]] = ..., stop: _Optional[_Union[Value, _Mapping]] = ..., step: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Sequence(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Size(_message.Message):
    __slots__ = ("dims",)
    DIMS_FIELD_NUMBER: _ClassVar[int]
    dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dims: _Optional[_Iterable[int]] = ...) -> None: ...

class NamedTuple(_message.Message):
    __slots__ = ("type", "fields", "items")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    type: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, type: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ..., items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class NamedValue(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Mapping(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[NamedValue]
    def __init__(self, entries: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("result", "ref", "integer", "unsigned", "number", "boolean", "text", "none", "complex", "dtype", "device", "size", "list", "tuple", "slice", "ellipsis", "array", "memory_format", "layout", "mapping", "named_tuple", "tensor", "data", "object", "program", "big_integer", "foreign")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    COMPLEX_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    ELLIPSIS_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    NAMED_TUPLE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    BIG_INTEGER_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    result: int
    ref: Ref
    integer: int
    unsigned: int
    number: float
    boolean: bool
    text: str
    none: _empty_pb2.Empty
    complex: Complex
    dtype: DType
    device: str
    size: Size
    list: Sequence
    tuple: Sequence
    slice: Slice
    ellipsis: _empty_pb2.Empty
    array: HostArray
    memory_format: MemoryFormat
    layout: Layout
    mapping: Mapping
    named_tuple: NamedTuple
    tensor: TensorMeta
    data: TensorData
    object: str
    program: Program
    big_integer: bytes
    foreign: Foreign
    def __init__(self, result: _Optional[int] = ..., ref: _Optional[_Union[Ref, _Mapping]] = ..., integer: _Optional[int] = ..., unsigned: _Optional[int] = ..., number: _Optional[float] = ..., boolean: _Optional[bool] = ..., text: _Optional[str] = ..., none: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., complex: _Optional[_Union[Complex, _Mapping]] = ..., dtype: _Optional[_Union[DType, str]] = ..., device: _Optional[str] = ..., size: _Optional[_Union[Size, _Mapping]] = ..., list: _Optional[_Union[Sequence, _Mapping]] = ..., tuple: _Optional[_Union[Sequence, _Mapping]] = ..., slice: _Optional[_Union[Slice, _Mapping]] = ..., ellipsis: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., array: _Optional[_Union[HostArray, _Mapping]] = ..., memory_format: _Optional[_Union[MemoryFormat, str]] = ..., layout: _Optional[_Union[Layout, str]] = ..., mapping: _Optional[_Union[Mapping, _Mapping]] = ..., named_tuple: _Optional[_Union[NamedTuple, _Mapping]] = ..., tensor: _Optional[_Union[TensorMeta, _Mapping]] = ..., data: _Optional[_Union[TensorData, _Mapping]] = ..., object: _Optional[str] = ..., program: _Optional[_Union[Program, _Mapping]] = ..., big_integer: _Optional[bytes] = ..., foreign: _Optional[_Union[Foreign, _Mapping]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "operation", "args", "kwargs", "context", "frees", "free_parts")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    FREES_FIELD_NUMBER: _ClassVar[int]
    FREE_PARTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    operation: int
    args: _containers.RepeatedCompositeFieldContainer[Value]
    kwargs: _containers.RepeatedCompositeFieldContainer[NamedValue]
    context: int
    frees: _containers.RepeatedScalarFieldContainer[int]
    free_parts: _containers.RepeatedCompositeFieldContainer[Ref]
    def __init__(self, id: _Optional[int] = ..., operation: _Optional[int] = ..., args: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., kwargs: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ..., context: _Optional[int] = ..., frees: _Optional[_Iterable[int]] = ..., free_parts: _Optional[_Iterable[_Union[Ref, _Mapping]]] = ...) -> None: ...

class Program(_message.Message):
    __slots__ = ("inputs", "calls", "result", "context")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    inputs: int
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    result: Value
    context: int
    def __init__(self, inputs: _Optional[int] = ..., calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., result: _Optional[_Union[Value, _Mapping]] = ..., context: _Optional[int] = ...) -> None: ...

class Autocast(_message.Message):
    __slots__ = ("device_type", "dtype", "enabled", "cache_enabled")
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    CACHE_ENABLED_FIELD_NUMBER: _ClassVar[int]
    device_type: str
    dtype: DType
    enabled: bool
    cache_enabled: bool
    def __init__(self, device_type: _Optional[str] = ..., dtype: _Optional[_Union[DType, str]] = ..., enabled: _Optional[bool] = ..., cache_enabled: _Optional[bool] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("no_grad", "inference", "autocast", "cuda_device")
    NO_GRAD_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_FIELD_NUMBER: _ClassVar[int]
    CUDA_DEVICE_FIELD_NUMBER: _ClassVar[int]
    no_grad: bool
    inference: bool
    autocast: _containers.RepeatedCompositeFieldContainer[Autocast]
    cuda_device: int
    def __init__(self, no_grad: _Optional[bool] = ..., inference: _Optional[bool] = ..., autocast: _Optional[_Iterable[_Union[Autocast, _Mapping]]] = ..., cuda_device: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("type", "message", "operation", "call_id", "batch_seq", "call_index", "reason", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_SEQ_FIELD_NUMBER: _ClassVar[int]
    CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    operation: str
    call_id: int
    batch_seq: int
    call_index: int
    reason: str
    details: _containers.ScalarMap[str, str]
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., operation: _Optional[str] = ..., call_id: _Optional[int] = ..., batch_seq: _Optional[int] = ..., call_index: _Optional[int] = ..., reason: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("category", "message", "call_index")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    category: str
    message: str
    call_index: int
    def __init__(self, category: _Optional[str] = ..., message: _Optional[str] = ..., call_index: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("call_index", "value", "error", "lost_effect")
    CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LOST_EFFECT_FIELD_NUMBER: _ClassVar[int]
    call_index: int
    value: Value
    error: Error
    lost_effect: bool
    def __init__(self, call_index: _Optional[int] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., lost_effect: _Optional[bool] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("seq", "acked", "define_operations", "define_contexts", "calls", "frees", "free_parts", "packed", "traceparent")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    DEFINE_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    DEFINE_CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FREES_FIELD_NUMBER: _ClassVar[int]
    FREE_PARTS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    acked: int
    define_operations: _containers.RepeatedScalarFieldContainer[str]
    define_contexts: _containers.RepeatedCompositeFieldContainer[Context]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    frees: _containers.RepeatedScalarFieldContainer[int]
    free_parts: _containers.RepeatedCompositeFieldContainer[Ref]
    packed: bytes
    traceparent: str
    def __init__(self, seq: _Optional[int] = ..., acked: _Optional[int] = ..., define_operations: _Optional[_Iterable[str]] = ..., define_contexts: _Optional[_Iterable[_Union[Context, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., frees: _Optional[_Iterable[int]] = ..., free_parts: _Optional[_Iterable[_Union[Ref, _Mapping]]] = ..., packed: _Optional[bytes] = ..., traceparent: _Optional[str] = ...) -> None: ...

class BatchReply(_message.Message):
    __slots__ = ("seq", "results", "warnings")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    results: _containers.RepeatedCompositeFieldContainer[Result]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    def __init__(self, seq: _Optional[int] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ...) -> None: ...
