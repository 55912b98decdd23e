"""Tensors that a module counts as its own: parameters are trained, buffers are only kept.

Knows the client's Tensor; does not know modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tclient
from tclient.nn._core import Tensor, adopt


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned to one of its attributes.

    Shapes: as data. It shares the memory of data, as in torch.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = tclient.empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(
                f"Parameter: data is a {type(data).__name__}; give a tensor, as in Parameter(tclient.tensor(data))"
            )
        return adopt(cls, data.detach().requires_grad_(requires_grad))

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Nothing is left to do: __new__ took over the tensor."""

    # mypy takes the arguments of dunder methods for positional ones, and finds no two of these alike.
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        found = memo.get(id(self))
        if found is None:
            found = type(self)(self.detach().clone(), self.requires_grad)
            memo[id(self)] = found
        return found


def parameter_from(factory: Callable[..., Tensor], shape: Any, device: Any = None, dtype: Any = None) -> Parameter:
    """A new parameter that a factory such as `tclient.empty` fills: one call; Parameter(factory(...)) is three."""
    return adopt(Parameter, factory(shape, device=device, dtype=dtype, requires_grad=True))


class Buffer(Tensor):
    """A tensor that a module keeps as a buffer when it is assigned to one of its attributes."""

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        self = adopt(cls, tclient.empty(0) if data is None else data)
        self.persistent = persistent
        return self

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Nothing is left to do: __new__ took over the tensor."""
