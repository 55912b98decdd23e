"""How gRPC's core waits for the network: what its environment says where it is to wait as we wish.

By default gRPC has threads that wait for all sockets and wake the thread that a message is for. Without those event
engines the thread that waits for a message looks at the socket itself: one switch of threads less each way, which is a
tenth of a lone round trip. gRPC reads the choice once, when it is imported. Does not import it.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

VARIABLE = "GRPC_EXPERIMENTS"
_WITHOUT_EVENT_ENGINES = "-event_engine_client,-event_engine_listener"
# The first version of which it is not known that it has the choice. One without it would complain.
_UNKNOWN_FROM = (1, 86)


def choice() -> str | None:
    """The value of the variable; None where the gRPC that is installed may not have the choice."""
    try:
        spec = importlib.util.find_spec("grpc")
        assert spec is not None
        assert spec.origin is not None
        # Where grpc.__version__ comes from; to ask importlib.metadata takes far longer.
        text = Path(spec.origin).with_name("_grpcio_metadata.py").read_text()
    except (AssertionError, OSError, ValueError):
        return None
    found = re.search(r"(\d+)\.(\d+)\.", text)
    has_choice = found is not None and (int(found[1]), int(found[2])) < _UNKNOWN_FROM
    return _WITHOUT_EVENT_ENGINES if has_choice else None
