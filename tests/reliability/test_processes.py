"""The processes of a house: each may be killed, stopped or crash again and again, and the others go on.

The front is a small one of the tests, but for one test; supervisor, fork server and engines are the real ones.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tclient as tc
from tests.support.serving import ServerProcess, child_named, children_of, is_alive, name_of, wait_until
from tests.support.small_front import MODULE, ask

OPTIONS = ("--engines", "2", "--drain-s", "2")
HANG_S = 2.0


def start(*options: str) -> ServerProcess:
    return ServerProcess(*OPTIONS, *options, child=MODULE)


@pytest.fixture(scope="module")
def house() -> Iterator[ServerProcess]:
    """A house of two engines, whose processes these tests may end, but not the whole."""
    with start() as server:
        yield server
        print(server.log())


@pytest.fixture(scope="module")
def impatient() -> Iterator[ServerProcess]:
    """Another one, which gives up soon."""
    with start("--hang-s", str(HANG_S)) as server:
        yield server
        print(server.log())


def serving(house: ServerProcess) -> dict[str, dict[str, Any]]:
    """The engines that serve, by id, as the front knows."""
    found = {}
    for event in ask(house.address)["events"]:
        if event["is"] == "serving":
            found[event["engine"]] = event
        else:
            found.pop(event["engine"], None)
    return found


def ends_of(house: ServerProcess, engine: str) -> list[dict[str, Any]]:
    """What the front was told of the ends of an engine."""
    events = ask(house.address)["events"]
    return [event for event in events if event["is"] == "ended" and event["engine"] == engine]


def successor(house: ServerProcess, engine: str, before: dict[str, Any]) -> dict[str, Any]:
    """The next run of an engine, once it serves."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        now = serving(house).get(engine)
        if now is not None and now["boot_id"] != before["boot_id"]:
            found.append(now)
        return bool(found)

    wait_until(is_there, 30.0, f"the next run of engine {engine}")
    return found[0]


def all_of(house: ServerProcess) -> list[int]:
    """The supervisor and all that it has started."""
    return [house.pid, *children_of(house.pid)]


def test_a_house_is_one_supervisor_with_children_only(house: ServerProcess) -> None:
    engines = serving(house)
    assert set(engines) == {"0", "1"}
    pids = {
        ask(house.address)["pid"],
        child_named(house.pid, "tserver-forks"),
        *(each["pid"] for each in engines.values()),
    }
    assert set(children_of(house.pid)) == pids
    assert child_named(house.pid, "tserver:0") == engines["0"]["pid"]
    assert [child for pid in pids for child in children_of(pid)] == []
    assert len({each["boot_id"] for each in engines.values()}) == 2
    assert [line for line in house.stdout if "listening" in line] == [f"listening on {house.address}"]
    said = ('"engine": "1"', '"message": "serving"')
    wait_until(lambda: any(all(one in line for one in said) for line in house.stderr), 5.0, "the log of engine 1")


def test_the_fork_server_has_one_thread(house: ServerProcess) -> None:
    assert len(list(Path(f"/proc/{child_named(house.pid, 'tserver-forks')}/task").iterdir())) == 1


@pytest.mark.parametrize("crash", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_an_engine_that_ends_has_a_successor_that_says_why(house: ServerProcess, crash: signal.Signals) -> None:
    _end_an_engine(house, crash, f"engine 0 was ended by {crash.name}")


def test_an_engine_that_hangs_is_ended_and_has_a_successor(impatient: ServerProcess) -> None:
    _end_an_engine(impatient, signal.SIGSTOP, "engine 0 hung: nothing of it has run for")


def _end_an_engine(house: ServerProcess, trouble: signal.Signals, why: str) -> None:
    before = serving(house)
    with tc.connect(before["1"]["endpoint"]):
        y = tc.ones(2)
        assert y.tolist() == [1, 1]
        with tc.connect(before["0"]["endpoint"]):
            x = tc.ones(3)
            assert x.tolist() == [1, 1, 1]
            os.kill(before["0"]["pid"], trouble)
            now = successor(house, "0", before["0"])
            with pytest.raises(tc.SessionLost, match=why):
                x.add_(1).tolist()
        assert (y + 1).tolist() == [2, 2]
    assert now["endpoint"] == before["0"]["endpoint"]
    assert why in ends_of(house, "0")[-1]["cause"]
    assert ends_of(house, "0")[-1]["boot_id"] == before["0"]["boot_id"]
    assert not is_alive(before["0"]["pid"])
    with tc.connect(now["endpoint"]):
        assert tc.ones(2).tolist() == [1, 1]


def test_a_front_that_ends_comes_again_alone(house: ServerProcess) -> None:
    _end_the_front(house, signal.SIGKILL, "the front was ended by SIGKILL")


def test_a_front_that_hangs_is_ended_and_comes_again_alone(impatient: ServerProcess) -> None:
    _end_the_front(impatient, signal.SIGSTOP, "the front hung: nothing of it has run for")


def _end_the_front(house: ServerProcess, trouble: signal.Signals, why: str) -> None:
    told, engines = ask(house.address), serving(house)
    with tc.connect(engines["1"]["endpoint"]):
        x = tc.ones(3)
        x.tolist()
        # An end of which the next front, too, is to know.
        os.kill(engines["0"]["pid"], signal.SIGKILL)
        now = successor(house, "0", engines["0"])
        os.kill(told["pid"], trouble)
        wait_until(lambda: not is_alive(told["pid"]), 20.0, "the end of the front")
        again = ask(house.address)
        assert again["pid"] != told["pid"]
        assert again["key"] == told["key"]
        assert why in again["previous_end"]
        assert serving(house) == {**engines, "0": now}
        assert engines["0"]["boot_id"] in {event["boot_id"] for event in ends_of(house, "0")}
        assert (x + 1).tolist() == [2, 2, 2]
    assert len([line for line in house.stdout if "listening" in line]) == 1


@pytest.mark.parametrize(
    ("which", "trouble"), [("house", signal.SIGKILL), ("impatient", signal.SIGSTOP)], ids=["ends", "hangs"]
)
def test_a_fork_server_comes_again_alone(which: str, trouble: signal.Signals, request: pytest.FixtureRequest) -> None:
    house: ServerProcess = request.getfixturevalue(which)
    engines, forks = serving(house), child_named(house.pid, "tserver-forks")
    os.kill(forks, trouble)
    wait_until(lambda: not is_alive(forks), 20.0, "the end of the fork server")
    ask(house.address, "launch", engine="late")
    wait_until(lambda: "late" in serving(house), 20.0, "an engine of the next fork server")
    assert child_named(house.pid, "tserver-forks") != forks
    now = serving(house)
    late = now.pop("late")
    assert now == engines
    ask(house.address, "end", engine="late", cause="nobody needs it")
    wait_until(lambda: not is_alive(late["pid"]), 10.0, "the end of an engine that is not needed")

    def ended_runs() -> list[dict[str, Any]]:
        """Of those that served: while there was no fork server the engine could not be started, and came again."""
        return [each for each in ends_of(house, "late") if each["boot_id"]]

    wait_until(lambda: bool(ended_runs()), 10.0, "the news of its end")
    [ended] = ended_runs()
    assert all(each["comes_again"] for each in ends_of(house, "late") if not each["boot_id"])
    assert (ended["cause"], ended["comes_again"]) == ("nobody needs it", False)
    assert ended["boot_id"] == late["boot_id"]


def test_an_engine_that_nobody_keeps_ends_once(house: ServerProcess) -> None:
    ask(house.address, "launch", engine="guest", is_kept=False)
    wait_until(lambda: "guest" in serving(house), 20.0, "the engine of a guest")
    os.kill(serving(house)["guest"]["pid"], signal.SIGKILL)
    wait_until(lambda: bool(ends_of(house, "guest")), 10.0, "the news of its end")
    [ended] = ends_of(house, "guest")
    assert (ended["cause"], ended["comes_again"]) == ("engine guest was ended by SIGKILL", False)
    ask(house.address, "launch", engine="guest", is_kept=False)
    wait_until(lambda: "guest" in serving(house), 20.0, "another engine of that name")
    ask(house.address, "end", engine="guest", cause="over")


def test_an_engine_that_cannot_begin_is_tried_more_and_more_seldom(house: ServerProcess) -> None:
    began = time.monotonic()
    ask(house.address, "launch", engine="bad", listen=house.address)
    wait_until(lambda: len(ends_of(house, "bad")) >= 4, 30.0, "attempts to start an engine")
    # 0, 0.25 and 0.5 s lie between them.
    assert time.monotonic() - began > 0.7
    for ended in ends_of(house, "bad"):
        assert f"cannot listen on --listen {house.address}" in ended["cause"]
        assert (ended["boot_id"], ended["comes_again"]) == ("", True)
    ask(house.address, "end", engine="bad", cause="enough")
    wait_until(lambda: not ends_of(house, "bad")[-1]["comes_again"], 10.0, "the end of it")
    assert set(serving(house)) >= {"0", "1"}


def test_torch_is_in_the_engines_and_where_they_are_forked_alone() -> None:
    with ServerProcess(*OPTIONS, cold=True) as house:
        has_torch = {
            name_of(pid): "libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in children_of(house.pid)
        }
        assert has_torch == {"tserver-front": False, "tserver-forks": True, "tserver:0": True, "tserver:1": True}
        assert "libtorch" not in Path(f"/proc/{house.pid}/maps").read_text()
        assert [line for line in house.stdout if "listening" in line] == [f"listening on {house.address}"]


def test_nothing_is_left_when_the_supervisor_is_killed() -> None:
    with start() as house:
        doomed = all_of(house)
        assert len(doomed) == 5
        house.signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, doomed)), 10.0, "the end of all with their supervisor")


def test_nothing_is_left_when_a_house_is_told_to_stop() -> None:
    with start() as house:
        doomed = all_of(house)
        with tc.connect(serving(house)["0"]["endpoint"]):
            assert tc.ones(1).tolist() == [1]
            assert house.terminate() == 0
        assert not any(map(is_alive, doomed))


def test_what_does_not_stop_is_ended_in_time() -> None:
    with start("--drain-s", "0.1") as house:
        doomed = all_of(house)
        os.kill(serving(house)["1"]["pid"], signal.SIGSTOP)
        began = time.monotonic()
        house.signal(signal.SIGTERM)
        house.wait()
        assert time.monotonic() - began < 8.0
        assert not any(map(is_alive, doomed))


def test_a_front_that_crashes_again_and_again_ends_the_house() -> None:
    with start() as house:
        doomed = all_of(house)
        for _ in range(3):
            pid = ask(house.address)["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not is_alive(pid), 10.0, "the end of the front")  # type: ignore[misc]
        assert house.wait() == 1
        assert not any(map(is_alive, doomed))


def test_a_front_that_never_comes_up_ends_the_house_with_its_code() -> None:
    assert start("--advertise", "never").wait(30.0) == 3
