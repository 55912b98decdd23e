"""What each principal uses of what it may. From any thread, where not said otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from tserver.errors import Exhausted
from tserver.limits.file import Limits, LimitsFile

_MINUTE_S = 60.0
# What may come at once after a rest, in seconds of the rate.
_BURST_S = 1.0


def refusal(what: str, limit: float, used: float, asked: float = 1, retry_after_s: float = 1.0) -> Exhausted:
    """What is told of a limit that is reached."""
    return Exhausted(
        f"{what}: you use {used:g}, and may use {limit:g}; use less, or retry later",
        reason="LIMIT",
        name=what,
        limit=f"{limit:g}",
        used=f"{used:g}",
        asked=f"{asked:g}",
        retry_after_s=f"{retry_after_s:g}",
    )


class Bucket:
    """A rate. What was taken beyond it is a debt, and who has one waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # What was taken, as the moment at which it would have been paid for.
        self._paid_at = 0.0

    def take(self, amount: float, rate: float) -> None:
        """Take so much; it may be more than there is."""
        if rate:
            self._paid_at = max(self._paid_at, self._clock() - _BURST_S) + amount / rate

    def used(self, rate: float) -> float:
        """Of what may come in a second."""
        return max(0.0, self._paid_at + _BURST_S - self._clock()) * rate

    def wait_s(self, rate: float) -> float:
        """How long to wait until the debt is paid."""
        return max(0.0, self._paid_at - self._clock()) if rate else 0.0


class Account:
    """The use of one principal."""

    def __init__(self, principal: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.principal = principal
        self._clock = clock
        self._lock = threading.Lock()
        self._calls, self._bytes = Bucket(clock), Bucket(clock)
        self.streams = 0
        # On the engine's thread: the time that was used in the minute that began then.
        self.compute_s = 0.0
        self._minute = clock()
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self.limits = limits
        # Looked at for each batch, and for each slice of the engine's time: mostly nothing is to be counted.
        self.is_paced = bool(limits.calls_per_s or limits.bytes_per_s)
        self.is_timed = bool(limits.compute_s_per_min)

    def told(self, sessions: int) -> Iterator[tuple[str, float, float]]:
        """Each limit by its name, and what is used of it; so many sessions are open."""
        limits, now = self.limits, self._clock()
        is_now = now < self._minute + _MINUTE_S
        yield "sessions", limits.sessions, sessions
        yield "streams", limits.streams, self.streams
        yield "calls_per_s", limits.calls_per_s, self._calls.used(limits.calls_per_s)
        yield "bytes_per_s", limits.bytes_per_s, self._bytes.used(limits.bytes_per_s)
        yield "compute_s_per_min", limits.compute_s_per_min, self.compute_s if is_now else 0.0

    # --- sessions and streams ---

    def check_sessions(self, used: int) -> None:
        """May there be one session more? Raises: Exhausted."""
        limit = self.limits.sessions
        if limit and used >= limit:
            raise refusal("sessions", limit, used)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """One stream more, for as long as this lasts. Raises: Exhausted."""
        with self._lock:
            limit = self.limits.streams
            if limit and self.streams >= limit:
                raise refusal("streams", limit, self.streams)
            self.streams += 1
        try:
            yield
        finally:
            with self._lock:
                self.streams -= 1

    # --- rates ---

    def take(self, calls: int, size_bytes: int) -> None:
        """So much has come."""
        with self._lock:
            self._calls.take(calls, self.limits.calls_per_s)
            self._bytes.take(size_bytes, self.limits.bytes_per_s)

    def wait_s(self) -> float:
        """How long nothing more is to be taken."""
        limits = self.limits
        return max(self._calls.wait_s(limits.calls_per_s), self._bytes.wait_s(limits.bytes_per_s))

    def check_rates(self) -> None:
        """For who is not made to wait. Raises: Exhausted."""
        wait_s = self.wait_s()
        if wait_s > 0:
            limits = self.limits
            late = self._calls.wait_s(limits.calls_per_s) >= self._bytes.wait_s(limits.bytes_per_s)
            what, rate = ("calls_per_s", limits.calls_per_s) if late else ("bytes_per_s", limits.bytes_per_s)
            raise refusal(what, rate, rate * (1 + wait_s), retry_after_s=wait_s)

    # --- compute; on the engine's thread ---

    def compute(self, seconds: float) -> None:
        """So much of the engine's time was used."""
        self._roll()
        self.compute_s += seconds

    def resumes_at(self) -> float:
        """When there is time again, as the clock has it; 0 where there is now."""
        self._roll()
        return self._minute + _MINUTE_S if self.compute_s >= self.limits.compute_s_per_min > 0 else 0.0

    def check_compute(self) -> None:
        """For who is not made to wait; from any thread. Raises: Exhausted."""
        limit, wait_s = self.limits.compute_s_per_min, self._minute + _MINUTE_S - self._clock()
        if wait_s > 0 and self.compute_s >= limit > 0:
            raise refusal("compute_s_per_min", limit, self.compute_s, retry_after_s=wait_s)

    def _roll(self) -> None:
        now = self._clock()
        if now >= self._minute + _MINUTE_S:
            self._minute, self.compute_s = now, 0.0


class Accounts:
    """Those of all principals of a process."""

    def __init__(self, file: LimitsFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._by_principal: dict[str, Account] = {}

    def of(self, principal: str) -> Account:
        """That of a principal."""
        with self._lock:
            found = self._by_principal.get(principal)
            if found is None:
                found = self._by_principal[principal] = Account(principal, self._file.table.of(principal))
            return found

    def look(self) -> None:
        """Have the limits hold that the file has now."""
        if self._file.look():
            with self._lock:
                for account in self._by_principal.values():
                    account.change(self._file.table.of(account.principal))
