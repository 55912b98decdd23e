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
from tclient._native import OperationFields
from tensorcompute.wire import packed
from tensorcompute.wire.varint import varint

# All operations that this process has used, in the order of first use; Call.operation is the position.
# Sessions define them in this order, so a call's bytes are the same in all of them.
USED: list[str] = []
_NUMBERS: dict[str, int] = {}
_lock = threading.Lock()
# Operations whose first data argument becomes a tensor, and where it is.
DATA_OPERATIONS = {"tensor": 0, "as_tensor": 0, "asarray": 0, "Tensor.new_tensor": 1}


# They change a tensor's part in autograd, and nothing else of it.
_OF_GRADIENTS = frozenset(("Tensor.requires_grad_", "Tensor.requires_grad.__set__", "Tensor.detach_", "detach_"))
# Afterwards a tensor may have a gradient that had none, or another one. Of the server's own operations all may do that,
# except for these.
_SETS_GRADIENTS = frozenset(("Tensor.backward", "autograd.backward", "Tensor.grad.__set__"))
_SETS_NO_GRADIENTS = frozenset(
    f"tc.{name}"
    for name in ("read", "numpy", "describe", "constructed", "network", "forward", "trunc_normal_", "standard_gamma")
)


class Operation(OperationFields):
    """One entry of the table."""

    __slots__ = ()

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry
        self.name: str = entry["name"]
        self.returns: Returns = entry["returns"]
        self.writes = bool(entry.get("writes"))
        self.writes_if = "writes_if" in entry
        # requires_grad alone is outdated by any write.
        self.meta_change = bool(entry.get("meta_change")) and self.name not in _OF_GRADIENTS
        self.sets_gradients = self.name in _SETS_GRADIENTS or (
            entry.get("kind", "builtin") == "builtin" and self.name not in _SETS_NO_GRADIENTS
        )
        # Which arguments may be tensors, where the results' shapes follow from the arguments; see _shapes.
        self.tensors = 0
        self.shape_rule = ""
        # Whether they follow from the kind or class of each argument, and the value of integers and the like.
        self.has_plain_key = False
        # Whether an argument is data that becomes a tensor.
        self.takes_data = self.name in DATA_OPERATIONS
        # A call with so many arguments at most, and no named one, returns a tensor, its first argument or nothing, and
        # what it changes does not depend on what the arguments are.
        self.plain_count = self._plain_count()
        # Call.operation, and encoded; None until first use.
        self.number: int | None = None
        self.prefix: bytes | None = None
        # First words of packed calls, by the words that the arguments take and the context.
        self.heads: dict[int, int] = {}

    def _plain_count(self) -> int:
        if self.takes_data or self.returns not in ("tensor", "self", "none") or self.name == "Tensor.data.__set__":
            return 0
        condition = self.entry.get("writes_if")
        if condition is None:
            return packed.MAX_COUNT
        # Up to the flag that says whether it writes.
        position: int = self.entry.get("positions", {}).get(condition["flag"], packed.MAX_COUNT)
        return 0 if condition["default"] else position

    def intern(self) -> bytes:
        """Give the operation its number, if it has none, and return it encoded."""
        with _lock:
            if self.prefix is None:
                # Several may have one name, and a session takes so many names only.
                number = _NUMBERS.get(self.name)
                if number is None:
                    number = _NUMBERS[self.name] = len(USED)
                    USED.append(self.name)
                self.number = number
                self.prefix = b"\x10" + varint(number)
            return self.prefix

    def head(self, count: int, context: int) -> int:
        """The first word of a packed call."""
        key = count | context << 8
        found = self.heads.get(key)
        if found is None:
            if self.number is None:
                self.intern()
            found = self.heads[key] = packed.head(self.number or 0, count, context)
        return found

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
