"""What a thread waits for another by: Python's own queue, also where gevent has put one for its greenlets in its place,
on which no thread may wait. Knows nothing else.
"""

from _queue import Empty, SimpleQueue

__all__ = ["Empty", "SimpleQueue"]
