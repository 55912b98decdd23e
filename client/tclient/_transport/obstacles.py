"""What there may be in a process that gRPC cannot work with, which is said before it hangs or crashes."""

from __future__ import annotations

import sys

from tclient._exceptions import ConnectFailed
from tclient._transport.forks import GATE
from tclient._transport.threads import are_greenlets


def refuse_green_threads() -> None:
    """gRPC waits outside Python: threads that only take turns within it would wait with it for ever.

    Raises: ConnectFailed where that is so.
    """
    if are_greenlets() and not _gevent_is_known_to_grpc():
        raise ConnectFailed(
            "connect: gevent has replaced the threads of this program, and gRPC does not know of it: call "
            "grpc.experimental.gevent.init_gevent() before connecting"
        )
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise ConnectFailed(
            "connect: eventlet has replaced the threads of this program, and gRPC does not work with that: patch "
            "without them, eventlet.monkey_patch(thread=False), or use gevent"
        )


def _gevent_is_known_to_grpc() -> bool:
    try:
        from grpc._cython import cygrpc  # type: ignore[attr-defined]

        return bool(cygrpc.g_gevent_activated)
    except (ImportError, AttributeError):
        return True  # it cannot be told


def refuse_torn_state() -> None:
    """With what a fork copied of gRPC in the midst of its work, this process would disturb its parent's connections.

    Raises: ConnectFailed where that is so.
    """
    if GATE.is_torn:
        raise ConnectFailed(
            "connect: another thread of the parent process was inside gRPC when this process was forked, and gRPC "
            "cannot be used here since; fork while no thread of the parent connects or moves data, and without "
            "GRPC_ENABLE_FORK_SUPPORT, or start workers by the method spawn or forkserver"
        )
