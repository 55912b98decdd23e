"""What the shapes of a model's inputs tell of those of its outputs. Knows descriptions, and no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Dimensioned(Protocol):
    """An input or an output."""

    @property
    def dimensions(self) -> tuple[int | str, ...]:
        """A size each, or the name of one that varies."""


def output_shapes(
    inputs: Sequence[Dimensioned], outputs: Sequence[Dimensioned], shapes: Sequence[Sequence[int]]
) -> list[tuple[int, ...] | None]:
    """The shapes of the outputs for inputs of these shapes, before they are run; None where those do not tell."""
    sizes = {
        name: size
        for spec, shape in zip(inputs, shapes, strict=True)
        for name, size in zip(spec.dimensions, shape, strict=True)
        if isinstance(name, str)
    }
    return [_shape_at(spec, sizes) for spec in outputs]


def _shape_at(spec: Dimensioned, sizes: dict[str, int]) -> tuple[int, ...] | None:
    if any(isinstance(size, str) and size not in sizes for size in spec.dimensions):
        return None
    return tuple(sizes[size] if isinstance(size, str) else size for size in spec.dimensions)
