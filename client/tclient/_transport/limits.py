"""How long a thread waits for the server at most: `connect(read_timeout_s=…)`. Knows no sockets and no tensors.

A wait for a batch's answer has the limit as it is. A transfer has it for as long as no byte moves, and an RPC of its
own from its beginning: a thread looks, and ends the connection or RPC.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from tclient._exceptions import ReadTimeout, attribute
from tclient._transport.stats import waiting


class Limited(Protocol):
    """A connection with such a limit."""

    @property
    def address(self) -> str:
        """Of the server."""

    @property
    def read_timeout_s(self) -> float | None:
        """How long a thread waits for it at most; None is for as long as it takes."""


def late(connection: Limited, what: str, site: tuple[str, int] | None = None) -> ReadTimeout:
    """The error of a wait for something that became too long."""
    error = ReadTimeout(
        f"{what}: the server at {connection.address} did not answer within {connection.read_timeout_s:g} s "
        "(read_timeout_s); the session goes on, and the operation may still be applied: wait again, or allow more time"
    )
    attribute(error, operation=what, site=site)
    return error


class _Transfer:
    """The transfer of a thread, or its question, and what ends it."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.passed = False
        self._moved = 0
        self._ends: list[Callable[[], object]] = []
        self._over = threading.Event()

    def add(self, end: Callable[[], object]) -> None:
        self._ends.append(end)
        if self.passed:
            end()

    def watch(self) -> None:
        seen, since = self._moved, time.monotonic()
        while not self._over.wait(min(0.1, self.limit_s / 4)):
            if self._moved != seen:
                seen, since = self._moved, time.monotonic()
            elif time.monotonic() - since > self.limit_s:
                self.passed = True
                for end in list(self._ends):
                    end()
                return

    def move(self) -> None:
        self._moved += 1

    def stop(self) -> None:
        self._over.set()


class _Current(threading.local):
    transfer: _Transfer | None = None


_CURRENT = _Current()


@contextlib.contextmanager
def transferring(connection: Limited, what: str) -> Iterator[None]:
    """Within it this thread moves bytes, or asks for something. Raises: ReadTimeout if nothing moves for too long."""
    with waiting(what), _limited(connection, what):
        yield


@contextlib.contextmanager
def _limited(connection: Limited, what: str) -> Iterator[None]:
    limit_s = connection.read_timeout_s
    if limit_s is None or _CURRENT.transfer is not None:
        yield
        return
    transfer = _CURRENT.transfer = _Transfer(limit_s)
    threading.Thread(target=transfer.watch, name="tclient-limit", daemon=True).start()
    try:
        yield
    except Exception:
        if transfer.passed:
            raise late(connection, what) from None
        raise
    finally:
        transfer.stop()
        _CURRENT.transfer = None


def moved() -> Callable[[], None]:
    """What to call, from any thread, whenever bytes of this thread's transfer have moved."""
    transfer = _CURRENT.transfer
    return _nothing if transfer is None else transfer.move


def _nothing() -> None:
    """Nobody looks."""


def can_be_late() -> bool:
    """Whether this thread is within `transferring`, and has a limit."""
    return _CURRENT.transfer is not None


def may_end(end: Callable[[], object]) -> None:
    """Have the transfer of this thread ended like this when it is too late."""
    transfer = _CURRENT.transfer
    if transfer is not None:
        transfer.add(end)


def check() -> None:
    """Raises: TimeoutError if the transfer of this thread is too late, and need not go on in another way."""
    transfer = _CURRENT.transfer
    if transfer is not None and transfer.passed:
        raise TimeoutError
