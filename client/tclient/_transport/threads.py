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

__all__ = ["Empty", "SimpleQueue", "pause", "simple_queue"]
SimpleQueue = queue.SimpleQueue


def simple_queue() -> SimpleQueue[T]:
    """A new one."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        # What seem to be threads are greenlets.
        return queue.SimpleQueue()
    return _OfThreads()


def pause(seconds: float) -> None:
    """As time.sleep; other threads have a turn in any case."""
    threading.Event().wait(max(seconds, _LEAST_S))
