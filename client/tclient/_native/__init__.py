"""The core of the client: what every call goes through, compiled where that was built, and in pure Python else.

Both do the same, and the rest of the client does not ask which it has. `TCLIENT_NATIVE=0` keeps to pure Python. Imports
nothing of the client.
"""

from __future__ import annotations

from tclient._native.pure import (
    COMPILED,
    REF_FIELDS,
    CallFields,
    Drops,
    HandleFields,
    KindFields,
    KindsFields,
    ModeFields,
    OperationFields,
    QueueFields,
    RefFields,
    bare,
    contents,
    empty,
    quick_dispatch,
    quick_operator,
    set_up,
    settle,
)
from tensorcompute.wire.compiled import compiled

__all__ = [
    "COMPILED",
    "REF_FIELDS",
    "CallFields",
    "Drops",
    "HandleFields",
    "KindFields",
    "KindsFields",
    "ModeFields",
    "OperationFields",
    "QueueFields",
    "RefFields",
    "bare",
    "contents",
    "empty",
    "quick_dispatch",
    "quick_operator",
    "set_up",
    "settle",
]

_core = compiled("tclient._native.core", "TCLIENT_NATIVE")
if _core is not None:
    globals().update({name: each for name, each in vars(_core).items() if name in __all__})
