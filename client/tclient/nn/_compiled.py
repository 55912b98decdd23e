"""What `compile` makes of a module: a module around it, whose names are those of the one within.

Knows modules; how a function is recorded is for _compile to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

from tclient.nn.module import Module

_WITHIN = "_orig_mod"


class OptimizedModule(Module):
    """A module that runs the one within: attributes are those of the one within, and its state has its names below.

    Example:
        >>> list(tclient.compile(nn.Linear(2, 1)).state_dict())
        ['_orig_mod.weight', '_orig_mod.bias']
    """

    _orig_mod: Module

    def __init__(self, mod: Module, call: Callable[..., Any]) -> None:
        super().__init__()
        own = self.__dict__
        # The mode is that of the module within.
        del own["training"]
        own["_modules"][_WITHIN] = mod
        own["_call"] = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module within computes."""
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        within = self.__dict__["_modules"][_WITHIN]
        return within if name == _WITHIN else getattr(within, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or name == _WITHIN:
            super().__setattr__(name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._orig_mod, name)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # What runs the module belongs to that very module: a copy runs its own.
        return {name: value for name, value in state.items() if name != "_call"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["_call"] = self._orig_mod

    def train(self, mode: bool = True) -> Any:
        """Sets the mode of the module within."""
        self._orig_mod.train(mode)
        return self

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._orig_mod)})

    def __len__(self) -> int:
        if isinstance(self._orig_mod, Sized):
            return len(self._orig_mod)
        raise TypeError(f"{type(self._orig_mod).__name__} does not support len()")


def compiled(mod: Module, fullgraph: bool) -> OptimizedModule:
    """A module around this one. One that is said to be a graph as a whole is recorded; another runs as it is."""
    return OptimizedModule(mod, calling(mod, fullgraph))


def calling(call: Callable[..., Any], fullgraph: bool) -> Callable[..., Any]:
    """What runs a module in the place of a call of it.

    A recording does what Python code does besides operations once: only who says that there is none gets one.
    """
    from tclient._compile import Compiled

    return Compiled(call) if fullgraph else call
