"""einops' layers as modules of tclient: `from einops.layers.tclient import Rearrange, Reduce, EinMix`."""

from __future__ import annotations

from typing import Any

from einops.layers import RearrangeMixin, ReduceMixin
from einops.layers._einmix import _EinmixMixin

import tclient as tc

__all__ = ["EinMix", "Rearrange", "Reduce"]


class Rearrange(RearrangeMixin, tc.nn.Module):  # type: ignore[misc]
    """`einops.rearrange` as a module."""

    def forward(self, input: Any) -> Any:
        """The tensor in another order of axes."""
        return self._apply_recipe(input)


class Reduce(ReduceMixin, tc.nn.Module):  # type: ignore[misc]
    """`einops.reduce` as a module."""

    def forward(self, input: Any) -> Any:
        """The tensor with axes reduced."""
        return self._apply_recipe(input)


class EinMix(_EinmixMixin, tc.nn.Module):  # type: ignore[misc]
    """A linear layer whose axes are named: weights and bias of any shape, as einops' documentation has it."""

    def _create_parameters(
        self, weight_shape: list[int], weight_bound: float, bias_shape: list[int] | None, bias_bound: float
    ) -> None:
        self.weight = tc.nn.Parameter(tc.empty(weight_shape).uniform_(-weight_bound, weight_bound))
        self.bias = None
        if bias_shape is not None:
            self.bias = tc.nn.Parameter(tc.empty(bias_shape).uniform_(-bias_bound, bias_bound))

    def _create_rearrange_layers(
        self,
        pre_reshape_pattern: str | None,
        pre_reshape_lengths: dict[str, int] | None,
        post_reshape_pattern: str | None,
        post_reshape_lengths: dict[str, int] | None,
    ) -> None:
        def layer(pattern: str | None, lengths: dict[str, int] | None) -> Rearrange | None:
            return None if pattern is None else Rearrange(pattern, **(lengths or {}))

        self.pre_rearrange = layer(pre_reshape_pattern, pre_reshape_lengths)
        self.post_rearrange = layer(post_reshape_pattern, post_reshape_lengths)

    def forward(self, input: Any) -> Any:
        """The input, mixed with the weights."""
        if self.pre_rearrange is not None:
            input = self.pre_rearrange(input)
        made = tc.einsum(self.einsum_pattern, input, self.weight)
        if self.bias is not None:
            made = made + self.bias
        return made if self.post_rearrange is None else self.post_rearrange(made)
