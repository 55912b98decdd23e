"""What one thread waits for: descriptors, ends of children, signals and moments. Never waits for anything else."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

# How often all is looked at.
TICK_S = 1.0
_MAX_MESSAGE_BYTES = 1 << 16
# The kernel has no room for messages or for descriptors on their way, which is not seen to end; and when to try again.
_FULL = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
_AGAIN_S = 0.1
# Ends of children that nobody has claimed yet; what an engine leaves behind is among them, and never claimed.
_MAX_UNCLAIMED = 1024

_Function = Callable[[], None]

log = logging.getLogger("tserver.supervisor")


class Watch:
    """Calls functions when it is time. The one of its process: it takes the signals."""

    def __init__(self) -> None:
        self._ready = selectors.DefaultSelector()
        self._ends: dict[int, Callable[[int], None]] = {}
        self._unclaimed: dict[int, int] = {}
        # When, the order of those of one moment, and what.
        self._moments: list[tuple[float, int, _Function]] = []
        self._numbers = itertools.count()
        self._ticks: dict[_Function, None] = {}
        self._next_tick = time.monotonic() + TICK_S
        self._signals: list[int] = []
        woken, wakes = os.pipe()
        for fd in (woken, wakes):
            os.set_blocking(fd, False)
        # A signal that comes before the wait begins ends that, too.
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self.read(woken, lambda: _empty(woken))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def read(self, fd: int, function: _Function) -> None:
        """Call a function whenever there is something to read, or to find that there is no more."""
        self._ready.register(fd, selectors.EVENT_READ, {selectors.EVENT_READ: function})

    def write(self, fd: int, function: _Function | None) -> None:
        """Call a function whenever there is room to write, besides reading; None is no more."""
        functions = dict(self._ready.get_key(fd).data)
        if function is None:
            functions.pop(selectors.EVENT_WRITE, None)
        else:
            functions[selectors.EVENT_WRITE] = function
        self._ready.modify(fd, sum(functions), functions)

    def forget(self, fd: int) -> None:
        """Look at a descriptor no more, before it is closed."""
        with contextlib.suppress(KeyError):
            self._ready.unregister(fd)

    def at_end(self, pid: int, function: Callable[[int], None]) -> None:
        """Call a function with the exit code of a child, negative for a signal."""
        if pid in self._unclaimed:
            code = self._unclaimed.pop(pid)
            self.after(0.0, lambda: function(code))
        else:
            self._ends[pid] = function

    def after(self, delay_s: float, function: _Function) -> None:
        """Call a function once, later."""
        heapq.heappush(self._moments, (time.monotonic() + delay_s, next(self._numbers), function))

    def each_tick(self, function: _Function) -> None:
        """Call a function every second. If this process is stopped for a while, that is one second to it."""
        self._ticks[function] = None

    def no_tick(self, function: _Function) -> None:
        """Call it no more."""
        self._ticks.pop(function, None)

    def turn(self) -> list[int]:
        """Wait for the next thing, and do all that is due; the signals that have come."""
        now = time.monotonic()
        due = min(self._next_tick, self._moments[0][0]) if self._moments else self._next_tick
        for key, events in self._ready.select(max(0.0, due - now)):
            for event, function in key.data.items():
                # An earlier one may have closed the descriptor, and another may have its number.
                current = self._ready.get_map().get(key.fd)
                if events & event and current is not None and current.data is key.data:
                    function()
        self._collect()
        while self._moments and self._moments[0][0] <= time.monotonic():
            heapq.heappop(self._moments)[2]()
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_S
            for function in list(self._ticks):
                function()
        told, self._signals = self._signals, []
        return told

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pid = ended.si_pid
                # What it has started itself ends with it. Its number is nobody else's until it is collected.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                function = self._ends.pop(pid, None)
                if function is not None:
                    function(code)
                    continue
                self._unclaimed[pid] = code
                if len(self._unclaimed) > _MAX_UNCLAIMED:
                    del self._unclaimed[next(iter(self._unclaimed))]


class Packets:
    """Messages over a socket that keeps them apart. What does not fit now is sent later."""

    def __init__(
        self,
        watch: Watch,
        ours: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_end: _Function = lambda: None,
    ) -> None:
        """`on_end` is called when the other side is gone, and nothing more is to come."""
        self._watch, self._socket = watch, ours
        self._on_message, self._on_end = on_message, on_end
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        ours.setblocking(False)
        watch.read(ours.fileno(), self.receive)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message and descriptors, which are closed here. Nobody is told whether it arrives."""
        self._waiting.append((json.dumps(message).encode(), tuple(fds)))
        self._flush()

    def receive(self) -> None:
        """Take all that has come."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.close()
                self._on_end()
                return
            self._on_message(json.loads(data))

    def close(self) -> None:
        """Send and take no more."""
        if self._socket.fileno() >= 0:
            self._watch.forget(self._socket.fileno())
            self._socket.close()
        self._drop()

    def _flush(self) -> None:
        if self._socket.fileno() < 0:
            return self._drop()
        while self._waiting:
            data, fds = self._waiting[0]
            try:
                socket.send_fds(self._socket, [data], fds)
            except BlockingIOError:
                return self._watch.write(self._socket.fileno(), self._flush)
            except ConnectionError:
                # Reading tells of it, after what was sent before.
                return self._drop()
            except OSError as error:
                if error.errno in _FULL:
                    return self._watch.after(_AGAIN_S, self._flush)
                log.error("a message of %d bytes cannot be sent", len(data), extra={"cause": str(error)})
            self._waiting.popleft()
            _close(fds)
        self._watch.write(self._socket.fileno(), None)
        return None

    def _drop(self) -> None:
        while self._waiting:
            _close(self._waiting.popleft()[1])


def _empty(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 1 << 12):
            pass


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
