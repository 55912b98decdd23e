"""CUDA streams: whose work runs on which, and how the work of one waits for that of another. Owns all of them.

A session has a pair of streams of its own on each GPU of the engine, and a model that serves has one on its GPU; the
device runs different streams at the same time, and what is on one in the order given. Where a tensor crosses from one
stream to another, the one it comes from records an event, the other waits for it, and the allocator is told, so that
freed memory is not handed on while it is in use. All of this happens on the device: no thread waits here. Elsewhere
than on CUDA all of it is nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

# Of the 32 streams that torch keeps for each device, half do the work and half capture graphs. cuBLAS keeps up to
# 32 MiB for each stream that it is used on, so more of them would cost memory and overlap no better. Pairs beyond
# share: that costs them overlap, and nothing else.
_STREAMS = 32


@dataclass(frozen=True, slots=True)
class StreamPair:
    """Two streams: the one that work runs on, and the one on which graphs for it are captured.

    What is captured on a stream uses the workspace that libraries keep for that stream, so two graphs from one stream
    must never run at the same time: they are only replayed on the pair that captured them.
    """

    index: int
    work: Any
    capture: Any

    def enter(self) -> None:
        """Let this thread's work run here from now on."""
        torch.cuda.set_stream(self.work)

    def within(self) -> AbstractContextManager[Any]:
        """Let this thread's work run here for a while, on this GPU."""
        return torch.cuda.stream(self.work)

    @property
    def is_on_current(self) -> bool:
        """Whether its GPU is the one that this thread means by "cuda"."""
        return bool(torch.cuda.current_device() == self.work.device.index)


class HasPairs(Protocol):
    """Whose work runs on pairs: on one of the default device, and on others beside."""

    pair: StreamPair | None
    others: list[StreamPair]


_lock = threading.Lock()
_pairs: dict[torch.device, list[StreamPair]] = {}
_taken: dict[torch.device, int] = {}


def runs_apart(tensor: torch.Tensor) -> bool:
    """Whether a tensor is on a device that works by itself, so that looking at the elements is waiting for it."""
    return tensor.is_cuda


def apart(device: Any) -> torch.device | None:
    """The device of that name, if it works by itself; None for another, and where none is named."""
    if device is None:
        return None
    found = torch.device(device)
    return found if found.type == "cuda" else None


def take_pair(device: torch.device) -> StreamPair | None:
    """The pair that the next who asks is to use; None where work is done at once. From any thread."""
    if device.type != "cuda":
        return None
    with _lock:
        pairs = _pairs.get(device)
        if pairs is None:
            pairs = _pairs[device] = _made(device)
        number = _taken.get(device, 0)
        _taken[device] = number + 1
    return pairs[number % len(pairs)]


def pair_like(pair: StreamPair, device: torch.device) -> StreamPair:
    """The pair of that number on another GPU. From any thread."""
    with _lock:
        pairs = _pairs.get(device)
        if pairs is None:
            pairs = _pairs[device] = _made(device)
    return pairs[pair.index % len(pairs)]


def _made(device: torch.device) -> list[StreamPair]:
    # torch hands its streams out in turn. Taken all at once, each is there exactly once.
    streams = list(
        {stream.cuda_stream: stream for stream in (torch.cuda.Stream(device) for _ in range(_STREAMS))}.values()
    )
    half = len(streams) // 2
    pairs = zip(streams[:half], streams[half:], strict=False)
    return [StreamPair(index, work, capture) for index, (work, capture) in enumerate(pairs)]


def mark(tensor: torch.Tensor, *, blocking: bool = False) -> Any:
    """An event that passes when the work given so far on the tensor's device is done; None where it is.

    Of a `blocking` one a thread can wait without keeping a core busy.
    """
    if not runs_apart(tensor):
        return None
    event = torch.cuda.Event(blocking=blocking)
    event.record(torch.cuda.current_stream(tensor.device))
    return event


def mark_gpu(index: int) -> Any:
    """The same of a GPU by its number. Raises: what torch raises if there is none."""
    with torch.cuda.device(index):
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(index))
    return event


@contextmanager
def in_turn(mine: HasPairs, others: Sequence[HasPairs]) -> Iterator[None]:
    """Within it the work of one runs alone: behind what the others were given so far, and before what they will be."""
    theirs = [pair for each in others for pair in _pairs_of(each)]
    for pair in _pairs_of(mine):
        for other in theirs:
            _wait(pair, other)
    try:
        yield
    finally:
        for other in theirs:
            for pair in _pairs_of(mine):
                _wait(other, pair)


def _pairs_of(state: HasPairs) -> list[StreamPair]:
    return [] if state.pair is None else [state.pair, *state.others]


def _wait(pair: StreamPair, other: StreamPair) -> None:
    if pair.work is not other.work:
        event = torch.cuda.Event()
        event.record(other.work)
        pair.work.wait_event(event)


def adopt(tensor: torch.Tensor, made: Any = None) -> torch.Tensor:
    """A tensor that was made on another stream, for use on the current one. `made` is its mark, if it may be under way.

    Its memory goes back to the stream that it came from, but not before this one is done with it.
    """
    if runs_apart(tensor):
        stream = torch.cuda.current_stream(tensor.device)
        if made is not None:
            stream.wait_event(made)
        tensor.record_stream(stream)
    return tensor
