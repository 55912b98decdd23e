"""Calls of torch's own functions, from the samples that torch ships for its operators and from samples of our own.

Knows torch and the table; the tests and the fuzz take their calls from here.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operations import surface
from operations.generate import TABLE
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo import core

from tests.operations.samples import SAMPLES


def _seed(seed: int | None = None) -> None:
    number = common_utils.SEED if seed is None else seed
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


# For each sample torch looks through the whole stack for a test of unittest's, and here never finds one; and to seed
# devices that are not there it makes a text of the stack.
for module in (common_utils, core):
    module.extract_test_fn = lambda: None  # type: ignore[attr-defined]
common_utils.set_rng_seed = _seed

ROOT = Path(__file__).resolve().parents[2]
Entry = dict[str, Any]

_OPERATORS = {
    "add": ["add"],
    "bitwise_and": ["and"],
    "bitwise_or": ["or"],
    "bitwise_xor": ["xor"],
    "bitwise_left_shift": ["lshift"],
    "bitwise_right_shift": ["rshift"],
    "bitwise_not": ["invert"],
    "true_divide": ["truediv", "div"],
    "div": ["truediv"],
    "remainder": ["mod"],
    "floor_divide": ["floordiv"],
}


@dataclass(frozen=True)
class Invocation:
    """One call: the entry of the table, what to call, and the arguments."""

    entry: Entry
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """What torch returns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.target(*self.args, **self.kwargs)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor."""
    return isinstance(value, torch.Tensor)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in an argument."""
    if is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def copied(value: Any) -> Any:
    """The same argument on copies of its tensors."""
    if is_tensor(value):
        return value.detach().clone()
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([copied(item) for item in value])
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return value


@cache
def table() -> dict[str, Entry]:
    """The entries of the committed table, by name."""
    return {entry["name"]: entry for entry in json.loads(TABLE.read_text(encoding="utf-8"))["operations"]}


@cache
def targets() -> dict[str, Any]:
    """What the names of the table stand for in this torch."""
    found = {name: surface.lookup(name) for name in table() if not name.startswith("tc.")}
    return {name: candidate.target for name, candidate in found.items() if candidate is not None}


@cache
def _names_of() -> dict[Any, list[str]]:
    names: dict[Any, list[str]] = {}
    for name, target in targets().items():
        if not name.endswith("__"):
            names.setdefault(target, []).append(name)
    return names


def _names(info: Any) -> list[str]:
    """The operations that the samples of one of torch's operators fit: by what is called, and by name."""
    found: dict[str, None] = {}
    for variant in [info, *info.aliases]:
        for target in (variant.op, variant.method_variant, variant.inplace_variant):
            found |= dict.fromkeys(_names_of().get(target, [])) if callable(target) else {}
        found |= dict.fromkeys([variant.name] if variant.name in targets() else [])
        prefix, _, short = variant.name.rpartition(".")
        if prefix not in ("", "nn.functional"):
            continue
        stem = short.removesuffix("_")
        guesses = [variant.name + "_", f"Tensor.{stem}", f"Tensor.{stem}_", stem, stem + "_"]
        guesses += [f"Tensor.{stem}.__get__", f"nn.functional.{stem}", f"nn.functional.{stem}_"]
        for word in _OPERATORS.get(stem, [stem.strip("_")]):
            guesses += [f"Tensor.__{letter}{word}__" for letter in ("", "i", "r")]
        found |= dict.fromkeys(guess for guess in guesses if guess in targets())
    return list(found)


def _dtype(info: Any, wanted: torch.dtype) -> torch.dtype | None:
    order = (wanted, torch.float32, torch.complex64, torch.int64, torch.bool)
    return next((dtype for dtype in order if dtype in info.dtypes), None)


@cache
def operators() -> dict[str, tuple[Any, list[str]]]:
    """torch's operators, and the names in the table that their samples fit, by a name of their own."""
    found = {f"{info.name}.{info.variant_test_name}".rstrip("."): (info, _names(info)) for info in op_db}
    return {name: (info, names) for name, (info, names) in found.items() if names}


_HELD = {torch.strided, torch.sparse_coo}


def _layout(tensor: torch.Tensor) -> torch.layout:
    return tensor.layout


def from_torch(operator: str, most: int, dtype: torch.dtype = torch.float32) -> Iterator[Invocation]:
    """Calls from torch's samples for one operator: at most so many of them, not only the first ones."""
    info, names = operators()[operator]
    usable = _dtype(info, dtype)
    if usable is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(islice(info.sample_inputs("cpu", usable, requires_grad=False), 16 * most))
    samples = [sample for sample in samples if {*map(_layout, tensors([sample.input, *sample.args]))} <= _HELD]
    for sample in samples[:: max(1, -(-len(samples) // most))]:
        for name in names:
            arguments = copied((sample.input, *sample.args)), copied(dict(sample.kwargs))
            yield Invocation(table()[name], targets()[name], *arguments)


def from_us(name: str) -> Iterator[Invocation]:
    """Calls of an operation that torch has no samples for."""
    for sample in SAMPLES[name]:
        args = sample()
        kwargs = args[-1] if args and isinstance(args[-1], dict) else {}
        yield Invocation(table()[name], targets()[name], args[:-1] if kwargs else args, kwargs)
