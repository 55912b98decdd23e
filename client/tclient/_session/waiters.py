"""The threads and tasks that wait for answers. Knows calls and deferred errors; does not know how answers come."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from tclient._exceptions import fresh
from tclient._session.calls import Call
from tclient._session.deferred import DeferredErrors
from tclient._transport.channel import Channel
from tclient._transport.lane import Answered, Lane
from tclient._transport.limits import late
from tclient._transport.stats import waiting
from tensorcompute.v1 import tensor_pb2 as pb


class Sending(Protocol):
    """Who sends what is pending, and brings the answers."""

    def flush(self) -> Lane | None:
        """Send all that is pending, because somebody waits for it. Over a lane, who waits reads the answers."""

    def read_until(self, lane: Lane, answered: Answered, until: float | None) -> bool:
        """Take in what comes until it is answered or late; False if another thread does that, or the lane has ended."""


class Waiters:
    """Who waits, and for what."""

    def __init__(self, channel: Channel, deferred: DeferredErrors) -> None:
        self._channel = channel
        self._deferred = deferred
        self._sending: Sending
        # What each waits for, what wakes it, and whether it can read answers itself.
        self._waiting: dict[int, tuple[Answered, Callable[[], None], bool]] = {}
        self._tickets = itertools.count().__next__

    def send_with(self, sending: Sending) -> None:
        """Who sends what is pending; told once."""
        self._sending = sending

    def wait(self, call: Call) -> pb.Value | None:
        """What the call returned, once it is answered; None if there is nothing to tell. Raises what went wrong."""
        if not call.done:
            self.block(call)
        return self.outcome(call)

    def outcome(self, call: Call) -> pb.Value | None:
        """What an answered call returned. Raises the first failed effect before it, or its own error."""
        if self._deferred.noteworthy:
            self._deferred.tell()
        result = call.result
        if result is None and call.failure is not None:
            raise fresh(call.failure)
        if result is None:
            return None
        if isinstance(result, bytes):
            return pb.Value.FromString(result)
        if result.HasField("error"):
            raise self._deferred.exception(result.error, call)
        return result.value

    def answer(self, call: Call) -> pb.Value | None:
        """What an answered call returned, without a word of what went wrong: None then, and where there is nothing."""
        result = call.result
        if isinstance(result, bytes):
            return pb.Value.FromString(result)
        return None if result is None or result.HasField("error") else result.value

    def block(self, answered: Answered) -> None:
        """Wait until `answered.done`. Ctrl-C ends the wait, and only the wait. Raises: ReadTimeout."""
        self._channel.stats.waits += 1
        limit_s = self._channel.read_timeout_s
        with waiting(_name(answered)):
            is_answered = self.block_for(answered, limit_s)
        if not is_answered and limit_s is not None:
            raise self._late(answered)

    def block_for(self, answered: Answered, limit_s: float | None) -> bool:
        """Wait for so long at most; whether it is answered."""
        until = None if limit_s is None else time.monotonic() + limit_s
        while not self._block_once(answered, until):
            pass
        return answered.done

    def _block_once(self, answered: Answered, until: float | None) -> bool:
        """Wait; whether it is answered or late. If not, this thread was asked to read for itself."""
        if not self._read(answered, until):
            # Who reads says when it is there, or that nobody reads any more.
            lock = threading.Lock()
            lock.acquire()
            ticket = self._tickets()
            self._waiting[ticket] = (answered, lock.release, True)
            try:
                # What was said before this was listed is not heard.
                if not self._read(answered, until):
                    lock.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic()))
            finally:
                self._waiting.pop(ticket, None)
        return answered.done or (until is not None and time.monotonic() >= until)

    def _read(self, answered: Answered, until: float | None) -> bool:
        """Send all that is pending, and take in what comes until it is answered or late; False if others are to."""
        lane = self._sending.flush()
        if not answered.done:
            if lane is None or not self._sending.read_until(lane, answered, until):
                return False
            self.pass_on()
        return True

    def pass_on(self) -> None:
        """Nobody reads any more: another thread that waits is to, if there is one."""
        for ticket, (answered, release, can_read) in list(self._waiting.items()):
            if can_read and not answered.done and self._waiting.pop(ticket, None) is not None:
                release()
                return

    def has_tasks(self) -> bool:
        """Whether tasks wait, which cannot read."""
        return any(not can_read for _, _, can_read in list(self._waiting.values()))

    async def wait_async(self, call: Call) -> pb.Value | None:
        """As `wait`, without holding up the event loop."""
        if not call.done:
            await self.block_async(call)
        return self.outcome(call)

    async def block_async(self, answered: Answered) -> None:
        """As `block`, without holding up the event loop."""
        import asyncio

        self._channel.stats.waits += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def answer() -> None:
            if not future.done():
                future.set_result(None)

        def release() -> None:
            loop.call_soon_threadsafe(answer)

        ticket = self._tickets()
        self._waiting[ticket] = (answered, release, False)
        try:
            lane = self._sending.flush()
            if lane is not None:
                lane.wake()
            if not answered.done:
                try:
                    with waiting(_name(answered)):
                        await asyncio.wait_for(future, self._channel.read_timeout_s)
                except TimeoutError:
                    raise self._late(answered) from None
        finally:
            self._waiting.pop(ticket, None)

    def notify(self) -> None:
        """Wakes the threads whose call is answered."""
        if self._waiting:
            for ticket, (answered, release, _) in list(self._waiting.items()):
                if answered.done and self._waiting.pop(ticket, None) is not None:
                    try:
                        release()
                    except RuntimeError:  # an event loop that is closed by now
                        pass

    def _late(self, answered: Any) -> Exception:
        return late(self._channel, _name(answered), answered.site() if isinstance(answered, Call) else None)

    def after_fork(self) -> None:
        """In a child process: who waited is in the parent."""
        self._waiting = {}


def _name(answered: Answered) -> str:
    """What is waited for."""
    return answered.operation.name if isinstance(answered, Call) else "synchronize"
