"""What torch offers: every public path of the namespaces that the product mirrors, and what torch says of each.

Knows torch; decides nothing about what is let in (see left_out.py and extras.py) nor what an operation returns.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.overrides
from torch.utils._device import _device_constructors

# prefix of the operation's name -> the object that has the attributes
NAMESPACES: dict[str, Any] = {
    "": torch,
    "nn.functional.": torch.nn.functional,
    "linalg.": torch.linalg,
    "fft.": torch.fft,
    "special.": torch.special,
    "sparse.": torch.sparse,
    "masked.": torch.masked,
    "Tensor.": torch.Tensor,
    "Generator.": torch.Generator,
    "autograd.": torch.autograd,
    "nn.init.": torch.nn.init,
    "nn.utils.": torch.nn.utils,
    "nn.utils.rnn.": torch.nn.utils.rnn,
}
_OVERRIDABLE_NAMESPACES = ("", "nn.functional.", "linalg.", "fft.", "special.", "Tensor.")


@dataclass(frozen=True)
class Candidate:
    """One public path of torch: `add`, `Tensor.add_`, `Tensor.shape.__get__`."""

    name: str
    kind: str  # function, method, property, setter
    target: Any  # what is called

    @property
    def leaf(self) -> str:
        """The last part of the path, without the accessor of a property."""
        return self.name.removesuffix(".__get__").removesuffix(".__set__").rpartition(".")[2]

    @property
    def prefix(self) -> str:
        """The namespace, with its dot."""
        return self.name.removesuffix(".__get__").removesuffix(".__set__").removesuffix(self.leaf)


def is_private(leaf: str) -> bool:
    """Whether the name is torch's own business: a leading underscore that is not a Python protocol's."""
    return leaf.startswith("_") and not (leaf.startswith("__") and leaf.endswith("__"))


_DESCRIPTORS = (property, types.GetSetDescriptorType)


def lookup(name: str) -> Candidate | None:
    """The candidate of a dotted path, or None where this torch has none."""
    for accessor, kind in ((".__get__", "property"), (".__set__", "setter")):
        if name.endswith(accessor):
            prefix, _, leaf = name.removesuffix(accessor).rpartition(".")
            attribute = getattr(NAMESPACES[prefix + "."], leaf, None)
            if not isinstance(attribute, _DESCRIPTORS):
                return None
            return Candidate(name, kind, getattr(attribute, accessor.strip(".")))
    prefix, dot, leaf = name.rpartition(".")
    target = getattr(NAMESPACES[prefix + dot], leaf, None)
    if target is None:
        return None
    kind = "method" if prefix in ("Tensor", "Generator") else "function"
    return Candidate(name, kind, target)


def overridable() -> Iterator[Candidate]:
    """Every path whose target torch lists as overridable: the functions, methods and properties that take tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own deprecated entries while it lists them
        listed = {target for targets in torch.overrides.get_overridable_functions().values() for target in targets}
        resolved = {
            torch.overrides.resolve_name(target)
            for targets in torch.overrides.get_overridable_functions().values()
            for target in targets
        }
    for prefix in _OVERRIDABLE_NAMESPACES:
        namespace = NAMESPACES[prefix]
        for leaf in sorted(dir(namespace)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attribute = getattr(namespace, leaf, None)
            if isinstance(attribute, _DESCRIPTORS):
                if f"torch.{prefix}{leaf}.__get__" in resolved:
                    yield Candidate(f"{prefix}{leaf}.__get__", "property", attribute.__get__)
            elif callable(attribute) and attribute.__hash__ is not None and attribute in listed:
                yield Candidate(f"{prefix}{leaf}", "method" if prefix == "Tensor." else "function", attribute)


def in_place_functions() -> Iterator[Candidate]:
    """`torch.relu_` and its like, which torch does not list: the in-place twins of functions."""
    for prefix in ("", "nn.functional."):
        namespace = NAMESPACES[prefix]
        for leaf in sorted(dir(namespace)):
            if leaf.endswith("_") and not leaf.startswith("_") and callable(getattr(namespace, leaf)):
                yield Candidate(f"{prefix}{leaf}", "function", getattr(namespace, leaf))


def device_constructors() -> set[Any]:
    """The functions whose result goes to the default device."""
    return set(_device_constructors())
