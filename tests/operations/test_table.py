"""The generated table: it is current, small, well formed, and says of everything that is left out why."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from operations import extras, generate, left_out, surface

from tests.operations.calls import Entry, table, targets
from tests.support.serving import ROOT

_KEYS = {
    *("name", "kind", "returns", "overloads", "writes", "writes_if", "positions"),
    *("random", "state", "meta_change", "uninitialized", "factory", "geometry"),
}
_SURE = {"tensor", "self", "none", "object", "wait"}


def _is_returns(value: Any) -> bool:
    if isinstance(value, str):
        return value in _SURE
    if set(value) == {"count"}:
        return isinstance(value["count"], int) and value["count"] > 0
    return set(value) == {"fields", "type"} and value["type"].startswith("torch.return_types.")


def test_the_committed_table_is_what_torch_gives_now() -> None:
    texts = generate.render(*generate.build())
    committed = (generate.TABLE.read_text(encoding="utf-8"), generate.SIGNATURES.read_text(encoding="utf-8"))
    assert committed == texts, "stale: run python -m operations.generate"


def test_the_table_is_small_enough_to_be_read_at_import() -> None:
    assert generate.TABLE.stat().st_size < 700_000


def _check_entry(entry: Entry) -> None:
    assert set(entry) <= _KEYS
    assert entry["kind"] in {"function", "method", "property", "setter", "builtin"}
    if entry["returns"] != "by_signature":
        assert _is_returns(entry["returns"])
        assert "overloads" not in entry
    for overload in entry.get("overloads", []):
        assert _is_returns(overload["returns"])
        assert all(len(param) == 4 for param in overload["params"])
    named = {*entry.get("writes", []), *entry.get("writes_if", {}).get("writes", [])} - {"self"}
    assert entry["kind"] == "builtin" or named <= set(entry.get("positions", {}))


def test_every_entry_is_well_formed() -> None:
    for entry in table().values():
        _check_entry(entry)


def test_what_lays_a_view_where_the_caller_says_is_marked() -> None:
    marked = {name: entry["geometry"] for name, entry in table().items() if "geometry" in entry}
    by_strides = {name for name, kind in marked.items() if kind == "strides"}
    laid = {name for name in table() if "strided" in name}
    assert by_strides == laid
    assert {"Tensor.expand", "Tensor.unfold", "Tensor.view", "narrow", "reshape"} <= set(marked) - by_strides


def test_names_are_unique_and_in_order() -> None:
    names = [e["name"] for e in json.loads(generate.TABLE.read_text(encoding="utf-8"))["operations"]]
    torch_names = [name for name in names if not name.startswith("tc.")]
    assert torch_names == sorted(set(torch_names))
    assert len(set(names)) == len(names)


def test_this_torch_has_every_operation() -> None:
    assert set(targets()) == {name for name in table() if not name.startswith("tc.")}


def test_every_overridable_function_is_in_the_table_or_left_out_with_a_reason() -> None:
    for candidate in surface.overridable():
        reason = generate.reason_to_leave_out(candidate)
        known = candidate.name in extras.PRIVATE_BUT_KNOWN
        assert (candidate.name in table()) == (reason is None or known), candidate.name
        assert reason is None or reason in left_out.REASONS


def test_nothing_new_waits_for_a_review() -> None:
    unreviewed = [c.name for c in surface.overridable() if generate.reason_to_leave_out(c) == "suspect"]
    assert unreviewed == []


def test_the_list_of_what_is_left_out_has_no_stale_names() -> None:
    stale = [name for name in left_out.LEFT_OUT if surface.lookup(name) is None]
    assert stale == []


def test_less_than_eight_percent_is_left_out() -> None:
    counts = generate.counts()
    assert counts.left_out / counts.total < 0.08


def test_the_report_states_the_counts_and_every_name_that_is_left_out() -> None:
    text = generate.report()
    assert str(generate.counts().total) in text
    for name in generate.counts().left:
        assert name in text.split(), name


def test_the_page_on_torch_states_the_counts_and_names_all_that_is_left_out() -> None:
    counts, text = generate.counts(), (ROOT / "docs" / "torch.md").read_text(encoding="utf-8")
    served = counts.total - counts.left_out
    for stated in (
        f"Of the {counts.overridable} functions, methods and properties",
        f"and {counts.factories} factories, {served} are served and {counts.left_out} (",
        f"has {len(table())} entries",
    ):
        assert stated in " ".join(text.split())
    rows = re.findall(r"^- (.*?) \((\d+)\): (.*)$", text, re.M)
    told = {name: reason for reason, _, names in rows for name in names.split("`")[1::2]}
    assert told == {name: left_out.REASONS[reason] for name, reason in counts.left.items()}
    assert all(int(count) == names.count("`") / 2 for _, count, names in rows)
    share = f"It serves {100 * served // counts.total} % of what torch"
    assert share in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", extras.FACTORIES)
def test_a_factory_without_a_device_is_known_to_go_to_the_default_device(name: str) -> None:
    assert name in table()
    like = name.endswith("_like") or name.startswith("Tensor.") or name in {"complex", "polar", "vander", "from_numpy"}
    assert bool(table()[name].get("factory")) == (not like and name != "normal")


def test_signatures_are_there_for_nearly_everything() -> None:
    signatures = json.loads(generate.SIGNATURES.read_text(encoding="utf-8"))
    callables = [name for name, entry in table().items() if entry["kind"] in {"function", "method"}]
    missing = [name for name in callables if name not in signatures]
    assert len(missing) < 0.02 * len(callables), missing


def test_a_signature_reads_like_torchs_own_stub() -> None:
    signatures = json.loads(generate.SIGNATURES.read_text(encoding="utf-8"))
    assert "(input: Tensor, *, out: Tensor | None = None) -> Tensor" in signatures["max"]
    assert signatures["Tensor.size"][0].startswith("(self")
