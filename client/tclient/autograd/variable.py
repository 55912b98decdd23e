"""Variable, as programs from before torch 0.4 name tensors: a class that makes them, and has each for an instance.

Knows tensors; does not know sessions.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tclient._codec.foreign import class_name
from tclient._tensor import Tensor


class VariableMeta(type):
    """The class of Variable: every tensor is an instance of it."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=VariableMeta):
    """A tensor of the same elements and memory, outside the graph: `Variable(x, requires_grad=True)`.

    Raises: TypeError for data that is no tensor; RuntimeError where its dtype has no gradients.
    """

    if TYPE_CHECKING:  # what is made is a tensor

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Any:
        if volatile:
            if requires_grad:
                raise ValueError("Variable can't be volatile and require_grad at the same time!")
            warnings.warn(
                "volatile was removed and now has no effect. Use `with torch.no_grad():` instead.", stacklevel=2
            )
        if data is None:
            made: Any = Tensor()
        elif isinstance(data, Tensor):
            made = data.detach()._alias(Tensor)
        else:
            raise TypeError(f"Variable data has to be a tensor, but got {class_name(data)}")
        return made.requires_grad_() if requires_grad else made
