"""Changes to models: to one name one after the other, and each carried through. Knows asyncio alone."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Those that are under way."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._under_way: set[asyncio.Task[Any]] = set()

    def lock(self, name: str) -> asyncio.Lock:
        """What is held while models of that name are changed."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def whole(self, change: Coroutine[Any, Any, T]) -> T:
        """Carry a change through, also where whoever asked for it goes away in the middle of it."""
        task = asyncio.create_task(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
