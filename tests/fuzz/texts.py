"""Calls as one reads them, and as a file that they can be played from again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from tensorcompute.v1 import tensor_pb2 as pb
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


def name_of(call: pb.Call) -> str:
    """What a call calls; between two sequences stands one that calls nothing."""
    return NAMES[call.operation] if call.operation < len(NAMES) else "(a new session)"


def call_text(call: pb.Call) -> str:
    """One line for a call."""
    args = [_value(value) for value in call.args] + [f"{entry.name}={_value(entry.value)}" for entry in call.kwargs]
    freed = f"free {', '.join(f'%{one}' for one in call.frees)}; " if call.frees else ""
    result = f"%{call.id} = " if call.id else ""
    context = f"  in context {call.context}" if call.context else ""
    return f"{freed}{result}{name_of(call)}({', '.join(args)}){context}"


def save(path: Path, what: str, calls: Sequence[pb.Call]) -> None:
    """Write calls to a file, with the names of their operations."""
    entries = [{"name": name_of(call), "call": MessageToDict(call)} for call in calls]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"finding": what, "calls": entries}, indent=1), encoding="utf-8")


def load(path: Path) -> list[pb.Call]:
    """The calls of a file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    calls = []
    for entry in content["calls"]:
        call = ParseDict(entry["call"], pb.Call())
        call.operation = NAMES.index(entry["name"]) if entry["name"] in NAMES else len(NAMES)
        calls.append(call)
    return calls
