"""Streams and events of torch.cuda. The streams are the server's: on a GPU work runs in the order it was issued in.

Knows sessions and clocks.
"""

from __future__ import annotations

import time
from typing import Any

from tclient._codec.device import device as _device
from tclient._exceptions import TensorRuntimeError
from tclient._session.current import current
from tclient._settings import has_gpu
from tclient.cuda import _gpus


class Stream:
    """The one order in which work on a GPU runs; another stream of that GPU is the same.

    Raises: RuntimeError where there is no GPU.
    """

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any) -> None:
        current()
        if not has_gpu():
            raise TensorRuntimeError("torch.cuda.Stream requires CUDA support")
        self.device = _device("cuda", _gpus.index_of(device))
        self.priority = priority

    def synchronize(self) -> None:
        """Wait until what was issued has run."""
        _gpus.wait_for(_gpus.index_of(self.device))

    def query(self) -> bool:
        """True, after waiting until what was issued has run."""
        self.synchronize()
        return True

    def wait_stream(self, stream: Stream) -> None:
        """Nothing: work runs in the order in which it was issued."""

    def wait_event(self, event: Event) -> None:
        """Nothing: work runs in the order in which it was issued."""

    def record_event(self, event: Event | None = None) -> Event:
        """Note when what was issued before has run."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.device == other.device

    def __hash__(self) -> int:
        return hash(self.device)

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device}>"


class Event:
    """A point in time, when all work that was issued before had run. Recording it waits for that.

    Raises: RuntimeError where there is no GPU.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        current()
        if not has_gpu():
            raise TensorRuntimeError("Tried to instantiate dummy base class Event")
        self._is_timed = enable_timing
        self._at_s: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Wait until what was issued to a GPU has run, and note the time."""
        _gpus.wait_for(_gpus.current_index() if stream is None else _gpus.index_of(stream.device))
        self._at_s = time.perf_counter()

    def elapsed_time(self, end_event: Event) -> float:
        """The milliseconds until another event, which include the way to the server and back."""
        if not (self._is_timed and end_event._is_timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._at_s is None or end_event._at_s is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return (end_event._at_s - self._at_s) * 1000

    def query(self) -> bool:
        """True: recording waited."""
        return True

    def wait(self, stream: Stream | None = None) -> None:
        """Nothing: recording waited."""

    def synchronize(self) -> None:
        """Nothing: recording waited."""


class StreamContext:
    """Within it "cuda" means the GPU of a stream; work on it is issued in the same order as without."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self._before: list[int | None] = []

    def __enter__(self) -> None:
        if self.stream is not None:
            self._before.append(_gpus.choose(_gpus.index_of(self.stream.device)))

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            _gpus.restore(self._before.pop())


def stream(stream: Stream | None) -> StreamContext:
    """A context within which work is issued to a stream."""
    return StreamContext(stream)
