"""How gRPC's core waits for the network; imported before anything that imports grpc.

By default gRPC has threads that wait for all sockets and wake the thread that an answer is for. Without those event
engines the thread that waits for an answer looks at the socket itself: one switch of threads less each way, which is a
tenth of a lone round trip. gRPC reads the choice once, when it is imported, so it is made here, and the environment is
left as it was. A choice of the user's own stands, and so does what a program got that imported grpc before tclient.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

_CHOICE = "GRPC_EXPERIMENTS"
_WITHOUT_EVENT_ENGINES = "-event_engine_client,-event_engine_listener"
# The first version of which it is not known that it has the choice. One without it would complain.
_UNKNOWN_FROM = (1, 86)


def _import_grpc() -> bool:
    """Whether the choice was made."""
    if "grpc" in sys.modules or _CHOICE in os.environ or not _has_choice():
        return False
    os.environ[_CHOICE] = _WITHOUT_EVENT_ENGINES
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ[_CHOICE]
    return True


def _has_choice() -> bool:
    try:
        spec = importlib.util.find_spec("grpc")
        assert spec is not None
        assert spec.origin is not None
        # Where grpc.__version__ comes from.
        text = Path(spec.origin).with_name("_grpcio_metadata.py").read_text()
    except (AssertionError, OSError, ValueError):
        return False
    found = re.search(r"(\d+)\.(\d+)\.", text)
    return found is not None and (int(found[1]), int(found[2])) < _UNKNOWN_FROM


chosen = _import_grpc()
