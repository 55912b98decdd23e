"""Functions of the torch namespace that a client answers itself, or with an argument check of its own.

What is here replaces the function that the table would give. Knows tensors and sessions.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from tclient._codec.data import is_torch_array, refuse_foreign, warn_if_read_only
from tclient._codec.device import DEFAULT, device
from tclient._codec.dtypes import DTYPES, SCALAR_TYPES, dtype
from tclient._codec.foreign import class_name
from tclient._codec.operations import TABLE
from tclient._issue import dispatch, is_tensor_argument
from tclient._session.current import current
from tclient._session.modes import MODES
from tclient._session.names import KeptName
from tclient._session.session import OF_TENSORS, Session, connected
from tclient._settings import has_gpu
from tclient._tensor import Tensor
from tclient._types import tensortype

_device = device
# "Double" -> float64, as the names of types have it.
DTYPE_OF_TYPE = {name: DTYPES[element] for element, name in SCALAR_TYPES.items() if element in DTYPES}


def move(tensors: Any, session: Session, *, device: Any = None) -> Any:
    """The tensors in another session: a tensor, a module, or lists, tuples and dicts of them, by one transfer. Waits.

    Of what is no tensor or module the result has the very object. A tensor arrives as it is when its turn comes among
    the calls of its session: dtype, shape and, where no gaps are between its elements, strides; in memory of its own,
    also where two shared theirs, on the session's default device or the one named. Autograd does not cross: what
    arrives is a leaf, which requires gradients where the original does. A module is changed in place, with its
    gradients. Tensors of that session stay as they are. Servers send to each other where they can (--send-to), and
    otherwise the bytes go by way of this program.

    Raises: ValueError for sparse tensors; NotImplementedError for meta tensors; a ServerError, and nothing has moved.
    """
    from tclient import _moving  # here, as few programs have two sessions

    return _moving.move(tensors, session, device)


def _named(function: str, *args: Any) -> Any:
    from tclient import _named  # here, as few programs give names

    return getattr(_named, function)(*args)


OF_TENSORS["tensors"] = functools.partial(_named, "tensors")
OF_TENSORS["name"] = functools.partial(_named, "name")


def borrow(grant: Any) -> Any:
    """What another principal shares with this one: a tensor, or a dict of them. Waits.

    `grant` is the `text()` of what `share(x, with_="…")` gave there. No element is copied: what its owner writes shows
    here, and with write=True what is written here shows there. Once it is revoked, the next call on it, or on a view of
    it, raises RuntimeError; what was computed from it stays. Raises: ValueError where it is not there for this
    principal.
    """
    from tclient import _granting  # here, as few programs share

    return _granting.borrowed(grant)


def share(tensors: Any, *, with_session: Session | None = None, with_: str | None = None, write: bool = False) -> Any:
    """The same memory in another session, to be read: a tensor, or lists, tuples and dicts of them. Waits.

    `with_` names another principal instead: a tensor, or a dict of them, may be taken by its sessions of this engine
    with `borrow(grant.text())`, and by nobody else, until `grant.revoke()`. With write=True it may write the elements,
    too.

    No element is copied. What the owner writes later shows there; what would write to it there is refused
    (RuntimeError), also through views, with out=, by an optimiser or in a backward. Both sessions must be of one engine
    and one principal. Autograd does not cross: it arrives as a leaf without gradients. The memory is there as long as
    one of the two holds it. It counts for the owner for as long as that session lives, and then for who has it, where
    it can still only be read.

    Raises: ValueError for sessions of two engines or principals, and for sparse tensors.
    """
    if (with_session is None) == (with_ is None):
        raise TypeError("share(): give one of with_session, a session, and with_, the name of a principal")
    if with_session is None:
        from tclient import _granting  # here, as few programs share

        return _granting.granted(tensors, with_, write)
    if write:
        raise TypeError(
            "share(): write is for a principal; a session of one's own moves what it writes to, with move()"
        )
    from tclient import _moving  # here, as few programs have two sessions

    return _moving.shared(tensors, with_session)


def _profile(session: Session) -> Any:
    from tclient._profiling import Profile  # here, as few programs look where their time goes

    return Profile(session)


def _of_kept(function: str, *args: Any, **named: Any) -> Any:
    from tclient import _kept  # here, as it brings along what reads and writes files

    return getattr(_kept, function)(*args, **named)


OF_TENSORS["keep"] = functools.partial(_of_kept, "keep")
OF_TENSORS["profile"] = _profile
OF_TENSORS["recall"] = functools.partial(_of_kept, "recall")


def keep(name: str, obj: Any, *, overwrite: bool = True) -> None:
    """Keep an object with its tensors on the server's disk: it outlives the session, and restarts of the server. Waits.

    Args:
        name: what it is called, for all sessions of the same principal; 1 to 200 characters. Others do not see it.
        obj: a tensor, `model.state_dict()`, `optimizer.state_dict()`, `{"model": …, "epoch": 3}`: whatever `save`
            takes. Of a module, its state_dict is kept.
        overwrite: whether what the name has now is replaced.

    No element comes to this program. The name has the whole of it when this returns, and what it had before where this
    fails. What comes back is what torch.load gives of what torch.save wrote: dtypes, shapes, strides, tensors that
    share memory, Parameters and whether they require gradients.

    Raises: ValueError for what is no name, or for one that is taken; TypeError for what is no data; OutOfMemoryError;
    ServerBusy where the server's disk is full, or this principal's share of it; RequestRefused where the server has no
    data directory.

    Example:
        >>> torch.keep("mnist", model.state_dict())
        >>> model.load_state_dict(torch.recall("mnist"))
    """
    current().keep(name, obj, overwrite=overwrite)


def recall(name: str, device: Any = None, *, weights_only: bool | None = None) -> Any:
    """What was kept under a name, as new tensors of this session. Waits.

    Args:
        name: what it is called.
        device: where all tensors go; without it each goes where it was.
        weights_only: as of `load`: False imports classes of the program's own that are named in it.

    Raises: KeyError for a name that nothing has; ValueError for a device that the server does not have;
    OutOfMemoryError; RequestRefused for what is damaged on the server's disk, or was kept by a later version.
    """
    return current().recall(name, device, weights_only=weights_only)


def names() -> list[KeptName]:
    """What this principal keeps on the server, by name: each with its kind, its bytes, when it was kept, and how many
    tensors are in it.
    """
    return current().names()


def forget(name: str) -> None:
    """Let go of what is kept under a name. Tensors that were recalled stay. Raises: KeyError."""
    current().forget(name)


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Any:
    """A tensor with the elements and dtype of an array. Unlike torch's it copies: the server has its own memory."""
    given: Any = ndarray
    if not isinstance(given, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {class_name(given)})")
    refuse_foreign(given)
    warn_if_read_only(given)
    return dispatch(TABLE["from_numpy"], (ndarray,), None)


def frombuffer(buffer: Any, *, dtype: dtype, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Any:
    """A tensor of the bytes in a buffer. Unlike torch's it copies: the server has its own memory.

    Raises: ValueError if the buffer does not hold that many elements from there on.
    """
    try:
        held = memoryview(buffer).cast("B")
    except TypeError:
        raise ValueError("object does not implement Python buffer protocol.") from None
    size, item = len(held), dtype.itemsize
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({size} bytes) minus 1"
        )
    if count < 0 and (size - offset) % item:
        raise ValueError(
            f"buffer length ({size - offset} bytes) after offset ({offset} bytes) must be a multiple of element size "
            f"({item})"
        )
    length = (size - offset) // item if count < 0 else count
    if offset + length * item > size:
        raise ValueError(
            f"requested buffer length ({length} * {item} bytes) after offset ({offset} bytes) must not be greater "
            f"than actual buffer length ({size} bytes)"
        )
    values = np.frombuffer(held[offset : offset + length * item], np.uint8).copy()
    made = dispatch(TABLE["from_numpy"], (values,), None).view(dtype)
    return made.requires_grad_() if requires_grad else made


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Any:
    """A tensor with the elements of an array, or of another object that hands out its memory. Unlike torch's it copies.

    Raises: RuntimeError for an object that has no `__dlpack__`; BufferError for one that cannot hand it out.
    """
    made: Any = ext_tensor
    if is_torch_array(ext_tensor):
        made = dispatch(TABLE["from_numpy"], (ext_tensor,), None)
    elif isinstance(ext_tensor, np.ndarray):
        raise BufferError("DLPack only supports signed/unsigned integers, float and complex dtypes.")
    elif not isinstance(ext_tensor, Tensor):
        if not hasattr(ext_tensor, "__dlpack__"):
            raise RuntimeError(
                "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so "
                "you might have already constructed a tensor from it once."
            )
        made = dispatch(TABLE["as_tensor"], (ext_tensor,), {"device": "cpu"})
    elif copy:
        made = made.clone()
    return made if device is None else made.to(device)


def is_tensor(obj: Any) -> bool:
    """Whether it is a tensor of this client."""
    return isinstance(obj, Tensor)


def _tensor(function: str, value: Any) -> Any:
    if not is_tensor_argument(value):
        raise TypeError(f"{function}(): argument 'input' (position 1) must be Tensor, not {class_name(value)}")
    return value


def is_floating_point(input: Any) -> bool:
    """Whether the elements are floating point numbers."""
    return bool(_tensor("is_floating_point", input).is_floating_point())


def is_complex(input: Any) -> bool:
    """Whether the elements are complex."""
    return bool(_tensor("is_complex", input).is_complex())


def numel(input: Any) -> int:
    """The number of elements."""
    return int(_tensor("numel", input).numel())


def set_default_dtype(d: dtype) -> None:
    """Set the floating point dtype that this session gives to new tensors."""
    session = current()
    session.default_dtype_known = False
    session.kinds.forget()  # those of integers divided depend on it
    dispatch(TABLE["set_default_dtype"], (d,), None)


def get_default_dtype() -> dtype:
    """The floating point dtype that this session gives to new tensors; waits only if it was ever set."""
    session = connected()
    if session is None or session.default_dtype_known:
        return DTYPES["float32"]
    found: dtype = dispatch(TABLE["get_default_dtype"], (), None)
    return found


def get_default_device() -> device:
    """Where this thread's new tensors go: where it said, or where the server puts them."""
    chosen = DEFAULT.place
    if chosen is not None and (chosen.type != "cuda" or chosen.index is not None):
        return chosen
    usual = device(current().opened.default_device or "cpu") if chosen is None else device("cuda", 0)
    return usual if MODES.gpu is None or usual.type != "cuda" else device("cuda", MODES.gpu)


def set_default_device(device: Any) -> None:
    """Set where this thread's new tensors go that are not told otherwise; None leaves it to the server."""
    DEFAULT.place = None if device is None else _device(device)


def set_default_tensor_type(t: Any) -> None:
    """Set the dtype of new tensors, and with a type of `torch.cuda` that they go to the GPU.

    Raises: TypeError for a type that has no floating point elements, or that the server has no device for.
    """
    warnings.warn(
        "torch.set_default_tensor_type() is deprecated as of PyTorch 2.1, please use torch.set_default_dtype() and "
        "torch.set_default_device() as alternatives.",
        stacklevel=2,
    )
    kind = t.torch_name() if isinstance(t, tensortype) else t
    element = DTYPE_OF_TYPE.get(kind.rpartition(".")[2].removesuffix("Tensor")) if isinstance(kind, str) else None
    if element is None:
        raise TypeError("invalid type object: only floating-point types are supported as the default type")
    if not element.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    on_gpu = ".cuda." in kind
    if on_gpu and not has_gpu():
        raise TypeError(f"type {kind} not available. Torch not compiled with CUDA enabled.")
    set_default_dtype(element)
    set_default_device("cuda" if on_gpu else None)


def synchronize() -> None:
    """Wait until everything that was issued has run. Raises the first failed effect that was not raised yet."""
    current().synchronize()


async def synchronize_async() -> None:
    """As `synchronize`, without holding up the event loop."""
    await current().synchronize_async()


def typename(obj: Any) -> str:
    """The name of an object's type, as torch gives it."""
    if isinstance(obj, Tensor):
        name: str = obj.type()
        return name
    return f"{type(obj).__module__}.{type(obj).__name__}"
