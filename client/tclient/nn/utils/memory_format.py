"""How the weights of convolutions lie in the server's memory. Knows modules."""

from __future__ import annotations

from typing import Any, TypeVar

from tclient.nn.conv import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d
from tclient.nn.module import Module

M = TypeVar("M", bound=Module)

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]


def _convert(module: M, memory_format: Any, kinds: tuple[type[Any], ...]) -> M:
    for one in module.modules():
        if isinstance(one, kinds):
            weight = one.weight
            weight.data = weight.detach().clone().contiguous(memory_format=memory_format)
    return module


def convert_conv2d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Lays the weights of all Conv2d and ConvTranspose2d in a memory format, here and below."""
    return _convert(module, memory_format, (Conv2d, ConvTranspose2d))


def convert_conv3d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Lays the weights of all Conv3d and ConvTranspose3d in a memory format, here and below."""
    return _convert(module, memory_format, (Conv3d, ConvTranspose3d))
