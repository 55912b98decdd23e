"""What a program gives with torch and with tclient, in a form that can be compared.

A program takes a namespace, torch or tclient, and returns what is to be compared.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Program = Callable[[Any], Any]


def plain(value: Any) -> Any:
    """A value as it is compared: tensors by class, dtype, shape and numbers, modules by their text."""
    if hasattr(value, "detach"):
        if not hasattr(value.dtype, "is_floating_point") or repr(value).startswith("<Uninit"):
            return repr(value)
        numbers = value.detach().cpu().double().reshape(-1).tolist()
        return (
            type(value).__name__,
            str(value.dtype),
            tuple(value.shape),
            value.requires_grad,
            [round(number, 4) + 0.0 for number in numbers],
        )
    if isinstance(value, dict):
        return {name if isinstance(name, str | int) else repr(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 4)
    if value is None or isinstance(value, str | int | bool):
        return _unlocated(value) if isinstance(value, str) else value
    return _unlocated(str(value) if isinstance(value, type) else repr(value))


def _unlocated(text: str) -> str:
    """A text without the names of modules and the places of objects, which differ."""
    text = re.sub(r"(<(?:function|bound method|class|method|[\w.]+ object)) .*?>+", r"\1>", text)
    return re.sub(r"(?:torch|tclient)\.(?:nn\.(?:modules|utils)\.\w+\.|nn\.\w+\.)?", "", text)


def module(namespace: Any, path: str) -> Any:
    """A module below the namespace, whether it is imported or not."""
    ours = namespace.__name__ == "tclient"
    return importlib.import_module(f"{namespace.__name__}.{path.replace('nn.modules.', 'nn.') if ours else path}")


def seen(program: Program, namespace: Any) -> Any:
    """What a program returns and warns of, or what it raises."""
    namespace.manual_seed(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # sockets of other tests
        try:
            result = plain(program(namespace))
        except Exception as error:
            builtin = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
            return builtin, _unlocated(str(error))
    # torch's own compiler warns of itself.
    told = [str(warning.message) for warning in caught if not issubclass(warning.category, DeprecationWarning)]
    return result, [_unlocated(text) for text in told]
