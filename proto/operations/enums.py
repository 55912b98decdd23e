"""Writes the enums of the contract from its tables: what a .proto file says of dtypes is what both sides read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tensorcompute.tables.activations import ACTIVATIONS
from tensorcompute.tables.dtypes import DTYPES

CONTRACT = Path(__file__).resolve().parent.parent / "tensorcompute" / "v1"

_Member = tuple[int, str, str]  # number, name, comment


def _with_enum(text: str, enum: str, table: str, members: Iterable[_Member]) -> str:
    """The text of a .proto file with the members of one of its enums written anew."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", enum).upper()
    lines = [
        f"  // Written by operations.generate from tensorcompute/tables/{table}.",
        "",
        f"  {prefix}_UNSPECIFIED = 0;",
    ]
    for number, name, comment in members:
        lines += [f"  // {comment}."] if comment else []
        lines.append(f"  {prefix}_{name.upper()} = {number};")
    body = "\n".join(lines)
    written, count = re.subn(rf"^enum {enum} {{\n.*?^}}", f"enum {enum} {{\n{body}\n}}", text, flags=re.M | re.S)
    if count != 1:
        raise LookupError(f"there is no enum {enum}")
    return written


def files() -> dict[Path, str]:
    """The .proto files that have such enums: the text of each."""
    tensor = CONTRACT / "tensor.proto"
    dtypes = [(row.code, row.name, "") for row in DTYPES]
    models = CONTRACT / "model_service.proto"
    activations = [(row.code, row.name, row.formula) for row in ACTIVATIONS if row.code is not None]
    return {
        tensor: _with_enum(tensor.read_text(encoding="utf-8"), "DType", "dtypes.py", dtypes),
        models: _with_enum(models.read_text(encoding="utf-8"), "ActivationKind", "activations.py", activations),
    }
