"""Worker processes of a loader: the batches, the errors and the random numbers of torch's, and no process is left."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data

from tests.support.serving import ServerProcess
from tests.utils.items import Squares
from tests.utils.test_data import rows, seen


class Processes(Squares):
    """Which process takes an item."""

    def __getitem__(self, index: int) -> Any:
        return os.getpid()


class Numbers(Squares):
    """Random numbers of the worker."""

    def __getitem__(self, index: int) -> Any:
        return random.random(), np.random.random(), np.random.randint(1 << 30)


class Awkward(Exception):
    """An error that cannot be made of a text."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one, two)


class Failing(Squares):
    """Fails at one index."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise self.error
        return index


class Slow(Squares):
    """Never there in time."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(60)


class Dying(Squares):
    """A worker that ends without a word."""

    def __getitem__(self, index: int) -> Any:
        os._exit(3)


def stream(m: Any) -> Any:
    """A stream that workers divide among them."""

    class Stream(m.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            info = m.utils.data.get_worker_info()
            assert info.dataset is self
            return iter(range(info.id, 7, info.num_workers))

    return Stream()


LOADERS: dict[str, dict[str, Any]] = {
    "defaults": {"num_workers": 2},
    "batches": {"batch_size": 3, "num_workers": 2},
    "drop-last": {"batch_size": 3, "num_workers": 2, "drop_last": True},
    "no-batches": {"batch_size": None, "num_workers": 2},
    "shuffled": {"batch_size": 3, "num_workers": 2, "shuffle": True},
    "far-ahead": {"batch_size": 2, "num_workers": 1, "shuffle": True, "prefetch_factor": 7},
    "persistent": {"batch_size": 3, "num_workers": 2, "shuffle": True, "persistent_workers": True},
    "spawned": {"batch_size": 5, "num_workers": 1, "multiprocessing_context": "spawn"},
}


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS.keys())
@pytest.mark.parametrize("start", [0, 1], ids=["at-once", "a-number-in-between"])
def test_workers_give_the_batches_of_torch(tc: Any, options: dict[str, Any], start: int) -> None:
    outcomes = []
    for m in (tc, torch):
        m.manual_seed(3)
        loader = m.utils.data.DataLoader(Squares(), **options)
        found: list[Any] = []
        for _ in range(2):
            batches = iter(loader)
            found += [m.rand(start).tolist(), [seen(batch) for batch in batches]]
        outcomes.append((found, m.rand(2).tolist(), len(loader)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_is_drawn_when_torch_draws_it(tc: Any, workers: int) -> None:
    outcomes = []
    for m in (tc, torch):
        m.manual_seed(3)
        batches = iter(m.utils.data.DataLoader(rows(m), shuffle=True, num_workers=workers, batch_size=3))
        outcomes.append((m.rand(1).tolist(), seen(next(batches)), m.rand(1).tolist(), seen(list(batches))))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_size": None}, {"batch_size": 2, "drop_last": True}])
@pytest.mark.parametrize("persistent", [False, True])
def test_streams_end_worker_by_worker_as_in_torch(tc: Any, options: dict[str, Any], persistent: bool) -> None:
    outcomes = []
    for m in (tc, torch):
        loader = m.utils.data.DataLoader(stream(m), num_workers=2, persistent_workers=persistent, **options)
        outcomes.append([[seen(batch) for batch in loader] for _ in range(2)])
    assert outcomes[0] == outcomes[1]


def test_workers_draw_the_random_numbers_of_torch(tc: Any) -> None:
    outcomes = []
    for m in (tc, torch):
        m.manual_seed(8)
        outcomes.append(seen(list(m.utils.data.DataLoader(Numbers(), batch_size=2, num_workers=2))))
    assert outcomes[0] == outcomes[1]


ERRORS: dict[str, Exception] = {
    "key": KeyError("name"),
    "value": ValueError("three"),
    "awkward": Awkward(1, 2),
    "stop": StopIteration(),
}


@pytest.mark.parametrize("error", list(ERRORS.values())[:3], ids=list(ERRORS)[:3])
def test_an_error_of_a_worker_is_raised_as_torch_raises_it(tc: Any, error: Exception) -> None:
    raised = []
    for m in (tc, torch):
        batches = iter(m.utils.data.DataLoader(Failing(error), batch_size=2, num_workers=2))
        assert next(batches).tolist() == [0, 1]
        with pytest.raises((KeyError, ValueError, RuntimeError)) as caught:
            next(batches)
        lines = str(caught.value).splitlines()
        raised.append((caught.type, lines[0], lines[1], lines[-1]))
        assert next(batches).tolist() == [4, 5]
    assert raised[0] == raised[1]


def _fail(number: int) -> None:
    raise LookupError(f"worker {number}")


def test_an_error_of_worker_init_fn_is_raised(tc: Any) -> None:
    for m in (tc, torch):
        with pytest.raises(LookupError, match=r"Caught LookupError in DataLoader worker process 0[\s\S]*worker 0"):
            list(m.utils.data.DataLoader(Squares(), num_workers=2, worker_init_fn=_fail))


def test_a_worker_that_is_late_or_dies_is_an_error(tc: Any) -> None:
    for m in (tc, torch):
        with pytest.raises(RuntimeError, match="timed out after 1 seconds"):
            next(iter(m.utils.data.DataLoader(Slow(), num_workers=1, timeout=1)))
    with pytest.raises(RuntimeError, match=r"worker \(pid\(s\) \d+, \d+\) exited unexpectedly"):
        next(iter(tc.utils.data.DataLoader(Dying(), num_workers=2)))


@pytest.fixture
def processes() -> Callable[[], list[str]]:
    """Children of this process that have begun within the test, all of them of loaders."""
    # Iterators that failed in tests before this one live on in cycles with their errors, torch's and ours.
    gc.collect()
    before = set(multiprocessing.active_children())

    def begun() -> list[str]:
        return [each.name for each in multiprocessing.active_children() if each not in before]

    return begun


def test_workers_are_other_processes_and_none_is_left(tc: Any, processes: Callable[[], list[str]]) -> None:
    loader = tc.utils.data.DataLoader(Processes(), num_workers=2)
    found = {int(batch.item()) for batch in loader}
    assert len(found) == 2
    assert os.getpid() not in found
    assert not processes()
    broken_off = iter(loader)
    next(broken_off)
    assert len(processes()) == 2
    del broken_off
    assert not processes()
    kept = tc.utils.data.DataLoader(Processes(), num_workers=2, persistent_workers=True)
    assert len({int(batch.item()) for _ in range(2) for batch in kept}) == 2
    next(iter(kept))
    assert len(list(kept)) == 10
    del kept
    assert not processes()


class OfTensors(Squares):
    """Makes tensors in a worker."""

    def __init__(self, m: Any) -> None:
        self.m = m.__name__

    def __getitem__(self, index: int) -> Any:
        module = torch if self.m == "torch" else __import__(self.m)
        return module.tensor([index, 2.5]), module.tensor(index).to(module.bfloat16)


def test_tensors_of_a_worker_without_a_session_are_refused_with_the_remedy(tc: Any) -> None:
    with pytest.raises(
        tc.NotConnectedError, match=r"give numpy arrays, numbers or texts.* or connect in worker_init_fn"
    ):
        next(iter(tc.utils.data.DataLoader(OfTensors(tc), num_workers=1)))


def test_tensors_of_a_worker_that_connects_arrive_by_value(tc: Any, server: ServerProcess) -> None:
    def connect(number: int) -> None:
        tc.connect(server.address)

    options = {"batch_size": 4, "num_workers": 2}
    ours = tc.utils.data.DataLoader(OfTensors(tc), worker_init_fn=connect, **options)
    theirs = torch.utils.data.DataLoader(OfTensors(torch), **options)  # type: ignore[var-annotated, arg-type]
    assert seen(list(ours)) == seen(list(theirs))


def test_rows_of_tensors_are_taken_here(tc: Any, processes: Callable[[], list[str]]) -> None:
    loader = tc.utils.data.DataLoader(rows(tc), batch_size=5, num_workers=2)
    batches = iter(loader)
    assert not processes()
    assert len(list(batches)) == 2


def test_what_a_worker_collates_is_no_tensor_yet(tc: Any) -> None:
    def collate(items: list[Any]) -> Any:
        return tc.utils.data.default_collate(items).float()

    with pytest.raises(AttributeError, match="no 'float' in a worker process"):
        list(tc.utils.data.DataLoader([1, 2], num_workers=1, collate_fn=collate))


@pytest.mark.parametrize("context", ["no-method", 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_context_is_refused_in_the_words_of_torch(tc: Any, context: Any, workers: int) -> None:
    errors = []
    for m in (tc, torch):
        with pytest.raises((TypeError, ValueError)) as caught:
            m.utils.data.DataLoader(Squares(), num_workers=workers, multiprocessing_context=context)
        errors.append((caught.type, re.sub(r"\s+", " ", str(caught.value))))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "replicas"), [(10, 3), (9, 3), (2, 5), (7, 1)])
def test_a_distributed_sampler_gives_the_order_of_torch(
    tc: Any, size: int, replicas: int, shuffle: bool, drop_last: bool
) -> None:
    orders = []
    for m in (tc, torch):
        found = []
        for rank in range(replicas):
            sampler = m.utils.data.distributed.DistributedSampler(
                range(size), replicas, rank, shuffle=shuffle, seed=4, drop_last=drop_last
            )
            for epoch in range(2):
                sampler.set_epoch(epoch)
                found.append((len(sampler), list(sampler)))
        with pytest.raises(ValueError, match="Invalid rank") as caught:
            m.utils.data.DistributedSampler(range(3), 2, 2)
        orders.append((found, str(caught.value)))
    assert orders[0] == orders[1]


NAMES = [
    *("dataloader.DataLoader", "dataloader.default_collate", "dataloader.get_worker_info"),
    *("sampler.Sampler", "sampler.RandomSampler", "sampler.BatchSampler"),
    *("dataset.Dataset", "dataset.random_split", "dataset.Subset", "distributed.DistributedSampler"),
    *("_utils.collate.default_collate", "_utils.collate.default_convert", "_utils.worker.get_worker_info"),
    *("_utils.worker.WorkerInfo", "DistributedSampler", "default_collate", "get_worker_info"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_stand_in_torch_s_modules(tc: Any, name: str) -> None:
    for m in (tc, torch):
        found: Any = m.utils.data
        for part in name.split("."):
            found = getattr(found, part)
        assert found is getattr(m.utils.data, name.rpartition(".")[2], found)


def test_samples_are_drawn_as_they_are_taken(tc: Any) -> None:
    for own in (False, True):
        taken = []
        for m in (tc, torch):
            m.manual_seed(2)
            options = {"generator": m.Generator().manual_seed(1)} if own else {}
            many = m.utils.data.RandomSampler(range(9), replacement=True, num_samples=10**10, **options)
            indices = iter(many)
            taken.append([next(indices) for _ in range(300)] + [m.rand(1).item()])
            if own:
                taken[-1].append(m.rand(1, generator=options["generator"]).item())
        assert taken[0] == taken[1]
