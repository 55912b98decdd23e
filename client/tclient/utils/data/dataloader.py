"""DataLoader: a data set in batches.

Decides here which items come next, and issues the calls that take them; nothing waits for a batch of tensors. Worker
processes take items where that is Python's work. Knows data sets, samplers, collation and workers; does not know what
is computed with a batch.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from tclient.utils.data._utils.collate import default_collate, default_convert
from tclient.utils.data._utils.pool import Pool, is_end, opened
from tclient.utils.data._utils.worker import Work, get_worker_info
from tclient.utils.data.dataset import Dataset, IterableDataset, batch_of, items_of
from tclient.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

T_co = TypeVar("T_co", covariant=True)


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

        num_workers: processes that take the items and collate them, `prefetch_factor` batches (2) ahead each. They are
            started in each pass, or once with persistent_workers, by the method of multiprocessing_context, and are
            prepared by worker_init_fn(number). A batch that takes longer than timeout seconds is an error.

    A shuffled pass waits for its order; taking batches does not wait. Batches of a TensorDataset take one call for each
    of its tensors, always from this process: they are on the server already.

    Workers are for data sets of Python and numpy. They have no session: of the arrays and numbers that they give,
    tensors are made here. A worker that connects, in worker_init_fn, may use tensors, which arrive by value; without
    that an error says so. pin_memory has no effect.

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
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.pin_memory_device = pin_memory_device
        self._workers: _Workers | None = None
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
        self.pin_memory = pin_memory
        self.timeout = timeout
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

    @property
    def multiprocessing_context(self) -> BaseContext | None:
        """How worker processes are started; None for Python's own choice."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        self._context = _context(context, self.num_workers)

    def __iter__(self) -> Iterator[Any]:
        if not self.num_workers or self._is_at_hand():
            return _Here(self)
        if self._workers is not None:
            self._workers.begin(self)
            return self._workers
        workers = _Workers(self)
        if self.persistent_workers:
            self._workers = workers
        return workers

    def _is_at_hand(self) -> bool:
        """Whether the items are rows of tensors, which are taken by a call without a look at them."""
        return self.collate_fn is default_collate and batch_of(self.dataset, []) is not None

    def _order(self) -> Iterator[Any]:
        return iter(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def _fetch_maker(self) -> Callable[[], Callable[[Any], Any]]:
        make = _stream_fetch if self._is_stream else _item_fetch
        return functools.partial(make, self.dataset, self.batch_sampler is not None, self.collate_fn, self.drop_last)

    def __len__(self) -> int:
        """The number of batches. Raises TypeError if the data set, or the sampler, does not know its own."""
        if self._is_stream:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        order: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
        return len(order)


class _Here:
    """A pass whose items are taken by this process."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        # torch draws the number for its workers at this point, and what draws the order by itself before it; else all
        # that follows would be another order.
        self._order = loader._order()
        draw_seed(loader.generator)
        self._fetch = loader._fetch_maker()()
        # With workers the order is drawn ahead.
        ahead = loader.num_workers * (loader.prefetch_factor or 0)
        self._drawn = deque(itertools.islice(self._order, ahead))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._drawn:
            return self._fetch(next(self._order))
        indices = self._drawn.popleft()
        self._drawn.extend(itertools.islice(self._order, 1))
        return self._fetch(indices)


class _Workers:
    """A pass, or with persistent workers all passes, whose items are taken by worker processes."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._order = loader._order()
        base_seed = int(draw_seed(loader.generator).item())
        work = Work(loader._fetch_maker(), loader.dataset, loader.num_workers, base_seed, loader.worker_init_fn)
        context = loader.multiprocessing_context or multiprocessing.get_context()
        self._count = loader.num_workers
        self._ahead = loader.prefetch_factor or 0
        self._in_order = loader.in_order
        self._persistent = loader.persistent_workers
        self._pool: Pool | None = Pool(work, context, loader.timeout)
        self._wanted = 0
        self._start()

    def begin(self, loader: DataLoader[Any]) -> None:
        """Begin another pass with the same workers."""
        if self._pool is None:
            raise RuntimeError("DataLoader: its workers have ended; make another loader")
        while self._owner:  # what was left of the pass before
            _, number, _ = self._pool.get()
            self._owner.pop(number, None)
        self._order = loader._order()
        self._pool.begin()
        self._start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while self._pool is not None and (self._owner or self._arrived):
            number = self._next_arrived()
            if number is None:
                worker, number, data = self._pool.get()
                self._owner.pop(number, None)
                self._arrived[number] = worker, data
                continue
            worker, data = self._arrived.pop(number)
            self._wanted = max(self._wanted, number + 1)
            try:
                value = opened(data)
            finally:
                self._held[worker] -= 1
                self._give_task()
            if is_end(value):
                self._pool.exhausted.add(worker)
                self._give_task()
                continue
            return value
        if self._pool is not None and not self._persistent:
            self._pool.close()
            self._pool = None
        raise StopIteration

    def _start(self) -> None:
        # Which worker has a task, results that nobody has taken, and how many of both a worker has.
        self._owner: dict[int, int] = {}
        self._arrived: dict[int, tuple[int, bytes]] = {}
        self._held = [0] * self._count
        self._sent = 0
        self._wanted = 0
        self._turn = 0
        for _ in range(self._ahead * self._count):
            self._give_task()

    def _next_arrived(self) -> int | None:
        if not self._in_order:
            return next(iter(self._arrived), None)
        while self._wanted < self._sent and self._wanted not in self._owner and self._wanted not in self._arrived:
            self._wanted += 1
        return self._wanted if self._wanted in self._arrived else None

    def _give_task(self) -> None:
        """Draw the next indices, for the next worker in turn that may have them."""
        pool = self._pool
        if pool is None:
            return
        for _ in range(self._count):
            worker = self._turn
            self._turn = (worker + 1) % self._count
            if worker not in pool.exhausted and self._held[worker] < self._ahead:
                break
        else:
            return
        indices = next(self._order, _NOTHING)
        if indices is _NOTHING:
            return
        pool.put(worker, self._sent, indices)
        self._owner[self._sent] = worker
        self._held[worker] += 1
        self._sent += 1


_NOTHING = object()


def _item_fetch(dataset: Any, batches: bool, collate: Callable[[Any], Any], drop_last: bool) -> Callable[[Any], Any]:
    together = batches and collate is default_collate

    def fetch(indices: Any) -> Any:
        if not batches:
            return collate(dataset[indices])
        batch = batch_of(dataset, indices) if together else None
        return collate(items_of(dataset, indices)) if batch is None else batch

    return fetch


def _stream_fetch(dataset: Any, batches: bool, collate: Callable[[Any], Any], drop_last: bool) -> Callable[[Any], Any]:
    items = iter(dataset)
    ended = False

    def fetch(turns: Any) -> Any:
        nonlocal ended
        if ended:
            raise StopIteration
        if not batches:
            return collate(next(items))
        batch = list(itertools.islice(items, len(turns)))
        ended = len(batch) < len(turns)
        if not batch or (drop_last and ended):
            raise StopIteration
        return collate(batch)

    return fetch


def _context(context: Any, num_workers: int) -> BaseContext | None:
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}"
        )
    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError(
                f"multiprocessing_context option should specify a valid start method in {methods!r}, but got "
                f"multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string specifying the start "
            f"method, but got multiprocessing_context={context}"
        )
    return context


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
