"""What the operator schemas of torch's library say: what is written, what is drawn at random, what is returned."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import torch

_PREFIXES = {"linalg.": "linalg_", "fft.": "fft_", "special.": "special_"}


@cache
def _by_name() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace == "aten":
            found[name].append(schema)
    return {name: sorted(found[name], key=str) for name in found}


def schemas(prefix: str, leaf: str) -> list[Any]:
    """The schemas of an operation, without those that write to `out`."""
    found = _by_name().get(_PREFIXES.get(prefix, "") + leaf, [])
    return [schema for schema in found if not any(a.is_out for a in schema.arguments)]


def written(prefix: str, leaf: str) -> list[str]:
    """The parameters that a schema marks as written; the first one is called self."""
    names: dict[str, None] = {}
    for schema in schemas(prefix, leaf):
        for argument in schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write and "Tensor" in str(argument.type):
                names[argument.name] = None
    return list(names)


def draws(prefix: str, leaf: str) -> bool:
    """Whether a schema takes a generator or is tagged as drawing random numbers."""
    for schema in schemas(prefix, leaf):
        if any(argument.name == "generator" for argument in schema.arguments):
            return True
        if "nondeterministic_seeded" in tags(schema):
            return True
    return False


def tags(schema: Any) -> set[str]:
    """What torch says of an overload in a word: pointwise, reduction, nondeterministic_seeded…"""
    packet = getattr(torch.ops.aten, schema.name.partition("::")[2], None)
    overload = getattr(packet, schema.overload_name or "default", None)
    return set() if overload is None else {tag.name for tag in overload.tags}


def is_view(schema: Any) -> bool:
    """Whether the results share the memory of an argument that is not written."""
    return any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)


_GEOMETRY = frozenset(("size", "sizes", "shape", "length", "step", "stride", "storage_offset"))


def geometry(prefix: str, leaf: str) -> str | None:
    """What the caller says of the place of the result in its memory: `strides`, or only `sizes` of a view; or None."""
    found = schemas(prefix, leaf)
    for schema in found:
        if {"size", "stride"} <= {argument.name for argument in schema.arguments if "int" in str(argument.type)}:
            return "strides"
    for schema in filter(is_view, found):
        if any(argument.name in _GEOMETRY and "int" in str(argument.type) for argument in schema.arguments):
            return "sizes"
    return None


def returned(prefix: str, leaf: str) -> set[tuple[str, ...]]:
    """The types that the schemas return, one tuple for each schema."""
    return {tuple(str(value.type) for value in schema.returns) for schema in schemas(prefix, leaf)}
