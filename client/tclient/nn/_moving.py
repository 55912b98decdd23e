"""Modules that go from one session to another: what of them travels, and how they take what has arrived.

The module, its parameters and its buffers stay the objects that they are. Knows modules; does not know how tensors
travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tclient.nn._changes import changed
from tclient.nn._core import Tensor, gradients
from tclient.nn.module import Module

__all__ = ["Module", "Whole"]


class Whole:
    """A module with all below it."""

    def __init__(self, module: Module) -> None:
        self._modules = list(module.modules())
        self._params = list(module.parameters())
        self._gradients = gradients(self._params)
        buffers = list(module.buffers())
        self._held = [*self._params, *buffers]
        self.tensors: list[Tensor] = [*self._held, *(grad for grad in self._gradients if grad is not None)]

    def replace(self, found: Mapping[Any, Tensor]) -> None:
        """Take what the tensors are now, by their references."""
        for held in self._held:
            held._ref = found[held._ref]._ref
        for param, grad in zip(self._params, self._gradients, strict=True):
            if grad is not None:
                param.grad = found[grad._ref]
        for module in self._modules:
            # One that was made of it is in the session that it came from.
            module.__dict__.pop("_network", None)
        changed()
