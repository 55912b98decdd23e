"""Where lanes come from, and when one is tried again that could not be opened.

Knows time and what came of lanes; does not know sockets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tclient._transport.lane import Lane

log = logging.getLogger("tclient")

# How long it is waited after a failure, how that grows with each, and up to what while nothing speaks against lanes.
_PAUSE_S = 0.1
_GROWTH = 4.0
_LONGEST_S = 2.0
# After so many refusals, over half a minute, lanes are not looked for any more. When the connection breaks one is tried
# nevertheless, as the network may be another one, but not more often than this.
_REFUSALS = 6
REST_S = 60.0


class Tries:
    """What came of tries to have something better than what there is: a lane, or the way to a session's endpoint."""

    def __init__(self, what: str, without: str) -> None:
        """`what` is tried, and `without` says how things are while there is none."""
        self._what, self._without = what, without
        self._rests_until = 0.0
        self._failures = self._refusals = 0
        self._has_said = False

    @property
    def may_open(self) -> bool:
        """Whether one may be tried in the place of a connection that broke."""
        return time.monotonic() >= self._rests_until

    @property
    def are_due(self) -> bool:
        """Whether one is looked for while all goes well without."""
        return self._refusals < _REFUSALS and self.may_open

    def failed(self, cause: object) -> None:
        """None just now, for a reason that says nothing of those to come."""
        log.debug("no %s for now: %s", self._what, cause)
        self._rest(min(_PAUSE_S * _GROWTH**self._failures, _LONGEST_S))
        self._failures = min(self._failures + 1, _REFUSALS)

    def refused(self, cause: object) -> None:
        """One could not be opened, or nothing came over it."""
        log.debug("no %s: %s", self._what, cause)
        self._refusals += 1
        if self._refusals >= _REFUSALS:
            self.end(cause)
        else:
            self._rest(_PAUSE_S * _GROWTH ** (self._refusals - 1))

    def end(self, cause: object) -> None:
        """There are none here."""
        if not self._has_said:
            self._has_said = True
            log.debug("%s (%s)", self._without, cause)
        self._refusals = max(self._refusals, _REFUSALS)
        self._rest(REST_S)

    def judge(self, lane: Lane) -> bool:
        """After a lane has ended: whether it may be followed by another one at once."""
        if lane.has_answered:
            self.succeeded()
        else:
            self.refused("nothing came over the last one")
        return lane.has_answered

    def succeeded(self) -> None:
        """There was one, and all went well."""
        self._failures = self._refusals = 0
        self._has_said = False

    def _rest(self, seconds: float) -> None:
        self._rests_until = time.monotonic() + seconds


class Lanes:
    """The lanes of one stream."""

    def __init__(self, tries: Tries, open_one: Callable[[], Lane | None]) -> None:
        """`open_one` gives a lane that has yet to begin, or tells `tries` why there is none."""
        self.tries = tries
        self._open_one = open_one

    def open(self) -> Lane | None:
        """A lane that has yet to begin; None while none is to be tried, and where none can be opened."""
        return self._open_one() if self.tries.may_open else None
