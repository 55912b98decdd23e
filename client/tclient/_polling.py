"""How gRPC's core waits for the network; imported before anything that imports grpc.

The choice itself is in tensorcompute.wire.polling. gRPC reads it once, when it is imported, so it is made here, and the
environment is left as it was. A choice of the user's own stands, and so does what a program got that imported grpc
before tclient.
"""

from __future__ import annotations

import os
import sys

from tensorcompute.wire import polling


def _import_grpc() -> bool:
    """Whether the choice was made."""
    if "grpc" in sys.modules or polling.VARIABLE in os.environ:
        return False
    choice = polling.choice()
    if choice is None:
        return False
    os.environ[polling.VARIABLE] = choice
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ[polling.VARIABLE]
    return True


chosen = _import_grpc()
