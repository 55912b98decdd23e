"""Calls as one reads them, and as a file that they can be played from again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire import packed
from tests.fuzz import words
from tests.fuzz.draw import NAMES
from tests.support.values import TORCH_DTYPES, tensor_of

_SHOWN = 24


def _value(value: pb.Value) -> str:
    kind = value.WhichOneof("kind")
    match kind:
        case "result":
            return f"%{value.result}"
        case "ref":
            return f"%{value.ref.id}.{'.'.join(map(str, value.ref.path))}"
        case "list" | "tuple":
            return f"[{', '.join(map(_value, getattr(value, kind).items))}]"
        case "size":
            return str(tuple(value.size.dims))
        case "mapping":
            return "{" + ", ".join(f"{entry.name}: {_value(entry.value)}" for entry in value.mapping.entries) + "}"
        case "array":
            tensor = tensor_of(value.array.data)
            elements = f" = {tensor.tolist()}" if tensor.numel() <= _SHOWN else ""
            return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}{elements}"
        case "dtype":
            return str(TORCH_DTYPES[value.dtype])
        case "none" | "ellipsis" | None:
            return str(kind)
        case "slice":
            return f"slice({', '.join(_value(getattr(value.slice, part)) for part in ('start', 'stop', 'step'))})"
        case "program":
            return f"program({'; '.join(map(call_text, value.program.calls))})"
    return repr(getattr(value, kind)).strip()


def last_name(batch: pb.Batch) -> str:
    """What the last call of a batch calls."""
    return _name(calls[-1]) if (calls := words.calls_of(batch)) else "nothing"


def _name(call: pb.Call) -> str:
    return NAMES[call.operation] if call.operation < len(NAMES) else f"(operation {call.operation})"


def call_text(call: pb.Call) -> str:
    """One line for a call."""
    args = [_value(value) for value in call.args] + [f"{entry.name}={_value(entry.value)}" for entry in call.kwargs]
    freed = f"free {', '.join(f'%{one}' for one in call.frees)}; " if call.frees else ""
    result = f"%{call.id} = " if call.id else ""
    context = f"  in context {call.context}" if call.context else ""
    return f"{freed}{result}{_name(call)}({', '.join(args)}){context}"


def batch_text(batch: pb.Batch) -> str:
    """One line for a batch. Between two sequences stands one of nothing."""
    calls = "; ".join(map(call_text, words.calls_of(batch))) or "(a new session)"
    if not batch.packed:
        return calls
    broken = "" if words.keeps_rules(batch) else "; and then the rules are broken"
    return f"words {batch.packed.hex(' ', 8)[: 18 * _SHOWN]}: {calls}{broken}"


def save(path: Path, what: str, batches: Sequence[pb.Batch]) -> None:
    """Write batches to a file, with the names of the operations that their calls have as numbers."""
    numbers = {call.operation for batch in batches for call in (*batch.calls, *words.calls_of(batch))}
    names = {number: NAMES[number] for number in sorted(numbers) if number < len(NAMES)}
    content = {"finding": what, "names": names, "batches": [MessageToDict(batch) for batch in batches]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def load(path: Path) -> list[pb.Batch]:
    """The batches of a file, for the numbers that the operations have today."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    batches = [ParseDict(entry, pb.Batch()) for entry in content["batches"]]
    numbers = {int(number): NAMES.index(name) for number, name in content["names"].items() if name in NAMES}
    if any(number != today for number, today in numbers.items()):
        for batch in batches:
            _renumber(batch, numbers)
    return batches


def _renumber(batch: pb.Batch, numbers: dict[int, int]) -> None:
    for call in batch.calls:
        call.operation = numbers.get(call.operation, len(NAMES))
    if batch.packed and words.keeps_rules(batch):
        changed: list[int] = []
        for piece, kind in packed.by_call(packed.from_bytes(batch.packed)):
            if kind == packed.CALL:
                at = packed.beginning(piece)
                number = piece[at] >> packed.OPERATION_SHIFT & packed.MAX_OPERATION
                piece[at] += (numbers.get(number, len(NAMES)) - number) << packed.OPERATION_SHIFT
            changed += piece
        batch.packed = packed.to_bytes(changed)
