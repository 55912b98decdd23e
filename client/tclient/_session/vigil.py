"""Notices that a connection leads nowhere while something is owed over it.

A network that goes silent says nothing, and TCP and gRPC take from half a minute to a whole one to find out; they may
also wait long after it has come back, for they try ever less often. So where a batch is not answered for a moment, the
server is asked over another connection how far it is. Where it has not received what was sent, or has answered it, the
stream gets a new connection, over which what is owed goes again, and is applied once. Where the batch runs, all is
well. While nobody answers, it is asked again every second, each time by a new connection.

One thread looks after all sessions of a process. Knows numbers of batches; does not know calls.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

import grpc

from tclient._transport.channel import TENSOR_SERVICE, Channel
from tclient._transport.statuses import is_broken, is_late, is_unauthenticated, says_of_session
from tclient._transport.threads import pause
from tensorcompute.v1 import tensor_service_pb2 as rpc

log = logging.getLogger("tclient")

# How long a batch is under way before the server is asked, and how often, and how many questions may be open.
_QUIET_S = 0.6
_EVERY_S = 1.0
_MOST_QUESTIONS = 6
_ANSWER_S = 15.0
# How often it is looked: while something is owed, and while nothing is.
_TICK_S = 0.1
_REST_S = 0.5
# How long what the server says may be true of something that is on its way. Twice as long each time that a new
# connection did not help.
_GRACE_S = 0.25
_MOST_GRACE_S = 60.0
# As slow as a network may be, and while bulk bytes go first.
_SLOWEST_BYTES_PER_S = 32 << 10
_BULK_GRACE_S = 30.0


class Owing(Protocol):
    """What owes batches, or forward passes."""

    # Whether it waits for bulk bytes that go first.
    yields_to_bulk: bool

    def first_owed(self) -> int:
        """The number of what is answered next; 0 if nothing is under way, or not over a connection of its own."""

    def question(self, owed: int) -> rpc.GetSessionProgressRequest:
        """Ask for what is owed."""

    def on_its_way(self, owed: int, progress: rpc.GetSessionProgressResponse) -> int | None:
        """How many bytes of it may be on their way, or of the answer; None where the server has it, and no answer."""

    def patience_s(self) -> float:
        """How long it may take without a sign, beside that."""


class Vigil:
    """What is known of one stream of a session."""

    def __init__(self, channel: Channel, owing: Owing, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._channel = channel
        self._owing = owing
        self._owed = 0
        # Since when that one is owed, when it was asked last, and how many questions are open.
        self._since = self._asked_at = 0.0
        self._questions = 0
        self._grace_s = _GRACE_S
        # Whether the server says how far it is.
        self._is_of_use = True
        # When the connection is given up, if nothing comes until then.
        self._until = 0.0

    def look(self, now: float) -> bool:
        """See how it stands; whether something is owed."""
        owed = self._owing.first_owed()
        if owed != self._owed:
            self._owed, self._since, self._until = owed, now, 0.0
            self._grace_s = _GRACE_S
            self._asked_at = 0.0
        if not owed or self._channel.dead is not None or not self._is_of_use:
            return False
        if self._until:
            if now >= self._until:
                self._until = 0.0
                self._since = now
                self._grace_s = min(2 * self._grace_s, _MOST_GRACE_S)
                log.info("the connection to %s leads nowhere; going on over another one", self._channel.address)
                self._renew()
        elif now - self._since > _QUIET_S and now - self._asked_at > _EVERY_S and self._questions < _MOST_QUESTIONS:
            self._asked_at = now
            self._questions += 1
            # Python starts no threads any more at its end.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._ask, args=(owed,), name="tclient-vigil", daemon=True).start()
        return True

    def _ask(self, owed: int) -> None:
        began = time.monotonic()
        try:
            question = self._owing.question(owed)
            path = TENSOR_SERVICE + "GetSessionProgress"
            progress = self._channel.ask_apart(path, question, rpc.GetSessionProgressResponse, _ANSWER_S)
        except grpc.RpcError as error:
            error.__traceback__ = None
            if says_of_session(error):
                # The stream is to hear it, too.
                self._give_up(owed, 0.0)
            elif not (is_broken(error) or is_late(error) or is_unauthenticated(error)):
                log.debug("%s does not say how far it is: %s", self._channel.address, error.details())
                self._is_of_use = False
        except Exception as error:
            log.debug("%s was not asked how far it is: %s", self._channel.address, error)
        else:
            took_s = time.monotonic() - began
            size = self._owing.on_its_way(owed, progress)
            if size is None:
                # What is asked next is asked in a while.
                self._since = time.monotonic()
            else:
                self._give_up(owed, max(2 * took_s, size / _SLOWEST_BYTES_PER_S))
        finally:
            self._questions -= 1

    def _give_up(self, owed: int, at_least_s: float) -> None:
        """Give the connection up, if the same is owed in a while."""
        bulk_s = _BULK_GRACE_S if self._channel.moves_bulk and self._owing.yields_to_bulk else 0.0
        if owed == self._owed and not self._until:
            self._until = time.monotonic() + max(self._grace_s, at_least_s, bulk_s, self._owing.patience_s())


class _Watch:
    """The thread."""

    def __init__(self) -> None:
        self._vigils: weakref.WeakSet[Vigil] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, vigil: Vigil) -> None:
        with self._lock:
            self._vigils.add(vigil)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tclient-watch", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                vigils = list(self._vigils)
                if not vigils:
                    self._thread = None
                    return
            owe = False
            for vigil in vigils:
                try:
                    owe |= vigil.look(time.monotonic())
                except Exception:
                    log.exception("a session could not be looked after")
            del vigils
            vigil = None  # type: ignore[assignment]  # not kept while this sleeps
            pause(_TICK_S if owe else _REST_S)


_watch = _Watch()


def keep_vigil(channel: Channel, owing: Owing, renew: Callable[[], None]) -> Vigil:
    """Look after what a session is owed, for as long as the result is kept; `renew` takes other connections."""
    vigil = Vigil(channel, owing, renew)
    _watch.add(vigil)
    return vigil
