"""Arguments bent until they no longer fit: values beyond their range, other shapes, dtypes, strides and devices.

Knows torch; does not know the contract.
"""

from __future__ import annotations

import random
from typing import Any

import torch

_INTEGERS = [
    *(0, -1, 1, 2, -2, 3, 5, 7, 64, -100, 1000, 65536, 2**20, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40),
    *(2**61, 2**62 - 8, 2**62, 2**63 - 1, 2**63, -(2**63), -(2**62)),
]
_SMALL = [0, -1, 1, 2, -2, 3, 4, 5, 7, -7]
_FLOATS = [0.0, -1.0, 1.0, 0.5, float("nan"), float("inf"), -float("inf"), 1e308, 1e-308, 2.0**63, -3.7]
_TEXTS = ["", "mean", "sum", "none", "constant", "reflect", "circular", "replicate", "amax", "prod", "trunc", "floor"]
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.int8),
    *(torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn),
]


def integer(chance: random.Random) -> int:
    """A number that is sometimes an index, a size or an enum, and often none."""
    return chance.choice(chance.choice([_INTEGERS, _SMALL]))


def small(chance: random.Random) -> int:
    """A number that may well fit."""
    return chance.choice(_SMALL)


def tensor(sample: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """Another tensor in the place of this one."""
    if sample.layout is torch.sparse_coo:
        return chance.choice(
            [sample.transpose(0, -1), sample * 2, sample.to_dense(), sample.coalesce(), sample.unsqueeze(0)]
        )
    real = sample.is_floating_point() or sample.is_complex()
    numbers: list[Any] = [*_FLOATS, 2.0**40] if real else [number for number in _INTEGERS if number < 2**63]
    sizes = list(sample.shape)
    match chance.choice(range(11) if real else [0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]):
        case 0 if sizes:
            sizes[chance.randrange(len(sizes))] = 0
            return torch.zeros(sizes, dtype=sample.dtype)
        case 1 if sample.numel() and sample.is_contiguous():
            damaged = sample.clone()
            damaged.view(-1)[chance.randrange(sample.numel())] = _fitting(chance.choice(numbers), sample.dtype)
            return damaged
        case 2:
            return torch.full_like(sample, _fitting(chance.choice(numbers), sample.dtype))
        case 3:
            return sample.to(chance.choice(DTYPES))
        case 4:
            return sample.reshape(-1)[:1].reshape(()) if sample.numel() else sample.new_zeros(())
        case 5:
            return sample.unsqueeze(chance.randrange(sample.dim() + 1))
        case 6:
            return torch.ones([max(0, size + chance.choice([-1, 0, 1, 2])) for size in sizes]).to(sample.dtype)
        case 7 if sizes and sizes[0]:
            return sample[:1].expand(chance.choice([1, 3, 5]), *sizes[1:])
        case 8 if sample.dim() > 1:
            return sample.transpose(0, -1)
        case 9:
            return sample.to("meta")
        case _:
            return torch.ones([chance.randrange(4) for _ in range(chance.randrange(6))]).to(sample.dtype)


def _fitting(number: float, dtype: torch.dtype) -> float:
    """The number, or the nearest one that the dtype has."""
    if dtype is torch.bool:
        return bool(number)
    if (dtype.is_complex or (dtype.is_floating_point and dtype.itemsize > 1)) and abs(number) == float("inf"):
        return number
    limits = torch.finfo(dtype) if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype)
    return number if number != number else min(max(number, limits.min), limits.max)


def argument(value: Any, chance: random.Random) -> Any:
    """Another argument in the place of this one."""
    match value:
        case torch.Tensor():
            return tensor(value, chance)
        case bool():
            return not value
        case int():
            return integer(chance)
        case float():
            return chance.choice(_FLOATS)
        case None:
            return chance.choice([None, 0, 1, -1, torch.ones(2), torch.zeros(3, dtype=torch.int64), [0], 2.0])
        case str():
            return chance.choice(_TEXTS)
        case torch.dtype():
            return chance.choice(DTYPES)
        case slice():
            return slice(small(chance), small(chance), chance.choice([1, 2, 3]))
        case list() | tuple():
            return _sequence(list(value), chance)
    return value


def _sequence(items: list[Any], chance: random.Random) -> list[Any]:
    where = chance.randrange(len(items)) if items else 0
    match chance.randrange(6):
        case 0 if items:
            items.pop(where)
        case 1:
            items.append(items[-1] if items else 1)
        case 2:
            items.clear()
        case _ if items:
            items[where] = argument(items[where], chance)
    return items
