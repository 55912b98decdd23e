"""The calls of a session that wait to be sent, and what belongs to putting one there.

A call, the end of results that were dropped by then, and what the call outdates of what is known of tensors: that is
one operation, `put`. The hot path of the client: nothing is looked up twice, and only calls that write take a lock.
Knows encoded calls; does not know how they travel.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from tclient._codec import wire
from tclient._exceptions import fresh
from tclient._native import Drops, QueueFields
from tclient._session.calls import Call, Name
from tclient._session.oversize import fit
from tclient._transfer.transfers import Transfers
from tclient._transport.channel import FRAME_BYTES, HEAVY_BYTES
from tclient._transport.limits import late
from tclient._transport.stats import waiting
from tensorcompute.wire.packed import FREE, KIND_BITS, let_go

# Results let go with one call; the rest go with the next ones.
_MAX_DROPS = 256
# So many go without a look at the size of messages.
_FEW_DROPS = 8
_SHARES = 8
# Of a result that is let go, the most that it takes in a message, but for parts of parts of parts.
DROP_BYTES = 64
# Calls that may wait to be sent before the issuing thread has to wait too.
_PENDING_LIMIT = 16_384
# Bytes of large calls (arrays by value) that may wait to be answered.
_HEAVY_LIMIT = 32 << 20


class Writes(IntEnum):
    """What a call may change of tensors that were there before it."""

    NOTHING = 0
    ELEMENTS = 1
    """Elements, and with them requires_grad."""
    METADATA = 2
    """Shapes and dtypes, too."""


class Sending(Protocol):
    """Who takes calls from here."""

    def wake(self) -> None:
        """A call waits."""

    def wake_up(self) -> None:
        """A result was dropped while the sender sleeps for long."""

    def hand_over(self) -> None:
        """Many calls wait: send them now, if they may go."""


class CallQueue(QueueFields):
    """The calls that wait to be sent, in order; results that were dropped; and how current what is known is."""

    def __init__(self, transfers: Transfers, wait: Callable[[Call], object], first_id: int = 0) -> None:
        """`wait` waits for a call, and raises what went wrong. Ids below `first_id` are others'."""
        # All ids have at least three bytes as varints.
        super().__init__(max(first_id, wire.FIRST_ID))
        self._transfers = transfers
        self._channel = transfers.channel
        self.address = transfers.channel.address
        self._wait = wait
        self._sending: Sending
        self.pending: list[Call] = []
        # What was dropped: an id, or an id and the path of a part.
        self.drops: deque[Name] = Drops()
        # True when the next call must do more than append: wake the sender, wait for itself, or fail.
        self.attention = True
        # Pending calls from which on the issuing thread should let the sender have the interpreter.
        self.relief = 0
        # Raised by calls that may change requires_grad (epoch) or shapes and dtypes too (meta_epoch) of tensors known.
        self.epoch = self.meta_epoch = 0
        # What was told of gradients since they may have been set last, by the name of the tensor.
        self.gradients: dict[Name, Any] = {}
        # Where the session is traced: what does that, and the program's spans in which calls were issued.
        self._tracing = transfers.channel.tracing
        self.origins: dict[Call, Any] = {}
        self._writing = threading.Lock()
        # True when the sender sleeps without a timeout, so that a dropped result has to wake it.
        self.dozing = False
        self.synchronous = False
        # Bytes of large calls that are not answered.
        self.heavy = 0
        self._heavy_lock = threading.Lock()

    def send_with(self, sending: Sending) -> None:
        """Who takes the calls; told once, before the first one."""
        self._sending = sending

    def put(self, call: Call, writes: Writes = Writes.NOTHING, is_awaited: bool = False) -> None:
        """Put a call on its way, and before it the end of results that were dropped by now.

        What the call may write is outdated from then on, and not before: whoever asks in between is answered by the
        server before the call, and asks again after it. `is_awaited` says that its thread waits for it next, which
        sends it. Raises: RequestRefused for a call that no message can carry; the session's end; in synchronous mode,
        what went wrong with the call.
        """
        if is_awaited and self._channel.dead is not None:
            raise fresh(self._channel.dead)
        if len(call.data) > self._channel.max_light:
            self._hold(call)
        if self.drops:
            call.words = self.take_drops() + call.words
        if self._tracing is not None and (origin := self._tracing.origin()) is not None:
            self.origins[call] = origin
        if writes:
            with self._writing:
                try:
                    self.pending.append(call)
                finally:
                    self.epoch += 1
                    if writes == Writes.METADATA:
                        self.meta_epoch = self.epoch
                    call.epoch = self.epoch
        else:
            # Before it is appended: what is written behind it must not seem to be known.
            call.epoch = self.epoch
            self.pending.append(call)
        if call.operation.sets_gradients:
            # Another one, so that what is told of the time before does not get in.
            self.gradients = {}
        if is_awaited:
            return
        if self.attention:
            self._attend(call)
            if self._tracing is None:
                return
        if len(self.pending) > self.relief:
            self.relieve()

    @property
    def needs_attention(self) -> bool:
        """Whether each call must do more than append, whatever the sender does: each passes `put` then."""
        return self.synchronous or self._tracing is not None or self._channel.dead is not None

    def of_one_origin(self, calls: list[Call]) -> Any:
        """Leave those at the beginning that were issued in one span of the program; which that is."""
        origins = self.origins
        origin = origins.get(calls[0])
        count = next((index for index, call in enumerate(calls) if origins.get(call) is not origin), len(calls))
        del calls[count:]
        return origin

    def relieve(self) -> None:
        """Many calls wait: sends them if they may go, and blocks while there are too many."""
        self._sending.hand_over()
        self._while(lambda: len(self.pending) > _PENDING_LIMIT)

    def take_drops(self, most: int = 0) -> list[int]:
        """The words that let results go that were dropped by now: their place in the sequence keeps memory low.

        They take `most` such places, or a small part of a message.
        """
        words: list[int] = []
        drops = self.drops
        count = len(drops)
        if count > _FEW_DROPS:
            share = max(_FEW_DROPS, self._channel.max_message // (_SHARES * DROP_BYTES))
            count = min(count, most or min(_MAX_DROPS, share))
        for _ in range(count):
            try:
                dropped = drops.popleft()
            except IndexError:  # another thread was quicker
                break
            if isinstance(dropped, int):
                words.append(FREE | dropped << KIND_BITS)
            else:
                words += let_go(*dropped)
        return words

    def _attend(self, call: Call) -> None:
        if self._channel.dead is not None:
            self.pending.clear()
            raise fresh(self._channel.dead)
        self._sending.wake()
        if self.synchronous:
            self._wait(call)

    def rouse(self) -> None:
        """Called when a result is dropped while the sender sleeps for long."""
        self.dozing = False
        self._sending.wake_up()

    def set_synchronous(self, mode: bool) -> None:
        """Whether each call is waited for from now on."""
        self.synchronous = mode
        self.attention = True

    # ---- large calls ---------------------------------------------------------------------------------------------

    def _hold(self, call: Call) -> None:
        """Before a large call: blocks while many such bytes are on their way."""
        if len(call.data) > self._channel.max_message - FRAME_BYTES:
            fit(call, self._transfers, self.next_id)
        size_bytes = len(call.data)
        if size_bytes <= HEAVY_BYTES:
            return
        self._while(lambda: self.heavy > _HEAVY_LIMIT, call)
        with self._heavy_lock:
            self.heavy += size_bytes

    def release_heavy(self, size_bytes: int) -> None:
        """Called when such calls are answered, or will not be sent."""
        with self._heavy_lock:
            self.heavy = max(0, self.heavy - size_bytes)

    def _while(self, is_full: Callable[[], bool], call: Call | None = None) -> None:
        """Block while there is no room for more. Raises: ReadTimeout."""
        if not is_full():
            return
        limit_s = self._channel.read_timeout_s
        latest = math.inf if limit_s is None else time.monotonic() + limit_s
        with waiting("room"):
            while is_full() and self._channel.dead is None:
                if time.monotonic() > latest:
                    name, site = ("synchronize", None) if call is None else (call.operation.name, call.site())
                    raise late(self._channel, name, site)
                self._sending.wake()
                time.sleep(0.0005)

    # ---- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """No call goes any more: the channel says why."""
        self.attention = True
        self.origins.clear()
        self.drops = Drops(maxlen=0)
        self.dozing = False

    def after_fork(self) -> None:
        """In a child process: what waits here is the parent's."""
        self._writing = threading.Lock()
        self._heavy_lock = threading.Lock()
        self.synchronous = False
        self.origins.clear()
        self.pending.clear()
