"""The import of torch, in this process, gives tclient: `import torch`, `from torch.utils.data import DataLoader`.

One finder answers for `torch` and all below it, whether torch is installed or not. Which modules and names there are
comes from a table that is generated from torch; what each means is looked up in tclient when a program asks for it. A
name that torch has and tclient has not can be imported from its module, and says so when it is used.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Union

import tensorcompute.v1
from tclient import _left_out
from tclient._launcher.bookkeeping import MADE as _BOOKKEEPING
from tclient._launcher.processes import hand_over, tell_processes

# Private functions of torch that programs call all the same.
_CALLED_ALL_THE_SAME = ("_foreach_", "_assert_async", "_check_", "_shape_as_tensor", "types._")
# torch keeps the modules of nn in a package of their own; here they are in nn itself.
_MOVED = ("nn.modules.", "nn.")


@cache
def _modules() -> dict[str, dict[str, str] | None]:
    """torch's modules by their path below torch, and what each name means; None where the names are not listed."""
    (folder,) = tensorcompute.v1.__path__
    table = json.loads((Path(folder) / "torch_modules.json").read_bytes())["modules"]
    return {path: None if names is None else _targets(path, names) for path, names in table.items()}


def _targets(path: str, names: str) -> dict[str, str]:
    pairs = (name.partition("=") for name in names.split())
    return {name: target or _below(path, name) for name, _, target in pairs}


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _relative(path: str) -> str:
    return path.removeprefix("torch").removeprefix(".")


def _is_module(path: str) -> bool:
    return path in _modules()


@cache
def _rooms(path: str) -> list[str]:
    """torch's modules right below one of them."""
    parts = [each.rpartition(".") for each in _modules() if each]
    return [name for parent, _, name in parts if parent == path]


def _may_be_imported(path: str, name: str) -> bool:
    """Whether torch has the name in that module, as far as the table tells."""
    names = _modules()[path]
    return not name.startswith("__") and (names is None or name in names)


def _reason(path: str) -> str:
    """Why tclient lacks what torch has under a path below torch, or the room that it is in; put behind a sentence."""
    parent, _, name = path.rpartition(".")
    while path:
        if why := _left_out.reason(path) or _left_out.reason((_modules().get(parent) or {}).get(name, path)):
            return f": {why}"
        path, _, _ = path.rpartition(".")
    return ""


def _said(path: str) -> str:
    return f"tclient does not have torch.{path}{_reason(path)}"


class _Absent:
    """What tclient cannot find; no value of a program is it."""


def _found(path: str) -> Any:
    """The object under a dotted path of tclient, or _Absent."""
    owner: Any = importlib.import_module("tclient")
    for part in path.split("."):
        try:
            owner = getattr(owner, part)
        except AttributeError:
            # A module that its package does not import.
            if not isinstance(owner, ModuleType) or not hasattr(owner, "__path__"):
                return _Absent
            name = f"{owner.__name__}.{part}"
            if importlib.util.find_spec(name) is None:
                return _Absent
            owner = importlib.import_module(name)
    return owner


def _meant(path: str, name: str) -> Any:
    """What a name of torch's module at `path` means here, or _Absent."""
    from tclient._launcher.version import MADE

    whole = _below(path, name)
    if whole in MADE:
        return MADE[whole]()
    if whole in _BOOKKEEPING:
        return _BOOKKEEPING[whole]
    names = _modules()[path] or {}
    if _is_module(whole) and name not in names:
        return importlib.import_module(f"torch.{whole}")
    if name.startswith("_") and name not in names and not whole.startswith(_CALLED_ALL_THE_SAME):
        return _Absent
    for candidate in dict.fromkeys((whole, names.get(name, whole), whole.replace(*_MOVED))):
        value = _found(candidate)
        if value is not _Absent:
            return value
    return _Absent


class Placeholder:
    """A name of torch that tclient lacks: it can be imported and stand in annotations, and says so when it is used.

    Nothing is an instance of it. Classes may be derived from it, as libraries do that they then do not use; making an
    instance of those says so.
    """

    def __init__(self, path: str) -> None:
        self.__path = path

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(_said(self.__path))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        path = self.__path

        class Lacking:
            def __new__(cls, *args: Any, **kwargs: Any) -> NoReturn:
                raise NotImplementedError(_said(path))

        return (Lacking,)

    def __getattr__(self, name: str) -> Any:
        whole = f"{self.__path}.{name}"
        if whole in _BOOKKEEPING:
            return _BOOKKEEPING[whole]
        raise AttributeError(_said(self.__path), name=name, obj=self)

    def __instancecheck__(self, value: object) -> bool:
        return False

    def __subclasscheck__(self, kind: type) -> bool:
        return False

    def __getitem__(self, item: Any) -> Placeholder:
        return self

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007

    def __repr__(self) -> str:
        return f"<torch.{self.__path}, which tclient does not have>"


class TorchModule(ModuleType):
    """A module of torch: its names are looked up in tclient, each once."""

    def __getattr__(self, name: str) -> Any:
        path = _relative(self.__name__)
        if name == "__all__":
            return [each for each in _modules()[path] or () if not each.startswith("_") and hasattr(self, each)]
        value = _meant(path, name)
        if value is _Absent:
            is_torch_s = _may_be_imported(path, name) and _modules()[path] is not None
            lacking = is_torch_s or bool(_reason(_below(path, name)))
            why = f": tclient does not have it{_reason(_below(path, name))}" if lacking else ""
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'{why}", name=name, obj=self)
        if callable(value):  # other values are settings, which change
            vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Placeholder):
            return  # so that hasattr goes on to say that it is missing
        if name.startswith("_") or isinstance(value, ModuleType):
            super().__setattr__(name, value)
            return
        path = _relative(self.__name__)
        meant = _found(path) if path else importlib.import_module("tclient")
        if isinstance(meant, ModuleType):
            vars(self).pop(name, None)
            setattr(meant, name, value)
            return
        if meant is _Absent:
            warnings.warn(f"torch.{path}.{name} is set to no effect{_reason(path)}", stacklevel=2)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        path = _relative(self.__name__)
        names = [each for each in _modules()[path] or () if hasattr(self, each)]
        return sorted({*vars(self), *names, *_rooms(path)})

    def __repr__(self) -> str:
        return f"<module '{self.__name__}' of tclient>"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of torch, and placeholders for the names that `from` asks for in vain."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch" and not fullname.startswith("torch."):
            return None
        below = _relative(fullname)
        parent, _, name = below.rpartition(".")
        if _is_module(below) or (_is_module(parent) and _may_be_imported(parent, name)):
            return importlib.machinery.ModuleSpec(fullname, self, origin="tclient", is_package=True)
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        below = _relative(spec.name)
        return TorchModule(spec.name) if _is_module(below) else Placeholder(below)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run: names are looked up later."""


def as_torch() -> None:
    """From here on, in this process, `import torch` and what is below it mean tclient, also where torch is installed.

    So they do in processes that multiprocessing begins from here, which get tensors by value.

    Raises: RuntimeError if torch itself is imported already.

        import tclient

        tclient.as_torch()
        import torch
        from torch.utils.data import DataLoader
    """
    imported = sys.modules.get("torch")
    if isinstance(imported, TorchModule):
        return
    if imported is not None:
        raise RuntimeError("torch itself is imported in this process already; call tclient.as_torch() before that")
    sys.meta_path.insert(0, _Finder())
    tell_processes()
    hand_over()


def load_ipython_extension(ipython: object) -> None:
    """What `%load_ext tclient` in a notebook does: the same as `as_torch()`."""
    as_torch()
