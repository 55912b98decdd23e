"""torch.library: operators of a caller's own are functions of Python, and run as such.

What would tell torch how to trace them is not needed; an operator that is defined by a schema alone cannot be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from tclient._namespace import missing
from tclient.autograd.function import Function

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


# By name.
_operators: dict[str, CustomOpDef] = {}


class CustomOpDef:
    """An operator of the caller: calling it calls the function."""

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self._name = name
        self._function = fn
        _operators[name] = self
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

    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """From here on gradients are what `backward` makes of those of the results, as in torch.autograd.Function."""
        function = self._function
        signature = inspect.signature(function)

        def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if setup_context is not None:
                setup_context(ctx, inputs, output)

        members = {
            "forward": staticmethod(function),
            "setup_context": staticmethod(set_up),
            "backward": staticmethod(backward),
        }
        made: Any = type(self.__name__, (Function,), members)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            return made.apply(*given.args, *given.kwargs.values())

        self._function = call

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


def register_autograd(op: Any, backward: Any, /, *, setup_context: Any = None, lib: Any = None) -> None:
    """As the method of an operator, which may be given by its name."""
    found = _operators.get(op) if isinstance(op, str) else op
    if not isinstance(found, CustomOpDef):
        raise NotImplementedError(
            f"library.register_autograd: {op!r} is no operator of custom_op; derive from torch.autograd.Function"
        )
    found.register_autograd(backward, setup_context=setup_context)


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
