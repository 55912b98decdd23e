"""torch without its compiler, which nothing here uses.

torch wraps each function that its compiler is to leave alone, and to do so imports the compiler when the first of them
is called: a step of an optimiser, or `eye` of a large matrix. That takes as long as torch itself, while all sessions
wait, and 70 MB. What such a function asks for is easily given without: to be left alone. Whoever asks for more gets the
compiler itself.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"


def stand_in() -> None:
    """Stand in for torch's compiler in this process, unless it has been imported."""
    if _NAME not in sys.modules:
        own = _StandIn(_NAME)
        sys.modules[_NAME] = own
        torch.__dict__["_dynamo"] = own
        sys.meta_path.insert(0, own.finder)


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []
        self.finder = _Finder(self)
        self._lock = threading.Lock()

    @staticmethod
    def disable(fn: Callable[..., Any] | None = None, recursive: bool = True, **_: Any) -> Callable[..., Any]:
        """Leave a function alone; without one, gives what does."""
        return _StandIn.disable if fn is None else fn

    @staticmethod
    def graph_break(msg: str = "") -> None:
        """Compile what comes before this and what comes after apart."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Who goes through all modules wants none imported.
            raise AttributeError(name)
        return getattr(self.itself(), name)

    def itself(self) -> ModuleType:
        """Make way for the compiler, and import it."""
        with self._lock:
            if sys.modules.get(_NAME) is self:
                del sys.modules[_NAME], torch.__dict__["_dynamo"]
                sys.meta_path.remove(self.finder)
        return importlib.import_module(_NAME)


class _Finder(MetaPathFinder):
    """Finds the modules of the compiler while another stands in for it."""

    def __init__(self, stands_in: _StandIn) -> None:
        self._stands_in = stands_in

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See importlib."""
        if not name.startswith(_NAME + "."):
            return None
        self._stands_in.itself()
        return ModuleSpec(name, _Imported(importlib.import_module(name)))


class _Imported(Loader):
    """Gives a module that has been imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See importlib."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """See importlib."""
        module.__spec__ = self._spec
