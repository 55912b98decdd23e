"""DistributedSampler: of one order, the part that one of several processes takes.

Knows samplers; does not know how the processes speak to each other, so both numbers are given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized
from typing import Any

import tclient
from tclient.utils.data.sampler import Sampler, permutation

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every num_replicas-th index from `rank` on, of an order that all replicas draw alike from the seed and the epoch.

    All replicas get equally many: indices from the beginning come again, or with drop_last some are left out.

    Raises: RuntimeError without num_replicas and rank, which the client cannot find out; ValueError for a rank that
    there is not.
    """

    def __init__(
        self,
        dataset: Sized | Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError(
                "DistributedSampler: the client has no process group to ask; give num_replicas=... and rank=..."
            )
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        size = len(dataset)
        self.num_samples = size // num_replicas if drop_last else -(-size // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        if self.shuffle:
            generator = tclient.Generator(device="cpu").manual_seed(self.seed + self.epoch)
            order = permutation(size, generator)
        else:
            order = list(range(size))
        if order:
            order = list(itertools.islice(itertools.cycle(order), self.total_size))
        return iter(order[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch: each has an order of its own."""
        self.epoch = epoch
