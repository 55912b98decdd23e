"""DataLoader: a data set in batches.

Decides here which items come next, and issues the calls that take them; nothing waits for a batch. Knows data sets,
samplers and collation; does not know what is computed with a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from tclient.utils.data.collate import default_collate, default_convert
from tclient.utils.data.datasets import Dataset, IterableDataset, batch_of, items_of
from tclient.utils.data.samplers import BatchSampler, RandomSampler, SequentialSampler, draw_seed

T_co = TypeVar("T_co", covariant=True)


def get_worker_info() -> None:
    """None, as torch says outside of worker processes: there are none."""
    return None


class _Endless:
    """The sampler of a stream: it gives out turns, not places."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """A data set in batches, in torch's order for the same seed.

    Args:
        dataset: items by their index, or a stream (IterableDataset).
        batch_size: items in a batch; None gives single items.
        shuffle: a new random order in every pass, of the session's random state or of `generator`.
        sampler, batch_sampler: the order, or the lists of indices, instead.
        collate_fn: makes a batch of a list of items; default_collate if None.
        drop_last: leave out a last batch that is not full.
        generator: where random numbers come from.

    A shuffled pass waits for its order; taking batches does not wait. Batches of a TensorDataset take one call for each
    of its tensors. The other arguments are torch's and are checked, but have no effect: the tensors are on the server
    already, so there are no worker processes, and items are taken by this one.

    Raises: what torch raises for the same arguments.
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        source: Any = dataset  # whether it has a length shows when it is asked
        self._is_stream = isinstance(source, IterableDataset)
        if self._is_stream:
            _check_stream(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None:
            if self._is_stream:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(source, generator=generator)
            else:
                sampler = SequentialSampler(source)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = source
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.drop_last = drop_last
        self.generator = generator
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

    def __iter__(self) -> Iterator[Any]:
        # torch draws a number for its workers at this point; without it all that follows would be another order.
        draw_seed(self.generator)
        return self._stream() if self._is_stream else self._items()

    def _items(self) -> Iterator[Any]:
        if self.batch_sampler is None:
            for index in self.sampler:
                yield self.collate_fn(self.dataset[index])
            return
        together = self.collate_fn is default_collate
        for indices in self.batch_sampler:
            batch = batch_of(self.dataset, indices) if together else None
            yield self.collate_fn(items_of(self.dataset, indices)) if batch is None else batch

    def _stream(self) -> Iterator[Any]:
        items = iter(self.dataset)
        if self.batch_sampler is None:
            yield from map(self.collate_fn, items)
            return
        for turns in self.batch_sampler:
            batch = list(itertools.islice(items, len(turns)))
            if not batch or (self.drop_last and len(batch) < len(turns)):
                return
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        """The number of batches. Raises TypeError if the data set, or the sampler, does not know its own."""
        if self._is_stream:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        order: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
        return len(order)


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing."
            "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_stream(shuffle: bool | None, sampler: Any, batch_sampler: Any) -> None:
    if shuffle not in (None, False):
        raise ValueError(f"DataLoader with IterableDataset: expected unspecified shuffle option, but got {shuffle=}")
    if sampler is not None:
        raise ValueError(f"DataLoader with IterableDataset: expected unspecified sampler option, but got {sampler=}")
    if batch_sampler is not None:
        raise ValueError(
            f"DataLoader with IterableDataset: expected unspecified batch_sampler option, but got {batch_sampler=}"
        )
