"""How long a client goes on asking a server that refuses for now, and how long it waits before it asks again.

Only what was refused before it was run is asked for again: the server says so by naming a time (RetryInfo). Knows no
sockets and no tensors.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import grpc

from tclient._exceptions import TensorError
from tclient._transport.limits import check
from tclient._transport.statuses import is_late, retry_after_s

# Where nobody has said how long a call may take.
MOST_S = 60.0
# What chance adds to the time that the server names: up to this much at first, and twice as much each time.
_SPREAD_S = 0.05
_MOST_SPREAD_S = 5.0
_LOOK_S = 0.5


class Patience:
    """The attempts of one call."""

    def __init__(self, within_s: float | None) -> None:
        self._began = time.monotonic()
        self._until = self._began + (MOST_S if within_s is None else within_s)
        self._attempts = 0
        # The last refusal that named a time.
        self._busy: grpc.RpcError | None = None

    def wait(self, told_s: float) -> bool:
        """Wait as long as the server said, and a little more by chance, so that not all come back at once; False where
        the time of the call is over before. Raises: TimeoutError where that of the thread is.
        """
        self._attempts += 1
        spare_s = self._until - time.monotonic() - told_s
        if spare_s <= 0:
            return False
        spread_s = min(_MOST_SPREAD_S, max(told_s, _SPREAD_S) * 2 ** min(self._attempts - 1, 10), spare_s)
        again_at = time.monotonic() + told_s + random.uniform(0.0, spread_s)
        # In short waits: the thread may have less time than the call.
        while (left_s := again_at - time.monotonic()) > 0:
            check()
            time.sleep(min(left_s, _LOOK_S))
        return True

    def heed(self, error: grpc.RpcError, translate: Callable[[grpc.RpcError], TensorError]) -> bool:
        """An attempt has failed. True where the server had refused it before it was run, and the time that it named has
        passed: it is to be made again. Raises: the last such refusal, where the time is up.
        """
        told_s = retry_after_s(error)
        if told_s is not None:
            self._busy = error
            if self.wait(told_s):
                return True
        if self._busy is not None and (told_s is not None or is_late(error)):
            raise self.spent(translate(self._busy)) from None
        return False

    def spent(self, failure: TensorError) -> TensorError:
        """The refusal, with what was tried."""
        if self._attempts > 1:
            told = f"{failure} (asked {self._attempts} times in {time.monotonic() - self._began:.1f} s)"
            failure.args = (told, *failure.args[1:])
        return failure
