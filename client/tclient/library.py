"""torch.library: operators of a caller's own are functions of Python, and run as such.

What would tell torch how to trace them is not needed; an operator that is defined by a schema alone cannot be called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tclient._namespace import missing

_T = TypeVar("_T")


def _same(function: _T) -> _T:
    return function


def _decorator(function: Any) -> Any:
    return _same if function is None else function


class Library:
    """A name space of operators, which nothing is added to."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        self.ns = ns
        self.kind = kind
        self.dispatch_key = dispatch_key

    def define(self, schema: str, *args: Any, **kwargs: Any) -> str:
        """Nothing; gives the name."""
        return f"{self.ns}::{schema.partition('(')[0]}"

    def impl(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class CustomOpDef:
    """An operator of the caller: calling it calls the function."""

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self._name = name
        self._function = fn
        self.__name__ = fn.__name__
        self.__doc__ = fn.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def register_fake(self, fn: _T) -> _T:
        """The function as it is."""
        return fn

    def register_kernel(self, device_types: Any, fn: Any = None, /) -> Any:
        """The function as it is: what was given first is what runs."""
        return _decorator(fn)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._name})>"


def custom_op(
    name: str,
    fn: Any = None,
    /,
    *,
    mutates_args: Any,
    device_types: Any = None,
    schema: str | None = None,
    tags: Any = None,
) -> Any:
    """An operator that is this function; also as a decorator."""

    def made(function: Callable[..., Any]) -> CustomOpDef:
        return CustomOpDef(name, function)

    return made if fn is None else made(fn)


def register_fake(op: Any, func: Any = None, /, **kwargs: Any) -> Any:
    """The function as it is; also as a decorator."""
    return _decorator(func)


def register_autograd(op: Any, backward: Any, /, **kwargs: Any) -> None:
    """Nothing: gradients are those of what the function computes with."""


impl_abstract = register_fake


def register_vmap(op: Any, func: Any = None, /, **kwargs: Any) -> Any:
    """The function as it is; also as a decorator."""
    return _decorator(func)


def impl(qualname: str, types: Any, func: Any = None, **kwargs: Any) -> Any:
    """The function as it is; also as a decorator."""
    return _decorator(func)


def define(qualname: str, schema: Any = None, **kwargs: Any) -> Any:
    """Nothing; as a decorator, the function as it is."""
    return _same if schema is None else None


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
