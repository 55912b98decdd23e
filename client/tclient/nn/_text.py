"""The text of a module: its name, its own settings, and its submodules indented below.

Knows the names of a module's submodules; does not know any layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tclient.nn.module import Module


def indent(text: str, spaces: int = 2) -> str:
    """Text with all lines but the first one moved to the right."""
    return text.replace("\n", "\n" + " " * spaces)


def module_text(module: Module) -> str:
    """What `print(module)` shows."""
    extra = module.extra_repr()
    lines = extra.split("\n") if extra else []
    children = [f"({name}): {indent(repr(child))}" for name, child in module._modules.items()]
    name = module._get_name()
    if not children and len(lines) <= 1:
        return f"{name}({extra})"
    return f"{name}(\n  " + "\n  ".join(lines + children) + "\n)"
