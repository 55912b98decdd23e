"""Several GPUs where there is none: what torch.cuda tells and does, and tensors that have a place but no elements.

What is given to which stream, what is current, and what was recorded where can be looked at. torch's own tensors for
tracing stand in for those on a GPU: they refuse and move as those do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tserver.engine import streams, transfers
from tserver.engine.engine import Engine

GIB = 1 << 30
NO_SUCH = "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?"


class Stream:
    """Work in order on one GPU."""

    def __init__(self, gpus: Gpus, index: int) -> None:
        self._gpus = gpus
        self.device = torch.device("cuda", index)
        gpus.streams.append(self)
        self.cuda_stream = len(gpus.streams)
        self.waited_for: list[Any] = []

    def wait_event(self, event: Event) -> None:
        """Noted."""
        self.waited_for.append(event)

    def __repr__(self) -> str:
        return f"<stream {self.cuda_stream} of {self.device}>"


class Event:
    """Passes at once; knows on which stream it was recorded."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self.stream: Any = None
        self.was_waited_for = threading.Event()

    def record(self, stream: Any = None) -> None:
        """On that stream, or the current one of the current GPU."""
        self.stream = self._gpus.current_stream() if stream is None else stream
        self._gpus.events.append(self)

    def query(self) -> bool:
        """Not before somebody waits."""
        return self.was_waited_for.is_set()

    def synchronize(self) -> None:
        """Wait for it."""
        self.was_waited_for.set()


class Gpus:
    """So many of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.current = 0
        self.streams: list[Stream] = []
        self.events: list[Event] = []
        # What each GPU's work goes to now, as this thread has it.
        self.of: list[Any] = [Stream(self, index) for index in range(count)]
        self.free = [8 * GIB] * count
        self.generators = tuple(torch.Generator() for _ in range(count))

    def index(self, device: Any = None) -> int:
        """The number of a GPU that is there."""
        if isinstance(device, int):
            found: int | None = device
        else:
            found = None if device is None else torch.device(device).index
        if found is None:
            found = self.current
        if found >= self.count:
            raise torch.AcceleratorError(NO_SUCH)
        return found

    def set_device(self, device: Any) -> None:
        """As torch.cuda."""
        if not isinstance(device, int) or device >= 0:
            self.current = self.index(device)

    def current_device(self) -> int:
        """As torch.cuda."""
        return self.current

    def current_stream(self, device: Any = None) -> Any:
        """As torch.cuda."""
        return self.of[self.index(device)]

    def set_stream(self, stream: Stream) -> None:
        """As torch.cuda: the stream's GPU becomes the current one."""
        self.current = self.index(stream.device)
        self.of[self.current] = stream

    @contextlib.contextmanager
    def device(self, device: Any) -> Iterator[None]:
        """As torch.cuda."""
        before = self.current
        self.set_device(device)
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        """As torch.cuda."""
        index = self.index(stream.device)
        before, was = self.current, self.of[index]
        self.set_stream(stream)
        try:
            yield
        finally:
            self.current, self.of[index] = before, was

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        """As torch.cuda."""
        return self.free[self.index(device)], 8 * GIB

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the place of torch.cuda's own."""
        nothing = {"reserved_bytes": {"all": {"current": 0}}, "allocated_bytes": {"all": {"current": 0}}}
        for name, value in {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "init": lambda: None,
            "device_count": lambda: self.count,
            "default_generators": self.generators,
            "Stream": lambda device: Stream(self, self.index(device)),
            "Event": lambda blocking=False, enable_timing=False: Event(self),
            "memory_stats_as_nested_dict": lambda device: nothing,
            "memory_allocated": lambda device: 1000 + self.index(device),
            "get_device_name": lambda device=None: f"GPU number {self.index(device)}",
            **{
                name: getattr(self, name)
                for name in (
                    *("set_device", "current_device", "current_stream", "set_stream", "device", "stream"),
                    "mem_get_info",
                )
            },
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        for name in ("is_initialized", "device_count", "current_device"):
            # It has taken these for its own before.
            monkeypatch.setattr(torch.cuda.random, name, getattr(torch.cuda, name))
        for name in ("to", "cuda"):
            # What they look up without a number, and by it alone, is not there without CUDA.
            monkeypatch.setattr(torch.Tensor, name, self._with_number(getattr(torch.Tensor, name), name))
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
        monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda *_: None)
        monkeypatch.setattr(streams, "_pairs", {})
        monkeypatch.setattr(streams, "_taken", {})
        monkeypatch.setattr(transfers, "pinned", lambda like: torch.empty(like.shape, dtype=like.dtype))

    def _with_number(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            args = args or (("cuda",) if name == "cuda" else ())
            if args and (isinstance(args[0], int) or str(args[0]) == "cuda"):
                args = (torch.device("cuda", self.index(args[0])), *args[1:])
            return function(tensor, *args, **kwargs)

        return moved

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have engines of this process run torch on them."""
        loop = Engine._loop

        def within(engine: Engine) -> None:
            with self.tensors():
                loop(engine)

        # It makes torch ready for a process of its own.
        monkeypatch.setattr(Engine, "_prepare", lambda engine: None)
        monkeypatch.setattr(Engine, "_loop", within)

    def tensors(self) -> FakeTensorMode:
        """Within it tensors may be made on them."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        # It keeps where a call's result was, and so which GPU was current.
        mode.cache_enabled = False
        return mode
