from tensorcompute.v1 import tensor_pb2 as _tensor_pb2
from tensorcompute.v1 import tensor_service_pb2 as _tensor_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeptTensor(_message.Message):
    __slots__ = ("name", "tensor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _tensor_pb2.Ref
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.Ref, _Mapping]] = ...) -> None: ...

class KeepRequest(_message.Message):
    __slots__ = ("context", "name", "tensors", "kind", "metadata", "overwrite", "token")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    tensors: _containers.RepeatedCompositeFieldContainer[KeptTensor]
    kind: str
    metadata: _containers.ScalarMap[str, str]
    overwrite: bool
    token: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[KeptTensor, _Mapping]]] = ..., kind: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., overwrite: _Optional[bool] = ..., token: _Optional[str] = ...) -> None: ...

class KeepResponse(_message.Message):
    __slots__ = ("kept",)
    KEPT_FIELD_NUMBER: _ClassVar[int]
    kept: KeptName
    def __init__(self, kept: _Optional[_Union[KeptName, _Mapping]] = ...) -> None: ...

class KeptName(_message.Message):
    __slots__ = ("name", "kind", "size_bytes", "kept_unix_s", "tensors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    size_bytes: int
    kept_unix_s: float
    tensors: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., size_bytes: _Optional[int] = ..., kept_unix_s: _Optional[float] = ..., tensors: _Optional[int] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("context", "name", "id", "device")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    id: int
    device: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., id: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("tensors", "metadata", "kept")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[RecalledTensor]
    metadata: _containers.ScalarMap[str, str]
    kept: KeptName
    def __init__(self, tensors: _Optional[_Iterable[_Union[RecalledTensor, _Mapping]]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., kept: _Optional[_Union[KeptName, _Mapping]] = ...) -> None: ...

class RecalledTensor(_message.Message):
    __slots__ = ("name", "tensor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _tensor_pb2.TensorMeta
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.TensorMeta, _Mapping]] = ...) -> None: ...

class ListNamesRequest(_message.Message):
    __slots__ = ("context", "page_size", "page_token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    page_size: int
    page_token: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNamesResponse(_message.Message):
    __slots__ = ("names", "next_page_token")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedCompositeFieldContainer[KeptName]
    next_page_token: str
    def __init__(self, names: _Optional[_Iterable[_Union[KeptName, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("context", "name")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ("context", "name", "overwrite", "token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    overwrite: bool
    token: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ..., overwrite: _Optional[bool] = ..., token: _Optional[str] = ...) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ("kept", "left_out")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    kept: KeptName
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kept: _Optional[_Union[KeptName, _Mapping]] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("context", "name")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    context: _tensor_service_pb2.SessionContext
    name: str
    def __init__(self, context: _Optional[_Union[_tensor_service_pb2.SessionContext, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("kept",)
    KEPT_FIELD_NUMBER: _ClassVar[int]
    kept: KeptName
    def __init__(self, kept: _Optional[_Union[KeptName, _Mapping]] = ...) -> None: ...
