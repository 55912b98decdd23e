"""Where a session goes. Pure: numbers in, an engine out; of many engines, chance says which are looked at."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tserver.errors import Exhausted, InvalidArgument

# Engines with at least this part of the memory that the emptiest has free count as equally empty: then sessions decide.
_AS_EMPTY = 0.5
# Of more engines than this, so many taken by chance are looked at, which takes no longer however many there are; and of
# those with room the better one of two is taken. Fronts of many hosts all know the same numbers, a moment old: if each
# took the best of all, they would all take the same one until they are told anew.
_LOOKED_AT = 16
_COMPARED = 2


@dataclass(slots=True)
class Load:
    """What an engine has to do, as far as that is known."""

    engine: str
    # As the house counts devices.
    device: str
    # 0 is not known: the engine has just begun, and has room.
    free_bytes: int = 0
    sessions: int = 0
    # Sessions that were placed there since the numbers above were told.
    placed: int = 0
    takes_sessions: bool = True


def choose(
    loads: Sequence[Load], device: str = "", draw: Callable[[Sequence[Load], int], list[Load]] = random.sample
) -> Load:
    """The engine for a new session: one with room, and the fewest sessions. `device` is where it must be; empty is
    anywhere. `draw` takes some of many by chance.

    Raises: InvalidArgument for a device that no engine has; Exhausted where none takes sessions.
    """
    there = [load for load in loads if fits(load.device, device)] if device else loads
    if loads and not there:
        has = ", ".join(sorted({load.device for load in loads}))
        raise no_device(device, has)
    is_many = len(there) > _LOOKED_AT
    some = draw(there, _LOOKED_AT) if is_many else there
    open_ones = [load for load in some if load.takes_sessions] or [load for load in there if load.takes_sessions]
    if not open_ones:
        raise Exhausted("no engine takes sessions now; retry later", retry_after_s="1")
    most_free = max(load.free_bytes for load in open_ones)
    roomy = [load for load in open_ones if not load.free_bytes or load.free_bytes >= most_free * _AS_EMPTY]
    # What was placed since the numbers came is there for certain; sessions that were told of may have ended.
    return min(
        roomy[:_COMPARED] if is_many else roomy,
        key=lambda load: (load.sessions + load.placed, load.placed, -load.free_bytes),
    )


def no_device(device: str, has: str) -> InvalidArgument:
    """What is said of a device that no engine has."""
    return InvalidArgument(f"no engine has the device {device[:100]!r}; there are {has}")


def fits(device: str, wish: str) -> bool:
    """Whether a device is the wished one: "cuda" is any GPU, and empty is anything."""
    return not wish or device == wish or (wish == "cuda" and device.startswith("cuda"))


def home(engines: Iterable[str], principal: str) -> str:
    """The engine of callers without a session: each principal has one, the same for every front that knows the same
    engines, and when one goes only its principals move (rendezvous hashing). Raises: Exhausted without any.
    """
    ranked = max(engines, key=lambda engine: hashlib.blake2b(f"{engine}\0{principal}".encode()).digest(), default=None)
    if ranked is None:
        raise Exhausted("no engine serves now; retry later", retry_after_s="1")
    return ranked
