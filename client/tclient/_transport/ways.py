"""The ways to a session: to its home, the address that it was opened at, and to its endpoint, where its engine is.

Home passes on whatever names the session, so it is the way to go while the endpoint cannot be reached, and it says what
became of an engine that is gone. Which way is taken is decided here, by what came of the attempts on either. Knows
gRPC's channels and time; does not know RPCs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc

from tclient._transport.forks import GATE
from tclient._transport.lanes import Tries
from tensorcompute.wire.address import Address

log = logging.getLogger("tclient")


class Way:
    """A connection of gRPC's to an address, opened when it is needed."""

    def __init__(self, address: Address, connect: Callable[[Address], grpc.Channel]) -> None:
        self.address = address
        # By path: gRPC takes its time to make one.
        self.unary: dict[str, Any] = {}
        self._connect = connect
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._is_closed = False

    @property
    def channel(self) -> grpc.Channel:
        """The connection."""
        return self._channel or self._opened()

    def _opened(self) -> grpc.Channel:
        # A fork waits for who is inside, and not for who has the lock.
        with GATE.inside(), self._lock:
            if self._is_closed:
                raise ValueError("the session is closed")
            if self._channel is None:
                self._channel = self._connect(self.address)
            return self._channel

    def rest(self) -> None:
        """End the connection, and every RPC on it. The next RPC opens another."""
        with GATE.inside(), self._lock:
            self.unary = {}
            channel, self._channel = self._channel, None
            if channel is not None:
                channel.close()

    def close(self) -> None:
        """As `rest`, for good."""
        self._is_closed = True
        self.rest()


class Ways:
    """The ways of one session, of which one is taken."""

    def __init__(self, home: Way) -> None:
        self.home = home
        # None where the session lives at home, or where that is not known yet.
        self.endpoint: Way | None = None
        self.current = home
        # Each attempt belongs to a turn. The first one to fail ends it: what else fails of it tells nothing new.
        self.turn = 0
        # How many turns have failed since something went well.
        self._failures = 0
        self._lock = threading.Lock()
        self._tries: Tries

    def add_endpoint(self, endpoint: Way) -> None:
        """There is another way, in the place of one that there was. It is not taken before `follow`."""
        with self._lock:
            before, self.endpoint = self.endpoint, endpoint
            if before is not None and self.current is before:
                self._take(self.home)
        self._tries = Tries(
            "endpoint", f"the session stays at {self.home.address}: {endpoint.address} cannot be reached"
        )
        if before is not None:
            before.close()

    @property
    def is_aside(self) -> bool:
        """Whether home is taken in the place of the endpoint."""
        return self.current is self.home and self.endpoint is not None

    @property
    def may_return(self) -> bool:
        """Whether it is time to see whether the endpoint can be reached again."""
        return self.is_aside and self._tries.are_due

    def follow(self) -> None:
        """The endpoint was reached: it is taken from now on."""
        assert self.endpoint is not None
        with self._lock:
            self._tries.succeeded()
            self._take(self.endpoint)
            self._failures = 0

    def stay(self, cause: object) -> None:
        """The endpoint was not reached."""
        self._tries.refused(cause)

    def broke(self, turn: int, cause: object, *, worked: bool = False, was_silent: bool = False) -> None:
        """An attempt of a turn has failed. `worked` says that it went well until then, and `was_silent` that nothing
        was heard at all, so that it is not worth the time to go the same way again.
        """
        with self._lock:
            if self.endpoint is None or turn != self.turn:
                return
            self.turn += 1
            if worked and self.current is self.endpoint:
                self._tries.succeeded()
            self._failures = 1 if worked else self._failures + 1
            if self._failures == 1 and not was_silent:
                return  # connections break; the next one is likely to be there at once
            if self.current is self.home:
                self._take(self.endpoint)
            else:
                log.debug("by way of %s from now on: %s (%s)", self.home.address, self.endpoint.address, cause)
                self._tries.failed(cause)
                self._take(self.home)

    def worked(self) -> None:
        """An attempt went well."""
        self._failures = 0

    def rest(self) -> None:
        """End all connections. The next RPC opens another."""
        for way in (self.home, self.endpoint):
            if way is not None:
                way.rest()

    def close(self) -> None:
        """As `rest`, for good."""
        for way in (self.home, self.endpoint):
            if way is not None:
                way.close()

    def _take(self, way: Way) -> None:
        if way is not self.current:
            self.turn += 1
            self.current = way
