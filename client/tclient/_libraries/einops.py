"""What einops asks of a framework, for tensors of the server.

einops finds a backend among the subclasses of its own class: this one is made once einops is imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

_REDUCTIONS = {"max": "amax", "min": "amin", "sum": "sum", "mean": "mean", "any": "any", "all": "all"}


def define(backends: Any) -> None:
    """Make the backend, of the class that einops has for them."""

    class TclientBackend(backends.AbstractBackend):  # type: ignore[misc]
        """Tensors of the server, for einops."""

        framework_name = "tclient"

        def __init__(self) -> None:
            self._tclient: Any = sys.modules["tclient"]

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, self._tclient.Tensor)

        def from_numpy(self, x: np.ndarray[Any, Any]) -> Any:
            made = self._tclient.from_numpy(x)
            return made.requires_grad_() if self.is_float_type(made) else made

        def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
            found: np.ndarray[Any, Any] = x.detach().numpy()
            return found

        def arange(self, start: int, stop: int) -> Any:
            return self._tclient.arange(start, stop, dtype=self._tclient.int64)

        def transpose(self, x: Any, axes: Sequence[int]) -> Any:
            return x.permute(axes)

        def reduce(self, x: Any, operation: str, axes: Sequence[int]) -> Any:
            if operation in _REDUCTIONS:
                return getattr(x, _REDUCTIONS[operation])(dim=tuple(axes))
            if operation != "prod":
                raise NotImplementedError(f"einops: there is no reduction {operation!r} of tensors")
            for axis in sorted(axes, reverse=True):
                x = x.prod(dim=axis)
            return x

        def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
            return self._tclient.stack(tensors)

        def add_axis(self, x: Any, new_position: int) -> Any:
            return x.unsqueeze(new_position)

        def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
            sizes = [-1] * n_axes
            for position, size in pos2len.items():
                x = x.unsqueeze(position)
                sizes[position] = size
            return x.expand(sizes)

        def tile(self, x: Any, repeats: Sequence[int]) -> Any:
            return x.repeat(repeats)

        def concat(self, tensors: list[Any], axis: int) -> Any:
            return self._tclient.cat(tensors, dim=axis)

        def is_float_type(self, x: Any) -> bool:
            return bool(x.is_floating_point())

        def einsum(self, pattern: str, *x: Any) -> Any:
            return self._tclient.einsum(pattern, *x)

        def layers(self) -> Any:
            return importlib.import_module("einops.layers.tclient")

    # einops holds its subclasses weakly.
    backends.TclientBackend = TclientBackend
