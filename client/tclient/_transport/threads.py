"""What threads of ours wait by: Python's own, also where gevent has put what is for its greenlets in its place and left
the threads as they are, which may not wait on that, or not at the end of the process. Knows nothing else.
"""

from __future__ import annotations

import queue
import sys
import threading
from _queue import Empty
from _queue import SimpleQueue as _OfThreads
from typing import TypeVar

T = TypeVar("T")
_LEAST_S = 0.0005

__all__ = ["Empty", "SimpleQueue", "are_greenlets", "pause", "simple_queue"]
SimpleQueue = queue.SimpleQueue


def are_greenlets() -> bool:
    """Whether what seem to be threads are gevent's greenlets."""
    gevent = sys.modules.get("gevent.monkey")
    return gevent is not None and bool(gevent.is_module_patched("threading"))


def simple_queue() -> SimpleQueue[T]:
    """A new one."""
    return queue.SimpleQueue() if are_greenlets() else _OfThreads()


def pause(seconds: float) -> None:
    """As time.sleep; other threads have a turn in any case."""
    threading.Event().wait(max(seconds, _LEAST_S))
