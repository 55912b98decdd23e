"""What actors do, without Ray: they keep a child going, and speak for it with a directory that may be away."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import small_child
from tests.support.serving import is_alive, server_environment, wait_until
from tserver.cluster import process
from tserver.cluster.keepers import Away, EngineKeeper, FrontKeeper
from tserver.cluster.known import Known, Message, News
from tserver.cluster.spec import Spec
from tserver.config import Config

TIMEOUT_S = 20.0


class Here:
    """A directory in this process, which can be away."""

    def __init__(self) -> None:
        self.known = Known()
        self.leader = "node"
        self.is_away = False

    def _there(self) -> Known:
        if self.is_away:
            raise Away("it is away")
        return self.known

    def serving(self, message: Message) -> None:
        self._there().serving(message, time.monotonic())

    def beat(self, engine: str, boot_id: str) -> bool:
        return self._there().beat(engine, boot_id, time.monotonic())

    def ended(self, message: Message) -> None:
        self._there().ended(message)

    def last_end(self, engine: str) -> str:
        return self._there().last_end(engine)

    def front(self, node: str, address: str, internal: str, *, leads: bool, told: list[Message]) -> None:
        # None is waited for that might lead already.
        self._there().front(node, address, internal, time.monotonic(), leads=leads or node == self.leader)
        self.known.told(told)

    def left(self, engine: str) -> None:
        self._there().left.add(engine)

    def news(self, run: str, version: int, told_version: int) -> News:
        known = self._there()
        deadline = time.monotonic() + 0.2
        while run == known.run and version == known.version and time.monotonic() < deadline:
            time.sleep(0.02)
        return known.since(run, version, told_version)

    def engine(self, engine: str = "0") -> dict[str, Any] | None:
        """What an engine says of itself, if it serves."""
        found = self.known.engines.get(engine)
        return None if found is None else found.serving

    def await_engine(self, *, other_than: str = "") -> dict[str, Any]:
        """Wait until the engine serves, with another run than this."""
        wait_until(
            lambda: (self.engine() or {"boot_id": other_than})["boot_id"] != other_than, TIMEOUT_S, "the engine serves"
        )
        found = self.engine()
        assert found is not None
        return found


@pytest.fixture
def directory() -> Here:
    """A directory."""
    return Here()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A cluster whose children are small ones, which leave what they are told in the folder of models."""
    monkeypatch.setattr(process, "_MODULE", small_child.MODULE)
    monkeypatch.setenv("PYTHONPATH", server_environment()["PYTHONPATH"] + os.pathsep + os.getcwd())
    return Spec(Config(listen="127.0.0.1:0", model_dir=str(tmp_path), drain_s=2.0), "a key", "0")


@pytest.fixture
def engine(spec: Spec, directory: Here) -> Iterator[EngineKeeper]:
    """An engine that serves."""
    keeper = EngineKeeper("0", spec, directory, "node", "127.0.0.1")
    keeper.start()
    yield keeper
    keeper.stop("the test is over")
    keeper.join(TIMEOUT_S)
    assert not keeper.is_alive()


@pytest.fixture
def front(spec: Spec, directory: Here) -> Iterator[FrontKeeper]:
    """A front that serves."""
    keeper = FrontKeeper(spec, directory, "node", "127.0.0.1")
    keeper.start()
    wait_until(lambda: bool(keeper.address), TIMEOUT_S, "the front serves")
    yield keeper
    keeper.stop("the test is over")
    keeper.join(TIMEOUT_S)
    assert not keeper.is_alive()


def settings_of(pid: int, spec: Spec) -> dict[str, Any]:
    """What an engine's process was given."""
    return dict(json.loads((Path(spec.config.model_dir) / f"engine-{pid}").read_text()))


def fronts(spec: Spec) -> set[Path]:
    """Where fronts note what they are told."""
    return set(Path(spec.config.model_dir).glob("front-*"))


def told(spec: Spec, *, but_for: Path | None = None) -> list[Message]:
    """What the front was told that is not this one."""
    return [json.loads(line) for path in fronts(spec) - {but_for} for line in path.read_text().splitlines()]


def test_an_engine_that_is_killed_is_told_of_and_comes_again_in_its_place(
    engine: EngineKeeper, directory: Here, spec: Spec
) -> None:
    first = directory.await_engine()
    os.kill(first["pid"], signal.SIGKILL)
    second = directory.await_engine(other_than=first["boot_id"])
    assert second["endpoint"] == first["endpoint"]
    cause = "the engine was ended by SIGKILL"
    assert settings_of(second["pid"], spec)["previous_end"] == cause
    ends = [message for message in directory.known.since("", 0).messages if message["is"] == "ended"]
    assert [(end["boot_id"], end["cause"], end["comes_again"]) for end in ends] == [(first["boot_id"], cause, True)]


def test_what_an_engine_is_told_is_no_argument_and_its_place_is_that_of_its_host(
    engine: EngineKeeper, directory: Here, spec: Spec
) -> None:
    serving = directory.await_engine()
    settings = settings_of(serving["pid"], spec)
    assert settings["house"]["key"] == spec.key
    assert spec.key not in Path(f"/proc/{serving['pid']}/cmdline").read_text()
    assert spec.key not in Path(f"/proc/{serving['pid']}/environ").read_text(errors="replace")
    assert settings["house"]["internal"] == serving["internal"]
    assert (settings["config"]["engines"], settings["config"]["device"]) == (0, "cpu")


def test_a_directory_that_begins_anew_learns_of_the_engine(engine: EngineKeeper, directory: Here) -> None:
    first = directory.await_engine()
    directory.is_away = True
    directory.known = Known()
    directory.is_away = False
    assert directory.await_engine() == first


def test_an_end_while_the_directory_is_away_is_told_later(engine: EngineKeeper, directory: Here) -> None:
    first = directory.await_engine()
    directory.is_away = True
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(first["pid"]), TIMEOUT_S, "the engine ends")
    directory.is_away = False
    assert directory.await_engine(other_than=first["boot_id"])["engine"] == "0"
    assert directory.known.last_end("0") == "the engine was ended by SIGKILL"


def test_an_engine_that_is_stopped_ends_for_good(engine: EngineKeeper, directory: Here) -> None:
    first = directory.await_engine()
    engine.stop("its host is drained")
    engine.join(TIMEOUT_S)
    assert not is_alive(first["pid"])
    (end,) = [message for message in directory.known.since("", 0).messages if message["is"] == "ended"]
    assert (end["cause"], end["comes_again"]) == ("its host is drained", False)


def test_a_front_is_told_whose_it_is_and_what_becomes_of_engines(
    front: FrontKeeper, directory: Here, spec: Spec
) -> None:
    wait_until(lambda: directory.known.fronts["node"].address == "127.0.0.1:5", TIMEOUT_S, "the directory knows it")
    wait_until(lambda: len(told(spec)) == 2, TIMEOUT_S, "the front is told all")
    internal = directory.known.fronts["node"].internal
    place = {"node": "node", "internal": internal, "leader": ""}
    assert told(spec) == [{"is": "house", "key": spec.key, **place}, {"is": "all"}]
    serving = {"is": "serving", "engine": "0", "boot_id": "11" * 8, "node": "node"}
    directory.known.serving(serving, time.monotonic())
    wait_until(lambda: told(spec)[2:] == [serving], TIMEOUT_S, "the front is told of the engine")


def test_a_front_that_is_killed_comes_again_and_is_told_all(front: FrontKeeper, directory: Here, spec: Spec) -> None:
    serving = {"is": "serving", "engine": "0", "boot_id": "11" * 8, "node": "node"}
    directory.known.serving(serving, time.monotonic())
    wait_until(lambda: serving in told(spec), TIMEOUT_S, "the front is told of the engine")
    (first,) = fronts(spec)
    os.kill(int(first.name.removeprefix("front-")), signal.SIGKILL)
    wait_until(lambda: len(told(spec, but_for=first)) == 3, TIMEOUT_S, "another one is told all")
    assert told(spec, but_for=first)[1:] == [serving, {"is": "all"}]


def test_a_front_learns_who_keeps_the_models(spec: Spec, directory: Here, request: pytest.FixtureRequest) -> None:
    directory.leader = "another"
    directory.front("another", "", "10.0.0.1:7", leads=True, told=[])
    front: FrontKeeper = request.getfixturevalue("front")
    wait_until(lambda: bool(told(spec)), TIMEOUT_S, "it is told something")
    assert told(spec)[0]["leader"] == "10.0.0.1:7"
    directory.front("another", "", "10.0.0.1:8", leads=True, told=[])
    wait_until(lambda: told(spec)[-1] == {"is": "leader", "internal": "10.0.0.1:8"}, TIMEOUT_S, "it hears of it")
    # Now it is itself.
    directory.known.forget("another")
    wait_until(lambda: told(spec)[-1] == {"is": "leader", "internal": ""}, TIMEOUT_S, "it hears of it")
    assert front.is_alive()
