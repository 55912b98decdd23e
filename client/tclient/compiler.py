"""torch.compiler: what marks and asks of code that torch would compile. Python runs it; nothing here changes that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tclient._compile import compile  # noqa: F401 - torch.compiler.compile
from tclient._namespace import missing

_T = TypeVar("_T")


def is_compiling() -> bool:
    """False: Python runs the code."""
    return False


def is_dynamo_compiling() -> bool:
    """False: Python runs the code."""
    return False


def is_exporting() -> bool:
    """False: nothing is exported."""
    return False


def allow_in_graph(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def assume_constant_result(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function as it is; also as a decorator, with options or without."""

    def same(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    return same if fn is None else fn


def reset() -> None:
    """Nothing: there is nothing to forget."""


def cudagraph_mark_step_begin() -> None:
    """Nothing: the server keeps what it captured apart."""


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
