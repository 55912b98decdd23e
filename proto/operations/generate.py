"""Writes the table of operations: what may be called, what it returns, what it changes.

python -m operations.generate            writes tensorcompute/v1/operations.json, operations_signatures.json,
                                         operations_shapes.json and torch_modules.json, the type stubs of the
                                         client, and the enums of the contract that are tables
python -m operations.generate --check    fails if they are not current
python -m operations.generate --report   says what torch has, what is in, what is left out and why
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from operations import enums, extras, left_out, modules, pyi, reviewed, schemas, shapes, stubs, surface, texts
from operations.surface import Candidate

OUTPUT = Path(__file__).resolve().parent.parent / "tensorcompute" / "v1"
TABLE = OUTPUT / "operations.json"
SIGNATURES = OUTPUT / "operations_signatures.json"
SHAPES = OUTPUT / "operations_shapes.json"
MODULES = OUTPUT / "torch_modules.json"

Entry = dict[str, Any]


@cache
def _left_out_targets() -> dict[Any, str]:
    """The callables that are left out, so that no second name lets one in."""
    found = {name: surface.lookup(name) for name in left_out.LEFT_OUT if not name.endswith("__get__")}
    return {c.target: left_out.LEFT_OUT[name] for name, c in found.items() if c is not None}


def reason_to_leave_out(candidate: Candidate) -> str | None:
    """Why the table leaves a candidate out, or None for one that it has."""
    if surface.is_private(candidate.leaf):
        return "private"
    return left_out.reason_to_leave_out(candidate.name) or _left_out_targets().get(candidate.target)


def candidates() -> list[Candidate]:
    """Everything that is let in, by name."""
    found: dict[str, Candidate] = {}
    for candidate in [*surface.overridable(), *surface.in_place_functions()]:
        if reason_to_leave_out(candidate) is None:
            found[candidate.name] = candidate
    for name in extras.EXTRAS:
        extra = surface.lookup(name)
        if extra is not None:
            found[name] = extra
    return [found[name] for name in sorted(found)]


def _named_tuple(name: str) -> dict[str, Any]:
    kind = getattr(torch.return_types, name)
    return {"fields": list(kind.__match_args__), "type": f"torch.return_types.{name}"}


def _from_annotation(annotation: str) -> Any:
    if annotation in ("Tensor", "Self"):
        return "tensor"
    if annotation == "None":
        return "none"
    if annotation.startswith("torch.return_types."):
        return _named_tuple(annotation.removeprefix("torch.return_types."))
    if annotation.startswith("tuple[") and set(annotation[6:-1].split(", ")) == {"Tensor"}:
        return {"count": annotation.count("Tensor")}
    return "wait"


def _from_schemas(candidate: Candidate) -> Any:
    kinds = schemas.returned(candidate.prefix, candidate.leaf)
    if kinds == {("Tensor",)}:
        return "tensor"
    if len(kinds) == 1 and set(*kinds) == {"Tensor"}:
        name = candidate.prefix.replace(".", "_") + candidate.leaf
        return _named_tuple(name) if hasattr(torch.return_types, name) else {"count": len(*kinds)}
    return "wait"


def returns(candidate: Candidate) -> tuple[Any, list[dict[str, Any]]]:
    """What an operation surely returns, and its overloads if they differ in that."""
    name = candidate.name
    if name in reviewed.RETURNS:
        known = reviewed.RETURNS[name]
        return ("by_signature", known) if isinstance(known, list) else (known, [])
    if candidate.leaf.endswith("_") and not candidate.leaf.endswith("__") and candidate.kind != "property":
        return "self", []
    overloads = stubs.overloads(name)
    if not overloads:
        return _from_schemas(candidate), []
    kinds = [_from_annotation(overload.returns) for overload in overloads]
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0], []
    return "by_signature", [
        {"params": [[p.name, p.type, p.required, p.keyword_only] for p in overload.params], "returns": kind}
        for overload, kind in zip(overloads, kinds, strict=True)
    ]


def _positions(candidate: Candidate) -> list[str]:
    """The names of the positional parameters, where torch tells."""
    overloads = stubs.overloads(candidate.name)
    if overloads:
        return [param.name for param in overloads[0].params if not param.keyword_only]
    try:
        return list(inspect.signature(candidate.target).parameters)
    except (TypeError, ValueError):
        found = schemas.schemas(candidate.prefix, candidate.leaf)
        return [argument.name for argument in found[0].arguments] if found else []


def effects(candidate: Candidate) -> Entry:
    """The columns of an entry that say what the operation changes."""
    name, prefix, leaf = candidate.name, candidate.prefix, candidate.leaf
    operator_prefix = "" if prefix in ("Tensor.", "nn.functional.") else prefix
    no_operator = candidate.kind in ("property", "setter") or prefix in ("Generator.", "nn.init.", "nn.utils.")
    entry: Entry = {}
    written = reviewed.WRITES.get(name)
    if written is None:
        written = [] if no_operator else schemas.written(operator_prefix, leaf)
        returned, _ = returns(candidate)
        if returned == "self" and prefix != "Generator.":
            written = ["self"]
    if name in reviewed.WRITES_IF:
        written = []
    if written:
        entry["writes"] = written
    condition = reviewed.WRITES_IF.get(name)
    positions = _positions(candidate)
    if condition is None and "inplace" in positions and "writes" not in entry:
        condition = {"flag": "inplace", "default": False, "writes": ["self"]}
    if condition is not None:
        entry["writes_if"] = condition
    named = {
        *entry.get("writes", []),
        *(condition["writes"] if condition else []),
        *([condition["flag"]] if condition else []),
    }
    if named - {"self"}:
        entry["positions"] = {parameter: positions.index(parameter) for parameter in sorted(named - {"self"})}
    if name in reviewed.RANDOM or (not no_operator and schemas.draws(operator_prefix, leaf)):
        entry["random"] = True
    if name in reviewed.STATE:
        entry["state"] = True
    if name in reviewed.META_CHANGE:
        entry["meta_change"] = True
    if name in reviewed.UNINITIALIZED:
        entry["uninitialized"] = True
    geometry = None if no_operator or prefix == "nn.functional." else schemas.geometry(operator_prefix, leaf)
    if geometry is not None:
        entry["geometry"] = geometry
    if candidate.target in surface.device_constructors():
        entry["factory"] = True
    return entry


def build() -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The table and the signatures."""
    entries: list[Entry] = []
    found: dict[str, list[str]] = {}
    for candidate in candidates():
        kind, overloads = returns(candidate)
        entry: Entry = {"name": candidate.name, "kind": candidate.kind, "returns": kind}
        if overloads:
            entry["overloads"] = overloads
        entries.append({**entry, **effects(candidate)})
        signatures = texts.signatures(candidate, kind)
        if signatures:
            found[candidate.name] = signatures
    entries.extend({"name": name, "kind": "builtin", **builtin} for name, builtin in extras.BUILTIN.items())
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    version = torch.__version__.partition("+")[0]
    return {"torch_version": version, "digest": digest, "operations": entries}, found


def render(table: dict[str, Any], signatures: dict[str, list[str]]) -> tuple[str, str]:
    """The text of both files: one entry per line, so that a difference reads well."""
    note = "Generated by operations.generate from torch; not edited by hand."
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in table["operations"])
    head = json.dumps({"note": note, "torch_version": table["torch_version"], "digest": table["digest"]})[:-1]
    signature_lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(text)}" for name, text in signatures.items())
    return f'{head}, "operations": [\n{lines}\n]}}\n', f"{{\n{signature_lines}\n}}\n"


def render_shapes() -> str:
    """What `help` says of shapes: the names of the operations by the line that holds for them."""
    found: dict[str, list[str]] = {}
    for candidate in candidates():
        line = shapes.text(candidate)
        if line:
            found.setdefault(line, []).append(candidate.name)
    lines = ",\n".join(
        f"{json.dumps(line, ensure_ascii=False)}: {json.dumps(' '.join(names))}" for line, names in found.items()
    )
    return f"{{\n{lines}\n}}\n"


def files() -> dict[Path, str]:
    """Everything that is generated: the text of each file."""
    table, signatures = build()
    rendered = zip((TABLE, SIGNATURES), render(table, signatures), strict=True)
    return {
        **dict(rendered),
        SHAPES: render_shapes(),
        MODULES: modules.text(),
        **pyi.files(table, signatures),
        **enums.files(),
    }


@dataclass(frozen=True)
class Counts:
    """What docs/torch.md states."""

    overridable: int
    factories: int
    left: dict[str, str]  # name -> class of reason

    @property
    def total(self) -> int:
        """Everything that is counted: overridable paths that are not private, and the factories that torch omits."""
        return self.overridable + self.factories

    @property
    def left_out(self) -> int:
        """How many of them the table leaves out."""
        return len(self.left)


def counts() -> Counts:
    """Counts what torch has and what is left out."""
    listed = [candidate for candidate in surface.overridable() if not surface.is_private(candidate.leaf)]
    reasons = {candidate.name: reason_to_leave_out(candidate) for candidate in listed}
    left = {name: reason for name, reason in reasons.items() if reason is not None} | left_out.FACTORIES_LEFT_OUT
    factories = {*extras.FACTORIES, *left_out.FACTORIES_LEFT_OUT} - set(reasons)
    return Counts(len(listed), len(factories), left)


def report() -> str:
    """The counts in words, and the names that are left out by reason."""
    found = counts()
    lines = [
        f"torch {torch.__version__}: {found.overridable} overridable functions, methods and properties, "
        f"{found.factories} factories",
        f"in the table: {len(candidates()) + len(extras.BUILTIN)} operations "
        "(with in-place functions, setters, built-in ones)",
        f"left out: {found.left_out} of {found.total} ({100 * found.left_out / found.total:.1f} %)",
    ]
    for reason, count in Counter(found.left.values()).most_common():
        names = " ".join(sorted(name for name, why in found.left.items() if why == reason))
        lines.append(f"  {count:3} {reason}: {left_out.REASONS[reason]}\n      {names}")
    return "\n".join(lines)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Writes the table of operations from torch.")
    parser.add_argument("--check", action="store_true", help="fail if the files are not current")
    parser.add_argument("--report", action="store_true", help="print what is in and what is left out")
    arguments = parser.parse_args()
    if arguments.report:
        print(report())
        return 0
    contents = files()
    stale = [
        path.name for path, text in contents.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if arguments.check:
        if stale:
            print(f"stale: {', '.join(stale)}; run python -m operations.generate", file=sys.stderr)
        return 1 if stale else 0
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
