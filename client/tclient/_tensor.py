"""Tensor: the Python object that stands for a tensor on the server.

Here is what a client must do itself: metadata that is known already, host data, Python's protocols. Everything else is
torch's own method, from the table of operations (_namespace.py).
"""

from __future__ import annotations

import builtins
import copy
import difflib
import numbers
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tclient import _issue, _left_out, _notebook
from tclient._caller import HERE
from tclient._codec import device as _device
from tclient._codec import dtypes as _dtypes
from tclient._codec.data import refuse_foreign
from tclient._codec.dtypes import BY_CODE, SCALAR_TYPES
from tclient._codec.operations import TABLE, Operation
from tclient._codec.size import Size
from tclient._codec.wire import KWARG, TRUE, named_value
from tclient._exceptions import ServerFailed, TensorError, TensorTypeError, TensorValueError
from tclient._gradients import gradient, set_gradient
from tclient._issue import TensorBase, dispatch, finish, operation_named, prepare
from tclient._memory import Memory
from tclient._native import bare, set_up
from tclient._session.call_queue import CallQueue
from tclient._session.calls import Call
from tclient._session.kinds import Meta
from tclient._session.modes import MODES, no_grad
from tclient._session.refs import RemoteRef
from tclient._session.results import meta_at
from tclient._session.session import Session
from tclient._shapes import by_key
from tclient._together import kept, number
from tclient._transfer.arrays import check_out
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.varint import field

_COO = _dtypes.LAYOUTS[int(pb.LAYOUT_SPARSE_COO)]
_DESCRIBE = operation_named("tc.describe")
_READ = operation_named("tc.read")
_NUMPY = operation_named("tc.numpy")
_CONSTRUCTED = operation_named("tc.constructed")


if TYPE_CHECKING:
    from tclient._stubs.methods import TensorMethods as _Base
    from tclient.autograd._callers import RemovableHandle
else:
    _Base = TensorBase


class Tensor(Memory, _Base):
    """A tensor on the server. Its methods are torch's; `Tensor(2, 3)` and `Tensor([1., 2.])` make float tensors.

    Operations do not wait: what they return stands for a result that may not exist yet. Reading (`item`, `numpy`,
    `print`, `bool`…) waits, and raises what went wrong on the way there.
    """

    __slots__ = ()
    __array_priority__ = 1000

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = constructed("Tensor", args, kwargs)
        return made if cls is Tensor else made._alias(cls)

    def _alias(self, cls: builtins.type[Any]) -> Any:
        """An object of a subclass that stands for the same tensor. The tensor lives as long as one of them does."""
        made = bare(cls)
        made._ref = self._ref
        return made

    # ---- metadata ------------------------------------------------------------------------------------------------

    def _known(self, *, grad: bool = False) -> Meta | None:
        """What is known of the tensor without a word from the server."""
        ref = self._ref
        queue = ref.session.queue
        meta = ref.meta
        if meta is not None and _is_current(ref, queue, meta, grad):
            return meta
        kind = ref.kind
        if kind is None or kind.meta is None or grad or ref.since < queue.meta_epoch:
            return None
        if ref.call is not None and ref.call.done:
            return None  # the answer may be an error
        ref.meta, ref.epoch = kind.meta, ref.since
        return ref.meta

    def _meta(self, *, grad: bool = False) -> Meta:
        """What is known of the tensor; waits if its description is on its way, asks if it may have changed."""
        meta = self._known(grad=grad)
        if meta is not None:
            return meta
        ref = self._ref
        session = ref.session
        queue = session.queue
        call = ref.call
        if call is not None:
            meta = self._told(call, grad=grad)
            if meta is not None:
                return meta
        call, number = prepare(_DESCRIBE, ref)
        queue.drops.append(number)
        return self._described(call)

    def _told(self, call: Call, *, grad: bool = False) -> Meta | None:
        """Takes in the answer to the call that made it, and waits for that; None if what it says may have changed."""
        ref = self._ref
        value = ref.session.wait(call)
        told = meta_at(value, ref.path) if value is not None else None
        ref.call = None
        if told is None:
            return None
        meta = ref.meta = Meta(told)
        ref.epoch = call.epoch
        if ref.kind is not None:
            ref.kind.learn(meta)
        return meta if _is_current(ref, ref.session.queue, meta, grad) else None

    def _described(self, call: Call) -> Meta:
        """Takes in the answer to a call of `tc.describe`."""
        ref = self._ref
        value = ref.session.wait(call)
        if value is None:
            raise ServerFailed("describe: the server did not describe the tensor")
        ref.meta = Meta(value.tensor)
        ref.epoch = call.epoch
        return ref.meta

    @property
    def shape(self) -> Size:
        """The size of each dimension."""
        return self._meta().shape

    @property
    def dtype(self) -> _dtypes.dtype:
        """The type of the elements."""
        return self._meta().dtype

    @property
    def device(self) -> _device.device:
        """Where the tensor lives, as the server sees it."""
        return self._meta().device

    @property
    def layout(self) -> _dtypes.layout:
        """How the elements are stored."""
        return self._meta().layout

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._meta().shape)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are recorded for the tensor."""
        return bool(self._meta(grad=True).requires_grad)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        dispatch(TABLE["Tensor.requires_grad.__set__"], (self, value), None)

    @property
    def name(self) -> str | None:
        """The name by which the session keeps the tensor, also when nobody holds it any more; None without.

        Given by assignment; the last tensor that it is given to has it. None takes it away, and so does the end of the
        session.
        """
        from tclient import _named  # here, as few programs give names

        return _named.name_of(self)

    @name.setter
    def name(self, value: str | None) -> None:
        from tclient import _named

        _named.set_name(self, value)

    @property
    def itemsize(self) -> int:
        """The bytes of one element."""
        return self._meta().dtype.itemsize

    @property
    def is_sparse(self) -> bool:
        """Whether the tensor is one of coordinates and values."""
        return self._meta().layout is _COO

    def to_sparse_coo(self) -> Any:
        """The tensor as one of coordinates and values."""
        return dispatch(TABLE["Tensor.to_sparse"], (self,), None)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements. Raises: RuntimeError for a sparse tensor."""
        meta = self._meta()
        if meta.layout is _COO:
            dispatch(TABLE["Tensor.nbytes.__get__"], (self,), None)  # torch's own refusal
        return meta.shape.numel() * meta.dtype.itemsize

    @property
    def is_cuda(self) -> bool:
        """Whether the tensor lives on a GPU of the server."""
        return self._meta().device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether the tensor lives in the memory of the server."""
        return self._meta().device.type == "cpu"

    @overload
    def size(self) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, *args: Any, **kwargs: Any) -> Any:
        """The shape, or the size of one dimension."""
        if not args and not kwargs:
            return self._meta().shape
        if len(args) + len(kwargs) == 1:
            dim = args[0] if args else kwargs.get("dim")
            if dim.__class__ is int:
                shape = self._meta().shape
                if -len(shape) <= dim < len(shape):
                    return shape[dim]
        # Anything else is an error of the caller, and torch has the words for it.
        return dispatch(TABLE["Tensor.size"], (self, *args), kwargs)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self._meta().shape)

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return self._meta().shape.numel()

    nelement = numel

    def element_size(self) -> int:
        """The bytes of one element."""
        return self._meta().dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are floating point numbers."""
        return self._meta().dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the elements are complex."""
        return self._meta().dtype.is_complex

    def pin_memory(self, device: Any = None) -> Tensor:
        """The tensor itself: the server pins what it copies to a GPU."""
        return self

    def type(self, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        """The name of the tensor's class; with a dtype, the tensor converted to it."""
        if type(dtype) is builtins.type:
            # Elsewhere torch takes them for dtypes.
            raise TensorValueError(f"invalid type: '{dtype.__name__}'")
        args = (self,) if dtype is None else (self, dtype, non_blocking)
        return dispatch(TABLE["Tensor.type"], args, kwargs)

    def transpose(self, *args: Any, **kwargs: Any) -> Any:
        """The tensor with two dimensions swapped; a view."""
        made = dispatch(TABLE["Tensor.transpose"], (self, *args), kwargs)
        if len(args) == 1:
            # numpy.transpose tries this, and transposes an array if it is refused: at once, not when it is read.
            made._meta()
        return made

    # The table has it, too; here nothing is shared.
    is_shared = Memory.is_shared

    # ---- hooks ---------------------------------------------------------------------------------------------------

    def register_hook(self, hook: Callable[[Any], Any]) -> RemovableHandle:
        """Calls hook(gradient) whenever the gradient is there; what it returns, unless None, takes its place."""
        from tclient.autograd import _callers

        return _callers.register(self, "gradient", hook, lambda told: hook(*told["given"]))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], Any]) -> RemovableHandle:
        """Calls hook(tensor) whenever a gradient has been added to its `grad`; of leaves only."""
        from tclient.autograd import _callers

        # Not the tensor itself: the hook is kept for as long as that lives.
        known = weakref.ref(self)

        def run(told: dict[str, Any]) -> None:
            tensor = known()
            if hook(told["given"][0] if tensor is None else tensor) is not None:
                raise RuntimeError("Tensor post accumulate grad hooks should return None.")

        return _callers.register(self, "accumulated", hook, run)

    # ---- reading -------------------------------------------------------------------------------------------------

    def _read(self, operation: Operation, kwargs: bytes = b"", out: np.ndarray[Any, Any] | None = None) -> Elements:
        """The elements, as the server answers a read; in the memory of `out` if they are many and it can take them."""
        if MODES.recorder is not None:
            raise MODES.recorder.refused("numpy", "reads a value")
        ref = self._ref
        call, number = prepare(operation, ref, kwargs)
        value = ref.session.wait(call)
        if value is not None and value.HasField("data"):
            data = value.data
            return BY_CODE[data.dtype], data.shape, data.data
        return _fetch(value, ref.session, number, out)

    async def _read_async(self, operation: Operation) -> Elements:
        import asyncio

        session = self._ref.session
        call, number = prepare(operation, self._ref)
        value = await session.wait_async(call)
        if value is not None and value.HasField("data"):
            data = value.data
            return BY_CODE[data.dtype], data.shape, data.data
        return await asyncio.to_thread(_fetch, value, session, number)

    def numpy(self, *, force: bool = False, out: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """The elements as a numpy array of its own memory, or in `out`, which has their dtype and shape. Waits.

        Raises: RuntimeError if gradients are recorded (use `x.detach().numpy()`, or force=True); TypeError for dtypes
        that numpy does not have; TypeError or ValueError if `out` does not fit, and then it is as it was.
        """
        if out is not None:
            return _numpy_into(out, *self._read(_NUMPY, _FORCE if force else b"", out))
        return _numpy_of(*self._read(_NUMPY, _FORCE if force else b""))

    async def numpy_async(self) -> np.ndarray[Any, Any]:
        """As `numpy`, without holding up the event loop."""
        return _numpy_of(*await self._read_async(_NUMPY))

    def tolist(self) -> list[Any] | Any:
        """The elements as nested lists of Python numbers; a number if the tensor has no dimensions. Waits."""
        element, shape, data = self._read(_READ)
        if element.numpy is None and element is not _BFLOAT16:
            return dispatch(TABLE["Tensor.tolist"], (self,), None)
        return _list_of(element, shape, data)

    async def tolist_async(self) -> Any:
        """As `tolist`, without holding up the event loop."""
        element, shape, data = await self._read_async(_READ)
        if element.numpy is None and element is not _BFLOAT16:
            raise TensorTypeError(f"tolist_async does not know {element}; use tolist()")
        return _list_of(element, shape, data)

    async def item_async(self) -> Any:
        """As `item`, without holding up the event loop."""
        call, number = prepare(TABLE["Tensor.item"], self._ref)
        await self._ref.session.wait_async(call)
        return finish(self._ref.session, call, number)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            # The elements have to come here: numpy says so in its words.
            return np.asarray([], copy=False)
        read = kept(self, sys._getframe(1)) if MODES.recorder is None else None
        data = None if read is None else read.data
        array = self.numpy() if data is None else _numpy_of(BY_CODE[data.dtype], data.shape, data.data)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __float__(self) -> float:
        found = number(self) if MODES.recorder is None else None
        return dispatch(TABLE["Tensor.__float__"], (self,), None) if found is None else float(found)

    def __int__(self) -> int:
        found = number(self) if MODES.recorder is None else None
        return dispatch(TABLE["Tensor.__int__"], (self,), None) if found is None else int(found)

    def __bool__(self) -> bool:
        found = number(self) if MODES.recorder is None else None
        return dispatch(TABLE["Tensor.__bool__"], (self,), None) if found is None else bool(found)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # As torch does: numpy's functions of tensors give tensors, and bools become uint8.
        array = np.asarray(array)
        refuse_foreign(array)
        return dispatch(TABLE["from_numpy"], (array.astype("uint8") if array.dtype == bool else array,), None)

    # ---- Python's protocols --------------------------------------------------------------------------------------

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        shape = self._meta().shape
        if not shape:
            raise TypeError("len() of a 0-d tensor")
        return shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._meta().shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(dispatch(TABLE["Tensor.unbind"], (self, 0), None))

    def __reversed__(self) -> Any:
        return dispatch(TABLE["Tensor.flip"], (self, 0), None) if self._meta().shape else self

    def __contains__(self, element: Any) -> bool:
        if isinstance(element, (Tensor, numbers.Number)):
            found: Any = element == self
            return bool(found.any().item())
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        text: str = dispatch(TABLE["Tensor.__repr__"], (self,), None)
        return text

    def _repr_html_(self) -> str:
        return _notebook.of_tensor(self)

    def __format__(self, spec: str) -> str:
        if type(self) is not Tensor:
            return object.__format__(self, spec)
        element: Any = None
        if self._ref.meta is None and MODES.recorder is None:
            # Both the shape and the element are asked for, and come with one wait; of more elements none is read.
            call, number = prepare(TABLE["Tensor.item"], self.detach()._ref)
            try:
                element = finish(self._ref.session, call, number)
            except TensorError:
                pass  # it has several elements, or failed itself, which its shape says
        if self._meta().shape:
            return object.__format__(self, spec)
        return format(self.detach().item() if element is None else element, spec)

    def __copy__(self) -> Any:
        with no_grad():
            made = self.detach()
        if self.requires_grad:
            made.requires_grad_()
        return made._alias(type(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment.  If you were attempting to deepcopy a module, this may be because of a "
                "torch.nn.utils.weight_norm usage, see https://github.com/pytorch/pytorch/pull/103001"
            )
        with no_grad():
            made = self.detach().clone()._alias(type(self))
        if self.requires_grad:
            made.requires_grad_()
        gradient = self.grad
        if gradient is not None:
            made.grad = copy.deepcopy(gradient, memo)
        memo[id(self)] = made
        if self.__dict__:
            made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        from tclient._by_value import reduced  # here, as few programs pickle

        return reduced(self)

    def __dlpack__(
        self,
        *,
        stream: Any = -1,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule with a copy of the elements in the memory of this process. Waits.

        Raises: BufferError for copy=False, for another place than this memory, and for dtypes that numpy does not have.
        """
        if copy is False:
            raise BufferError("a tensor of tclient is on the server: its elements cannot be here without a copy")
        if dl_device is not None and tuple(map(int, dl_device)) != _HOST:
            raise BufferError("the elements of a tensor of tclient can be copied into the memory of this process only")
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if self.is_conj():
            raise BufferError("Can't export tensors with the conjugate bit set")
        if self.dtype.numpy is None:
            raise BufferError(f"numpy, which hands out the copy, does not have {self.dtype}")
        return self.numpy().__dlpack__(max_version=max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The memory of this process, where `__dlpack__` copies the elements."""
        return _HOST

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        """The functions of the array API standard, which libraries use that work with arrays of any kind.

        Raises: ValueError for a version of the standard that is not known here.
        """
        from tclient import array_api

        if api_version is not None and api_version not in array_api.VERSIONS:
            raise ValueError(f"the array API {api_version} is not here; there are {', '.join(array_api.VERSIONS)}")
        return array_api

    def to_device(self, device: Any, /, *, stream: Any = None) -> Any:
        """The tensor on another device of the server, as the array API standard has it."""
        if stream is not None:
            raise ValueError("streams are the server's; leave `stream` out")
        return self.to(device)

    if not TYPE_CHECKING:  # a checker knows the gradient from the stubs, and refuses unknown names by itself
        grad = property(gradient, set_gradient, doc="The gradient, or None. Waits where it may have changed.")

        def __getattr__(self, name: str) -> Any:
            error = AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)
            if not name.startswith("__"):
                why = _left_out.reason_of_tensor(name)
                near = difflib.get_close_matches(name, [each for each in dir(Tensor) if not each.startswith("_")], 3)
                # A note, so that the text is torch's.
                if why:
                    error.add_note(f"a tensor on a server has no {name}: {why}")
                elif near:
                    error.add_note(f"the nearest that exist: {', '.join(near)}")
            raise error


def constructed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What torch's class of that name makes of these arguments."""
    if len(args) == 1 and isinstance(args[0], Size):
        args = tuple(args[0]) or (args[0],)
    if len(args) == 1 and not kwargs and isinstance(args[0], np.ndarray):
        refuse_foreign(args[0])
    return dispatch(_CONSTRUCTED, (name, *args), kwargs or None)


def _is_current(ref: RemoteRef, queue: CallQueue, meta: Meta, grad: bool) -> bool:
    """Whether what is known of a tensor holds still; requires_grad, too, if that is asked for."""
    if grad and meta.requires_grad is None:
        return False
    return ref.epoch == queue.epoch or (ref.epoch >= queue.meta_epoch and not grad)


# What a read gives: dtype, shape, bytes.
Elements = tuple[_dtypes.dtype, Sequence[int], "bytes | np.ndarray[Any, Any]"]

_BFLOAT16 = _dtypes.DTYPES["bfloat16"]
_HOST = (1, 0)  # kDLCPU of DLPack
_FORCE = field(KWARG, named_value("force", TRUE))


def _fetch(value: pb.Value | None, session: Session, number: int, out: np.ndarray[Any, Any] | None = None) -> Elements:
    """The elements of a read that were too many for a message."""
    kind = value.WhichOneof("kind") if value is not None else None
    if kind != "object":
        raise ServerFailed(f"a read was answered with {kind}, not with elements")
    try:
        code, shape, buffer = session.transfers.download(number, out)
    finally:
        session.queue.drops.append(number)
    return BY_CODE[code], shape, buffer


def _numpy_of(element: _dtypes.dtype, shape: Sequence[int], data: bytes | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if element.numpy is None:
        raise TensorTypeError(f"Got unsupported ScalarType {SCALAR_TYPES[element._name]}")
    # A bytearray, because the caller may write into the array.
    array = np.frombuffer(bytearray(data) if isinstance(data, bytes) else data, element.numpy)
    return array if len(shape) == 1 else array.reshape(shape)


def _numpy_into(
    out: np.ndarray[Any, Any], element: _dtypes.dtype, shape: Sequence[int], data: bytes | np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    check_out(out, element.code, shape)
    if isinstance(data, bytes) or not np.may_share_memory(data, out):
        out[...] = _numpy_of(element, shape, data)
    return out


def _list_of(element: _dtypes.dtype, shape: Sequence[int], data: bytes | np.ndarray[Any, Any]) -> Any:
    array: np.ndarray[Any, Any]
    if element.numpy is None:
        # bfloat16 is the upper half of a float32.
        array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        array = np.frombuffer(data, element.numpy)
    return (array if len(shape) == 1 else array.reshape(shape)).tolist()


def describe(tensors: Iterable[Tensor]) -> None:
    """Have shape, dtype and device of all of these known, by one wait for all that are not."""
    asked = []
    for tensor in tensors:
        ref = tensor._ref
        known = tensor._known()
        if known is None and ref.call is not None and ref.call.done:
            known = tensor._told(ref.call)
        if known is None:
            call, number = prepare(_DESCRIBE, ref)
            ref.session.queue.drops.append(number)
            asked.append((tensor, call))
    for tensor, call in reversed(asked):
        tensor._described(call)


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of this client."""
    return isinstance(value, Tensor)


_issue.TENSOR_CLASS = Tensor
set_up(tensor=Tensor, base=TensorBase, call=Call, ref=RemoteRef, modes=MODES, by_key=by_key, here=HERE)
