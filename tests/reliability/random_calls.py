"""Random calls on a few tensors, of all operations of the table that can be asked for with no more than those.

Each is made twice: by the client, and by torch here. What they do to the tensors, and to the random state, is the same.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

import tclient
from tests.operations.calls import table

SIZE = 4
COUNT = 5
# Behind the tensor itself: nothing, another one, two others, a number, a dimension.
_FORMS: tuple[tuple[Any, ...], ...] = ((), ("other",), ("other", "third"), (0.5,), (1,), (0, "other"))
_SPARED = {
    # What is in memory that nobody has written is different each time.
    "empty_like", "new_empty", "new_empty_strided", "resize_", "resize_as_", "set_",
    # They change what a tensor is, and not what is in it.
    "detach_", "requires_grad_", "retain_grad", "t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_",
    # They are about graphs, dtypes and devices.
    "backward", "to", "type", "cpu", "cuda",
    # They warn, each time.
    "new_tensor", "resize_as",
}  # fmt: skip


def _filled(form: tuple[Any, ...], tensors: list[Any], chosen: list[int]) -> list[Any]:
    """The arguments of a form, of these tensors."""
    return [tensors[chosen[("other", "third").index(each) + 1]] if isinstance(each, str) else each for each in form]


def _beginning() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(SIZE, SIZE, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(COUNT)]


@cache
def calls() -> list[tuple[str, tuple[Any, ...]]]:
    """All that give another such tensor, by the name of the method and the form of the arguments."""
    found = []
    names = {name.rpartition(".")[2] for name in table()}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(names - _SPARED):
            if name.startswith("_") or not (hasattr(torch.Tensor, name) and hasattr(tclient.Tensor, name)):
                continue
            found += [(name, form) for form in _FORMS if _is_fit(name, form)]
    return found


def _is_fit(name: str, form: tuple[Any, ...]) -> bool:
    results = []
    for _ in range(2):
        tensors = _beginning()
        torch.manual_seed(1)
        try:
            result = getattr(tensors[0], name)(*_filled(form, tensors, [0, 1, 2]))
        except Exception:
            return False
        if not (isinstance(result, torch.Tensor) and result.shape == (SIZE, SIZE) and result.dtype == torch.float64):
            return False
        if result.requires_grad or result.layout != torch.strided:
            return False
        results.append(result)
    return torch.equal(results[0].nan_to_num(), results[1].nan_to_num()) and _takes_all(name, form)


def _takes_all(name: str, form: tuple[Any, ...]) -> bool:
    """Whether it never raises, whatever is in the tensors."""
    try:
        for value in (-3.0, -1.0, 0.0, 0.5, 3.0):
            for fill in (True, False):
                tensors = [torch.full_like(each, value) if fill else each * value for each in _beginning()]
                getattr(tensors[0], name)(*_filled(form, tensors, [0, 1, 2]))
    except Exception:
        return False
    return True


class Twice:
    """The tensors of a session, and the same ones here. Within `torch.random.fork_rng()`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._calls = calls()
        torch.manual_seed(seed)
        tclient.manual_seed(seed)
        self._theirs = _beginning()
        self._ours: list[Any] = [tclient.tensor(each.tolist(), dtype=tclient.float64) for each in self._theirs]
        # How many were made, by the name.
        self.made: dict[str, int] = {}

    def call(self) -> None:
        """Make one."""
        name, form = self._random.choice(self._calls)
        chosen = [self._random.randrange(COUNT) for _ in range(3)]
        at = self._random.randrange(COUNT)
        for tensors in (self._theirs, self._ours):
            result = getattr(tensors[chosen[0]], name)(*_filled(form, tensors, chosen))
            # None grows beyond all bounds.
            tensors[at] = result.nan_to_num(0.5).clamp(-3, 3)
            if name.endswith("_"):
                tensors[chosen[0]].nan_to_num_(0.25).clamp_(-3, 3)
        self.made[name] = self.made.get(name, 0) + 1

    def check(self) -> None:
        """See that both have the same, bit by bit."""
        for ours, theirs in self._pairs():
            assert ours == theirs

    def _pairs(self) -> Iterator[tuple[list[list[float]], list[list[float]]]]:
        fetched = tclient.stack(self._ours).tolist()
        return zip(fetched, torch.stack(self._theirs).tolist(), strict=True)
