"""torch.jit: no code travels to a server, so functions and modules that are to be compiled are given back as they are.

`tclient.compile` is what records a function on the server. Knows modules of the client only by their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import (
    Any,
    Final,  # noqa: F401 - torch.jit.Final
    TypeVar,
)

from tclient._namespace import missing

_T = TypeVar("_T")


def script(obj: _T, *args: Any, **kwargs: Any) -> _T:
    """The function, class or module as it is."""
    return obj


def trace(func: _T, example_inputs: Any = None, *args: Any, **kwargs: Any) -> _T:
    """The function or module as it is, after it ran once with the examples."""
    if example_inputs is not None and callable(func):
        given = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        func(*given)
    return func


def freeze(mod: _T, *args: Any, **kwargs: Any) -> _T:
    """The module as it is."""
    return mod


def optimize_for_inference(mod: _T, *args: Any, **kwargs: Any) -> _T:
    """The module as it is."""
    return mod


def export(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def unused(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The function as it is; also as a decorator, with options or without."""
    return drop if callable(drop) else _same


def script_if_tracing(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def _same(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


def interface(obj: _T) -> _T:
    """The class as it is; also as a decorator."""
    return obj


def script_method(fn: _T) -> _T:
    """The function as it is; also as a decorator."""
    return fn


def trace_module(mod: _T, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> _T:
    """The module as it is, after these of its methods ran once with their examples."""
    for name, given in inputs.items():
        getattr(mod, name)(*(given if isinstance(given, tuple) else (given,)))
    return mod


class TracerWarning(Warning):
    """Never warned of: nothing is traced."""


def is_scripting() -> bool:
    """False: Python runs the code."""
    return False


def is_tracing() -> bool:
    """False: nothing is traced."""
    return False


def annotate(the_type: Any, the_value: _T) -> _T:
    """The value as it is."""
    return the_value


def __getattr__(name: str) -> Any:
    if name == "ScriptModule":
        from tclient.nn import Module

        # A class of its own: what was scripted here is none of its instances.
        made = globals()[name] = type(name, (Module,), {"__doc__": "A module whose methods Python runs."})
        return made
    missing(__name__, name, globals())
