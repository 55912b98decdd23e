"""The operations of the generated table, as the client needs them: name, what it returns, what it changes.

The table is the allowlist that both sides read. Knows neither tensors nor sessions.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import tensorcompute.v1
from tclient._codec.overloads import Returns
from tensorcompute.wire.varint import varint

# All operations that this process has used, in the order of first use; Call.operation is the position.
# Sessions define them in this order, so a call's bytes are the same in all of them.
USED: list[str] = []
_PREFIXES: dict[str, bytes] = {}
_lock = threading.Lock()


class Operation:
    """One entry of the table."""

    __slots__ = ("entry", "meta_change", "name", "prefix", "returns", "writes", "writes_if")

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry
        self.name: str = entry["name"]
        self.returns: Returns = entry["returns"]
        self.writes = bool(entry.get("writes"))
        self.writes_if = "writes_if" in entry
        self.meta_change = bool(entry.get("meta_change"))
        # Call.operation, encoded; None until first use.
        self.prefix: bytes | None = None

    def intern(self) -> bytes:
        """Give the operation its number, if it has none, and return it encoded."""
        with _lock:
            if self.prefix is None:
                # Several may have one name, and a session takes so many names only.
                self.prefix = _PREFIXES.get(self.name)
            if self.prefix is None:
                self.prefix = _PREFIXES[self.name] = b"\x10" + varint(len(USED))
                USED.append(self.name)
            return self.prefix

    def __repr__(self) -> str:
        return f"<operation {self.name}>"


def _load() -> tuple[dict[str, Operation], str]:
    (folder,) = tensorcompute.v1.__path__
    table = json.loads((Path(folder) / "operations.json").read_bytes())
    return {entry["name"]: Operation(entry) for entry in table["operations"]}, table["digest"]


TABLE, DIGEST = _load()


def operation(name: str) -> Operation:
    """The operation of that name. Raises KeyError where the table has none."""
    return TABLE[name]
