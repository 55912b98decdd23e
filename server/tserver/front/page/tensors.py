"""What is shown of tensors: a list of those of a session, and statistics and a picture of one.

A list is made once for all who watch, and seldom where that takes long: of the engine's time it takes a small part.
Sorting, searching and statistics are for other threads than the engine's. Knows torch only as what sessions give.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tserver.errors import NotFound
from tserver.front.page.paging import window

if TYPE_CHECKING:
    from tserver.engines.port import Listing, Looked, Session
    from tserver.front.page.paging import Row

# A list is not made again before this, nor before so many times of what it took.
_YOUNGEST_S = 1.0
_REST = 20
# How long a busy engine is waited for; and how long lists are kept that nobody asks for, and how many.
_PATIENCE_S = 2.0
_KEPT_S = 30.0
_MOST_LISTS = 4
_MOST_ORDERS = 8
_BINS = 48

_KEYS: Mapping[str, Callable[[Any], Any]] = {
    "name": lambda line: line.name,
    "given": lambda line: (not line.given, line.given),
    "dtype": lambda line: line.dtype,
    "shape": lambda line: (len(line.shape), line.shape),
    "size_bytes": lambda line: line.size_bytes,
    "device": lambda line: line.device,
}


class _List:
    """The tensors of a session, and the orders that they were asked for in."""

    def __init__(self) -> None:
        self.listing: Listing | None = None
        self.making: asyncio.Task[None] | None = None
        self.again_at = 0.0
        self.asked_at = 0.0
        self.orders: dict[tuple[str, bool, str], list[Any]] = {}

    async def make(self, session: Session) -> None:
        """Make it anew."""
        began = time.monotonic()
        self.listing = await session.listing()
        self.orders.clear()
        now = time.monotonic()
        self.again_at = now + max(_YOUNGEST_S, _REST * (now - began))


class TensorLists:
    """Those of the sessions that somebody looks at."""

    def __init__(self) -> None:
        self._lists: dict[str, _List] = {}

    async def page(self, session: Session, asked: Mapping[str, str]) -> dict[str, Any]:
        """One piece of the list; where the engine is busy, of the one before, and then it says so.

        Raises: InvalidArgument, SessionLost.
        """
        rows = window(asked)
        found = self._lists.setdefault(session.id, _List())
        found.asked_at = now = time.monotonic()
        self._forget(now)
        is_stale = found.listing is None or (found.listing.version != session.version and now >= found.again_at)
        if is_stale and found.making is None:
            found.making = asyncio.create_task(found.make(session))
            asyncio.get_running_loop().call_later(_KEPT_S + 1.0, lambda: self._forget(time.monotonic()))
        is_busy = False
        if found.making is not None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await asyncio.shield(found.making)
                found.making = None
            except TimeoutError:
                is_busy = True
            except Exception:
                found.making = None
                raise
        listing = found.listing
        if listing is None:
            return {"total": 0, "rows": [], "is_busy": True, "is_whole": False}
        key = asked.get("sort", ""), asked.get("descending", "") == "1", asked.get("search", "").lower()[:200]
        lines = found.orders.get(key)
        if lines is None:
            lines = listing.lines if key == ("", False, "") else await asyncio.to_thread(_in_order, listing, *key)
            while len(found.orders) >= _MOST_ORDERS:
                del found.orders[next(iter(found.orders))]
            found.orders[key] = lines
        return {
            "total": len(lines),
            "rows": [_row(line) for line in lines[rows]],
            "is_busy": is_busy,
            "is_whole": listing.is_whole,
        }

    def _forget(self, now: float) -> None:
        """Let go of what nobody asks for."""
        old = [name for name, each in self._lists.items() if now > each.asked_at + _KEPT_S]
        if len(self._lists) - len(old) > _MOST_LISTS:
            old.append(min(self._lists, key=lambda name: self._lists[name].asked_at))
        for name in old:
            self._lists.pop(name)


def _in_order(listing: Listing, sort: str, descending: bool, search: str) -> list[Any]:
    lines = listing.lines
    if words := search.split():
        lines = [line for line in lines if all(word in _text(line) for word in words)]
    return sorted(lines, key=_KEYS.get(sort, _KEYS["name"]), reverse=descending)


def _text(line: Any) -> str:
    return f"{name_of(line.name)} {line.given} {line.dtype} {shape_of(line.shape)} {line.device}".lower()


def _row(line: Any) -> Row:
    return {
        "name": name_of(line.name),
        "given": line.given,
        "dtype": line.dtype,
        "shape": list(line.shape),
        "size_bytes": line.size_bytes,
        "device": line.device,
        "requires_grad": line.requires_grad,
    }


def name_of(name: tuple[int, ...]) -> str:
    """The id and the path of a tensor, as they stand in an address."""
    return ".".join(map(str, name))


def shape_of(shape: tuple[int, ...]) -> str:
    """A shape as it is searched for: 3x4."""
    return "x".join(map(str, shape))


def parsed_name(text: str) -> tuple[int, ...]:
    """What `name_of` made. Raises: NotFound."""
    parts = text.split(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts) or len(parts) > 64:
        raise NotFound(f"there is no tensor {text[:50]!r}")
    return tuple(map(int, parts))


async def looked_at(session: Session, name: str, at: int) -> dict[str, Any]:
    """One tensor: its facts, statistics of a sample, and a picture. Raises: NotFound, UnknownId, SessionLost."""
    parsed = parsed_name(name)
    if not 0 < parsed[0] < 1 << 63 or any(part >= 1 << 31 for part in parsed[1:]):
        raise NotFound(f"there is no tensor {name[:50]!r}")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            looked = await session.look(parsed, at)
    except TimeoutError:
        return {"is_busy": True}
    return await asyncio.to_thread(_described, looked)


def _described(looked: Looked) -> dict[str, Any]:
    told: dict[str, Any] = {**looked.facts, "is_busy": False, "sampled": looked.sampled}
    if not looked.sampled:
        return told
    with looked.lock:
        numbers = np.frombuffer(looked.data, np.float64)
    sample, picture = numbers[: looked.sampled], numbers[looked.sampled :]
    finite = sample[np.isfinite(sample)]
    told["nan"] = int(np.isnan(sample).sum())
    told["infinite"] = int(np.isinf(sample).sum())
    told["zeros"] = int((sample == 0).sum())
    if finite.size:
        told["statistics"] = {
            "min": float(finite.min()),
            "max": float(finite.max()),
            "mean": _finite(finite.mean()),
            "std": _finite(finite.std()),
            "median": float(np.median(finite)),
        }
        told["histogram"] = _histogram(finite)
    told["picture"] = {
        "shape": list(looked.picture),
        "float32": base64.b64encode(np.clip(picture, -3.4e38, 3.4e38).astype("<f4").tobytes()).decode(),
    }
    return told


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _histogram(finite: np.ndarray[Any, Any]) -> dict[str, Any]:
    low, high = float(finite.min()), float(finite.max())
    whole = finite.size and high - low < _BINS and bool((finite == np.rint(finite)).all())
    if whole:
        # Each number has a bar of its own.
        edges = np.arange(low - 0.5, high + 1.0)
    elif np.isfinite(high - low) and high > low:
        edges = np.linspace(low, high, _BINS + 1)
        if not (np.diff(edges) > 0).all():
            edges = np.array([low, high])
    else:
        edges = np.array([low, high]) if high > low else np.array([low - 0.5, low + 0.5])
    counts, _ = np.histogram(finite, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
