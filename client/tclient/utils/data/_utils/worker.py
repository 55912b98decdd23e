"""What a worker process of a loader does: it takes items, makes a batch of them and sends that to the parent by value.

A worker has no session unless its own code opens one. Arrays and numbers that default_collate would make tensors of
become tensors when they arrive; tensors of a session that a worker opened itself are read there, and are made anew in
the session of who iterates. Knows data sets and collation; does not know how workers are started and ended.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from tclient._exceptions import NotConnectedError
from tclient._tensor import Tensor
from tclient.utils.data._utils.collate import arrive, postpone_tensors

# How often a worker looks whether its parent is still there.
_LOOK_S = 1.0
_WITHOUT_SESSION = (
    "A worker process has no session: give numpy arrays, numbers or texts, of which the loader makes tensors where it "
    "is iterated, or connect in worker_init_fn."
)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker process knows of itself: get_worker_info() in data set code."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    rng: Any = None
    worker_method: str | None = "multiprocessing"


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told: take the items of these indices; or begin another pass."""

    number: int
    indices: Any = None
    is_new_pass: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a worker, on its way to the parent."""

    kind: type[BaseException] | None
    text: str

    def reraise(self) -> None:
        """Raise an error of the same class, with the worker's traceback as its text."""
        if self.kind is None:
            raise RuntimeError(self.text)
        if issubclass(self.kind, KeyError):
            raise self.kind(_Lines(self.text))
        try:
            error = self.kind(self.text)
        except Exception:  # its constructor takes other arguments
            raise RuntimeError(self.text) from None
        raise error


class _Lines(str):
    """A text that KeyError shows as it is."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The stream of a worker is at its end."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is the same for all workers of a loader."""

    make_fetch: Callable[[], Callable[[Any], Any]]
    dataset: Any
    num_workers: int
    base_seed: int
    init: Callable[[int], None] | None


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """What this worker process knows of itself; None in any other process."""
    return _info


def run(work: Work, number: int, tasks: Any, results: Any) -> None:
    """The life of a worker: tasks in, results out, until None comes or the parent is gone."""
    global _info
    parent = os.getppid()
    postpone_tensors()
    seed = work.base_seed + number
    random.seed(seed)
    np.random.seed(np.random.SeedSequence(_words(work.base_seed, number)).generate_state(4))
    _info = WorkerInfo(number, work.num_workers, seed, work.dataset)
    # The child's copies of what is on its way to the parent must not hold up its end.
    fetch: Callable[[Any], Any] | None = None
    failed: Failure | None = None
    try:
        try:
            if work.init is not None:
                work.init(number)
            fetch = work.make_fetch()
        except Exception as error:
            failed = _failure(error, number)
        while (task := _next(tasks, parent)) is not None:
            if task.is_new_pass:
                try:
                    fetch = work.make_fetch()
                except Exception as error:
                    failed = _failure(error, number)
                continue
            if failed is not None or fetch is None:
                results.put((number, task.number, _pickled(failed)))
                failed = None
                continue
            results.put((number, task.number, _outcome(fetch, task, number)))
    except KeyboardInterrupt:
        pass  # the parent gets it, too, and says so
    if os.getppid() != parent:
        results.cancel_join_thread()


def _words(base_seed: int, number: int) -> list[int]:
    return [number, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]


def _next(tasks: Any, parent: int) -> Task | None:
    while os.getppid() == parent:
        try:
            task: Task | None = tasks.get(timeout=_LOOK_S)
        except queue.Empty:
            continue
        return task
    return None


def _outcome(fetch: Callable[[Any], Any], task: Task, number: int) -> bytes:
    try:
        return _pickled(fetch(task.indices))
    except StopIteration:
        return _pickled(Exhausted())
    except Exception as error:
        return _pickled(_failure(error, number))


def _failure(error: Exception, number: int) -> Failure:
    text = f"Caught {type(error).__name__} in DataLoader worker process {number}.\nOriginal {traceback.format_exc()}"
    if isinstance(error, NotConnectedError):
        text += _WITHOUT_SESSION
    kind: type[BaseException] | None = type(error)
    try:
        pickle.dumps(kind)
    except Exception:  # a class of the worker's own
        kind = None
    return Failure(kind, text)


class _Pickler(ForkingPickler):
    """Tensors by value; all else as between any two processes of one program."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            given = obj.detach()
            element = str(given.dtype).removeprefix("torch.")
            array = (given if given.dtype.numpy is not None else given.float()).numpy()
            return arrive, (array, element)
        return NotImplemented


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()
