"""What the directory of a cluster knows and tells, and what a front's host makes of it. Time is given."""

from __future__ import annotations

from typing import Any

import pytest

from tserver.cluster.known import SILENT_S, Known, Message
from tserver.cluster.view import View


def serving(engine: str, run: int = 0, node: str = "a") -> Message:
    """What an engine says of a run of it."""
    boot_id = f"{engine}{run:015x}"
    where = {"internal": f"{node}:1", "endpoint": f"{node}:2", "device": "cpu", "node": node, "pid": 1}
    return {"is": "serving", "engine": engine, "boot_id": boot_id, **where}


def ended(engine: str, run: int = 0, cause: str = "a fault", *, comes_again: bool = True) -> Message:
    """What is told of a run that is over."""
    boot_id = serving(engine, run)["boot_id"]
    return {"is": "ended", "engine": engine, "boot_id": boot_id, "cause": cause, "comes_again": comes_again}


def kinds(messages: list[Message]) -> list[tuple[Any, ...]]:
    """Messages in short."""
    return [(message["is"], message["engine"], message.get("cause", "")) for message in messages]


@pytest.fixture
def known() -> Known:
    """A directory that knows two engines on different nodes."""
    known = Known()
    known.serving(serving("0"), now=0.0)
    known.serving(serving("1", node="b"), now=0.0)
    return known


def test_a_watcher_is_told_all_at_first_and_then_what_is_new(known: Known) -> None:
    first = known.since("", 0)
    assert first.is_all
    assert kinds(first.messages) == [("serving", "0", ""), ("serving", "1", "")]
    assert known.since(first.run, first.version).messages == []
    known.ended(ended("0"))
    news = known.since(first.run, first.version)
    assert not news.is_all
    assert kinds(news.messages) == [("ended", "0", "a fault")]


def test_a_watcher_of_another_run_or_that_has_slept_long_is_told_all(known: Known) -> None:
    assert known.since("another run", known.version).is_all
    known.version += 5000
    assert known.since(known.run, 1).is_all


def test_an_engine_that_goes_on_is_told_of_once(known: Known) -> None:
    version = known.version
    assert known.beat("0", serving("0")["boot_id"], now=1.0)
    known.serving(serving("0"), now=2.0)
    assert known.version == version


def test_an_engine_that_falls_silent_is_gone_until_it_is_heard_of_again(known: Known) -> None:
    boot_id = serving("0")["boot_id"]
    assert known.beat("0", boot_id, now=SILENT_S)
    before = known.since("", 0)
    known.silence(now=SILENT_S + 1)
    assert kinds(known.since(before.run, before.version).messages) == [("ended", "1", "its host is gone")]
    assert known.last_end("1") == "its host is gone"
    assert not known.beat("1", serving("1")["boot_id"], now=SILENT_S + 2)
    known.serving(serving("1", node="b"), now=SILENT_S + 2)
    assert kinds(known.since(before.run, before.version).messages)[1:] == [("serving", "1", "")]


def test_an_engine_that_serves_elsewhere_has_left_its_host(known: Known) -> None:
    before = known.since("", 0)
    known.serving(serving("0", run=1, node="b"), now=1.0)
    news = known.since(before.run, before.version)
    assert kinds(news.messages) == [("ended", "0", "its host is gone"), ("serving", "0", "")]


def test_engines_of_a_drained_node_and_those_that_come_there_take_no_sessions(known: Known) -> None:
    before = known.since("", 0)
    assert known.drain("a", "its host is drained") == ["0"]
    known.serving(serving("2"), now=1.0)
    assert kinds(known.since(before.run, before.version).messages) == [
        ("draining", "0", "its host is drained"),
        ("serving", "2", ""),
        ("draining", "2", "its host is drained"),
    ]
    assert ("draining", "0", "its host is drained") in kinds(known.since("", 0).messages)


def test_a_run_that_never_served_is_told_of_and_not_remembered(known: Known) -> None:
    before = known.since("", 0)
    known.ended({**ended("5", cause="no port"), "boot_id": ""})
    assert kinds(known.since(before.run, before.version).messages) == [("ended", "5", "no port")]
    assert "5" not in {message["engine"] for message in known.since("", 0).messages}


def test_a_view_tells_the_front_what_is_new_and_a_new_front_all(known: Known) -> None:
    view = View()
    assert kinds(view.take(known.since("", 0), now=0.0)) == [("serving", "0", ""), ("serving", "1", "")]
    known.ended(ended("0"))
    assert kinds(view.take(known.since(view.run, view.version), now=1.0)) == [("ended", "0", "a fault")]
    assert kinds(view.all()) == [("ended", "0", "a fault"), ("serving", "1", "")]


def test_a_directory_that_begins_anew_costs_no_engine(known: Known) -> None:
    view = View()
    view.take(known.since("", 0), now=0.0)
    successor = Known()
    assert view.take(successor.since(view.run, view.version), now=1.0) == []
    successor.serving(serving("0"), now=2.0)
    assert view.take(successor.since(view.run, view.version), now=2.0) == []
    # The other one has ended while there was no directory.
    late = view.take(successor.since(view.run, view.version), now=60.0)
    assert kinds(late) == [("ended", "1", "its host is gone")]
    assert view.take(successor.since(view.run, view.version), now=61.0) == []


def test_an_engine_that_is_back_after_it_was_thought_gone_is_told_of(known: Known) -> None:
    view = View()
    view.take(known.since("", 0), now=0.0)
    known.silence(now=SILENT_S + 1)
    assert len(view.take(known.since(view.run, view.version), now=5.0)) == 2
    known.serving(serving("0"), now=6.0)
    assert kinds(view.take(known.since(view.run, view.version), now=6.0)) == [("serving", "0", "")]
    known.ended(ended("0"))
    assert kinds(view.take(known.since(view.run, view.version), now=7.0)) == [("ended", "0", "a fault")]


def test_a_front_leads_that_did_before_or_else_the_first_of_those_that_were_heard_of(known: Known) -> None:
    known.front("b", "", "b:1", 0.0, leads=False)
    known.front("c", "", "c:1", 0.0, leads=False)
    assert known.leader == ""
    known.silence(3.0)
    assert known.leader == "b"
    successor = Known()
    successor.front("a", "", "a:1", 0.0, leads=False)
    successor.front("b", "", "b:1", 1.0, leads=True)
    assert successor.leader == "b"


def test_another_front_leads_when_the_one_that_did_is_silent_or_its_node_is_drained(known: Known) -> None:
    for node in "abc":
        known.front(node, "", f"{node}:1", 0.0, leads=node == "a")
    view = View()
    view.take(known.since("", 0), now=0.0)
    assert (view.leader, view.leader_at) == ("a", "a:1")
    for node in "bc":
        known.front(node, "", f"{node}:1", SILENT_S, leads=False)
    known.silence(SILENT_S + 1)
    assert known.fronts.keys() == {"b", "c"}
    view.take(known.since(view.run, view.version), now=5.0)
    assert (view.leader, view.leader_at) == ("b", "b:1")
    known.drain("b", "its host is drained")
    known.silence(SILENT_S + 1)
    assert known.leader == "c"


def test_what_an_engine_has_to_do_is_told_once_to_each_watcher(known: Known) -> None:
    said = {"is": "told", "engine": "0", "boot_id": serving("0")["boot_id"], "said": {"sessions": 3}}
    view = View()
    view.take(known.since("", 0), now=0.0)

    def new() -> list[Message]:
        return view.take(known.since(view.run, view.version, view.told_version), now=1.0)

    known.told([said, {**said, "engine": "not there"}])
    assert new() == [said]
    known.told([said])
    assert new() == []
    known.told([{**said, "said": {"sessions": 4}}])
    assert new() == [{**said, "said": {"sessions": 4}}]
    # A directory that begins anew counts anew.
    successor = Known()
    successor.serving(serving("0"), now=2.0)
    successor.told([said])
    assert view.take(successor.since(view.run, view.version, view.told_version), now=2.0) == [said]
    known.ended(ended("0"))
    assert known.since("", 0).told == []
