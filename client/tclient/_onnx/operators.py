"""The table of operators: by domain and name, what runs a node, and what of a node is known here.

A function takes its node and the inputs in their order: tensors, None for those that are left out, and numpy arrays for
those whose elements are needed here. It returns a tensor, or a tuple of as many as the node has outputs at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tclient._onnx.reading import Node, Unsupported


class Operator(NamedTuple):
    """How nodes of one kind are run."""

    run: Callable[..., Any]
    # What nodes may say; another attribute is refused.
    attributes: frozenset[str]
    # The positions of inputs whose elements are needed here: sizes, axes.
    numbers: frozenset[int]
    # Attributes that become tensors, once, and arguments of the function by name.
    tensors: frozenset[str]
    # What is wrong with a node, if anything.
    complaint: Callable[[Node], str | None] | None


TABLE: dict[tuple[str, str], Operator] = {}


def operator(
    *kinds: str,
    attributes: str = "",
    numbers: tuple[int, ...] = (),
    tensors: str = "",
    domain: str = "",
    complaint: Callable[[Node], str | None] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function into the table, as what runs nodes of these kinds."""

    def put(run: Callable[..., Any]) -> Callable[..., Any]:
        for kind in kinds:
            known = frozenset(attributes.split()), frozenset(numbers), frozenset(tensors.split())
            TABLE[domain, kind] = Operator(run, *known, complaint)
        return run

    return put


def complaints(node: Node) -> list[str]:
    """What of a node is not supported."""
    found = TABLE[node.domain, node.kind]
    wrong = [
        f"the attribute {name!r} is {value!r}"
        for name, value in node.attributes.items()
        if isinstance(value, Unsupported)
    ]
    wrong += [
        f"the attribute {name!r} ({_short(value)}) is not supported"
        for name, value in node.attributes.items()
        if name not in found.attributes | found.tensors and not isinstance(value, Unsupported)
    ]
    if not wrong and found.complaint is not None:
        complaint = found.complaint(node)
        if complaint:
            wrong.append(complaint)
    return wrong


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
