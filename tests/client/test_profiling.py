"""`session.profile()`: what it notes is what was run, in a trace that viewers open; without it nothing is noted."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def events(profile: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in profile.trace()["traceEvents"] if event.get("cat") == kind]


def test_calls_turns_and_waits_are_in_the_trace(tc: ModuleType, tmp_path: Path) -> None:
    session = tc._session.current.current()
    tc.ones(2).exp()  # not in it
    with session.profile() as profile:
        x = tc.ones(64, 64)
        for _ in range(10):
            x = x @ x
        assert x.shape == (64, 64)
        total = x.sum().item()
    assert total == total
    assert tc.ones(3).cos().sum().item() > 0  # neither is this
    names = [event["name"] for event in events(profile, "call")]
    assert names.count("Tensor.__matmul__") == 10
    assert not {"Tensor.exp", "Tensor.cos"} & set(names)
    assert any(Path(__file__).name in event["name"] for event in events(profile, "wait"))
    turns = [(event["ts"], event["ts"] + event["dur"]) for event in events(profile, "slice")]
    for event in events(profile, "call"):
        middle = event["ts"] + event["dur"] / 2
        assert any(began <= middle <= ended for began, ended in turns), "each call is within a turn"
    # One clock: what ran is between the beginning and the end here.
    length = (profile._ended - profile._began) * 1e6
    assert all(-2e5 < event["ts"] < length + 2e5 for event in events(profile, "call"))
    profile.save(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert all(event["ph"] in "XM" and event["pid"] in (1, 2) for event in trace["traceEvents"])
    assert "Tensor.__matmul__" in repr(profile)


def test_values_and_errors_are_what_they_are_without_it(tc: ModuleType) -> None:
    session = tc._session.current.current()

    def program() -> list[Any]:
        tc.manual_seed(1)
        x = tc.rand(5, requires_grad=True)
        (x * 2).sum().backward()
        found: list[Any] = [x.grad.tolist(), tc.randn(3).tolist(), tc.compile(lambda y: y.sin() + 1)(x).tolist()]
        with pytest.raises(RuntimeError) as told:
            print(tc.ones(2, 3) @ tc.ones(2, 3))
        return [*found, str(told.value)]

    plain = program()
    with session.profile():
        noted = program()
    assert noted == plain
    assert program() == plain


def test_one_at_a_time_and_others_notice_nothing(tc: ModuleType) -> None:
    session = tc._session.current.current()
    with session.profile() as profile, tc.connect(session.address) as other, other.use():
        assert tc.ones(3).tanh().sum().item() > 0
    assert "Tensor.tanh" not in repr(profile)
    with session.profile() as again:
        pass
    assert events(again, "call") != []  # the comparison of the clocks
    assert "has not ended" in repr(session.profile())


def test_much_is_bounded_and_says_so(tc: ModuleType) -> None:
    session = tc._session.current.current()
    with session.profile() as profile:
        x = tc.ones(1)
        for _ in range(3000):
            x = x + 1
        assert x.item() == 3001
    assert sum(event["name"] == "Tensor.__add__" for event in events(profile, "call")) == 3000
    assert profile.trace()["otherData"]["missing"] == 0


def test_a_call_that_is_run_in_pieces_is_in_it_with_each(tc: ModuleType) -> None:
    session = tc._session.current.current()

    @tc.compile  # type: ignore[untyped-decorator]
    def long(x: Any) -> Any:
        for _ in range(300):
            x = (x @ x).tanh()
        return x

    x = tc.rand(96, 96)
    long(x).sum().item()
    with session.profile() as profile:
        long(x).sum().item()
    ran = sum(event["dur"] for event in events(profile, "call") if event["name"].startswith("tc.run"))
    turns = sum(event["dur"] for event in events(profile, "slice"))
    assert len(events(profile, "slice")) > 2
    assert ran > turns / 2
