"""torch.fx: functions are not traced, so what would be kept whole in a trace stays as it is."""

from __future__ import annotations

from typing import Any, TypeVar

from tclient._namespace import missing

_T = TypeVar("_T")


def wrap(fn_or_name: _T) -> _T:
    """The function, or the name of one, as it is; also as a decorator."""
    return fn_or_name


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
