"""What each principal uses of what it may. From any thread, where not said otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from tserver.errors import Exhausted
from tserver.limits.file import Limits, LimitsFile

_MINUTE_S = 60.0
# What may come at once after a rest, in seconds of the rate.
_BURST_S = 1.0


_NOTHING = (0, 0)
# Those of the limits whose use is not known here.
OF_OTHERS = ("sessions", "models", "device_bytes", "tensors", "disk_bytes")
# What is done about a limit that does not pass with time.
_REMEDIES = {
    "device_bytes": "free tensors, or close sessions",
    "tensors": "free tensors, or close sessions",
    "disk_bytes": "forget names, or delete models, first",
    "models": "delete models first",
}


def refusal(what: str, limit: float, used: float, asked: float = 1, retry_after_s: float = 1.0) -> Exhausted:
    """What is told of a limit that is reached. Who may have to wait is told for how long, and nobody else."""
    remedy = _REMEDIES.get(what)
    passing = {} if remedy else {"retry_after_s": f"{retry_after_s:g}"}
    wanted = f", {_number(asked)} more asked for" if remedy else ""
    return Exhausted(
        f"{what}: you use {_number(used)}{wanted}, and may use {_number(limit)}; "
        f"{remedy or 'use less, or retry later'}",
        reason="LIMIT",
        name=what,
        limit=_number(limit),
        used=_number(used),
        asked=_number(asked),
        **passing,
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


class Holder(Protocol):
    """A session, as far as its memory goes."""

    def held(self) -> tuple[int, int]:
        """The bytes that it holds now, and the tensors."""


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
        # Since it was opened: how often it was refused something, by the limit; what its sessions have sent and
        # fetched; and on the engine's thread the calls that were run, and the time.
        self.refused = Counter[str]()
        self.total_bytes = self.total_calls = 0
        self.total_s = 0.0
        # On the engine's thread: of each session whose memory is counted, what it was last seen to hold, and the sums.
        # They are never too low: what is let go of is noticed when it is looked for.
        self._held: dict[Holder, tuple[int, int]] = {}
        self._held_bytes = self._held_tensors = 0
        # What it holds in other engines of the house, as its front has told last.
        self.elsewhere = _NOTHING
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
        self.counts_memory = bool(limits.device_bytes or limits.tensors)

    def told(self, used: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
        """Each limit by its name, and what is used of it, with what others know of."""
        limits, now = self.limits, self._clock()
        is_now = now < self._minute + _MINUTE_S
        for name in OF_OTHERS:
            yield name, getattr(limits, name), used.get(name, 0)
        own = {
            "streams": self.streams,
            "calls_per_s": self._calls.used(limits.calls_per_s),
            "bytes_per_s": self._bytes.used(limits.bytes_per_s),
            "compute_s_per_min": self.compute_s if is_now else 0.0,
        }
        for name, use in own.items():
            yield name, getattr(limits, name), use + used.get(name, 0)

    # --- streams ---

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """One stream more, for as long as this lasts. Raises: Exhausted."""
        with self._lock:
            limit = self.limits.streams
            if limit and self.streams >= limit:
                raise self._refused("streams", limit, self.streams)
            self.streams += 1
        try:
            yield
        finally:
            with self._lock:
                self.streams -= 1

    # --- memory; on the engine's thread ---

    def note(self, holder: Holder, held: tuple[int, int]) -> None:
        """What a session holds now."""
        size, tensors = self._held.get(holder, _NOTHING)
        self._held[holder] = held
        self._held_bytes += held[0] - size
        self._held_tensors += held[1] - tensors

    def leave(self, holder: Holder) -> None:
        """A session holds nothing any more."""
        size, tensors = self._held.pop(holder, _NOTHING)
        self._held_bytes -= size
        self._held_tensors -= tensors

    def held(self) -> tuple[int, int]:
        """The bytes and the tensors that all its sessions hold whose memory is counted."""
        for holder in list(self._held):
            self.note(holder, holder.held())
        return self._held_bytes, self._held_tensors

    def check_memory(self, grown: tuple[int, int] = _NOTHING, more_bytes: int = 0) -> None:
        """Is there room for what was noted, of which so much is new, and for more bytes? Raises: Exhausted."""
        if self._beyond(more_bytes):
            self.held()
            if name := self._beyond(more_bytes):
                which = name == "tensors"
                used = (self._held_bytes, self._held_tensors)[which] + self.elsewhere[which] - grown[which]
                asked = grown[which] + (0 if which else more_bytes)
                raise self._refused(name, getattr(self.limits, name), used, asked)

    def _refused(self, *told: Any, **more: Any) -> Exhausted:
        self.refused[told[0]] += 1
        return refusal(*told, **more)

    def _beyond(self, more_bytes: int) -> str:
        """The name of the limit that all together is beyond; empty if none."""
        limits, (size, tensors) = self.limits, self.elsewhere
        if limits.device_bytes and self._held_bytes + size + more_bytes > limits.device_bytes:
            return "device_bytes"
        return "tensors" if limits.tensors and self._held_tensors + tensors > limits.tensors else ""

    # --- what others count ---

    def check(self, name: str, used: int, asked: int = 1) -> None:
        """May there be so much more of it? Raises: Exhausted."""
        limit = getattr(self.limits, name)
        if limit and asked > 0 and used + asked > limit:
            raise self._refused(name, limit, used, asked)

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
            raise self._refused(what, rate, rate * (1 + wait_s), retry_after_s=wait_s)

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

    def all(self) -> list[Account]:
        """Those of all who were here."""
        with self._lock:
            return list(self._by_principal.values())

    def look(self) -> bool:
        """Have the limits hold that the file has now; whether they are others."""
        if not self._file.look():
            return False
        with self._lock:
            for account in self._by_principal.values():
                account.change(self._file.table.of(account.principal))
        return True
