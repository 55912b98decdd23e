"""Functions of torch with a leading underscore that programs call all the same: assertions, a shape as a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tclient._codec.dtypes import DTYPES
from tclient._codec.foreign import class_name
from tclient._codec.operations import TABLE
from tclient._issue import dispatch
from tclient._tensor import Tensor

_Message = Callable[[], object] | None
_UNSAID = (
    "Expected cond to be True, but got False. (Could this error message be improved? If so, please report an "
    "enhancement request to PyTorch.)"
)


def _assert(condition: Any, message: Any) -> None:
    """Raises: AssertionError with the message if the condition, a bool or a tensor, is false."""
    if not condition:
        raise AssertionError(message)


def _assert_async(input: Any, assert_msg: str = "Expected Tensor with single nonzero value, but got zero") -> None:
    """Raises: RuntimeError if the tensor's one element is zero."""
    if not input:
        raise RuntimeError(assert_msg)


def _checking(error: type[Exception]) -> Callable[..., None]:
    def check(cond: Any, message: _Message = None) -> None:
        if not isinstance(cond, bool):
            raise TypeError(f"cond must be a bool, but got {type(cond)}")
        if cond:
            return
        if message is not None and not callable(message):
            raise TypeError("message must be a callable")
        raise error(_UNSAID if message is None else str(message()))

    return check


_check = _checking(RuntimeError)
_check_index = _checking(IndexError)
_check_value = _checking(ValueError)
_check_type = _checking(TypeError)
_check_not_implemented = _checking(NotImplementedError)


def _check_is_size(i: Any, message: _Message = None, *, max: int | None = None) -> None:
    """Raises: RuntimeError if it is less than zero, or more than the most."""
    _check(i >= 0, message)
    if max is not None:
        _check(i <= max, message)


def _check_tensor_all(cond: Any, message: _Message = None) -> None:
    """Raises: RuntimeError if any element of a tensor of bools is false."""
    if not isinstance(cond, Tensor):
        raise TypeError(f"cond must be a tensor, but got {class_name(cond)}")
    _check(bool(cond.all()), message)


def _shape_as_tensor(self: Tensor) -> Any:
    """The sizes as a tensor of int64."""
    return dispatch(TABLE["tensor"], (list(self.shape),), {"dtype": DTYPES["int64"]})


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_assert": _assert,
    "_assert_async": _assert_async,
    "_check": _check,
    "_check_index": _check_index,
    "_check_value": _check_value,
    "_check_type": _check_type,
    "_check_not_implemented": _check_not_implemented,
    "_check_is_size": _check_is_size,
    "_check_tensor_all": _check_tensor_all,
    "_shape_as_tensor": _shape_as_tensor,
}
