"""Limits of a principal over several engines: of sessions exactly, of memory within what engines tell each second."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import tclient as tc
from tclient import Session
from tests.engines.house import housing, info, wait_for_engines
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.serving import ServerProcess, wait_until
from tests.trust.test_quotas import mlp

SESSIONS, BYTES, STREAMS = 4, 1_000_000, 3
MANY = 100_000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("house")
    path = folder / "limits.toml"
    path.write_text(f"[default]\nsessions = {SESSIONS}\ndevice_bytes = {BYTES}\nmodels = 2\nstreams = {STREAMS}\n")
    data = folder / "data"
    with housing("--limits", str(path), "--data-dir", str(data)) as server:
        wait_for_engines(server, 2)
        yield server


def use(house: ServerProcess) -> dict[str, float]:
    return {each.name: each.used for each in info(house).own_limits}


def nobody(house: ServerProcess) -> bool:
    told = use(house)
    return not told["sessions"] and not told["device_bytes"]


def test_a_principal_has_so_many_sessions_of_all_engines_and_no_more(house: ServerProcess) -> None:
    wait_until(lambda: nobody(house), 10.0, "that nobody is there")

    def opened(_: int) -> RawSession | None:
        made: list[RawSession] = []
        status = status_of(lambda: made.append(RawSession(house.address)))
        assert status in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return made[0] if made else None

    with ThreadPoolExecutor(12) as pool:
        sessions = [each for each in pool.map(opened, range(12)) if each is not None]
    assert 0 < len(sessions) <= SESSIONS
    while len(sessions) < SESSIONS:
        sessions.append(RawSession(house.address))
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="sessions: you use 4") as told:
        RawSession(house.address)
    assert told.retry_after_s
    # What is closed is known at once, where it matters.
    sessions.pop().close()
    sessions.append(RawSession(house.address))
    for session in sessions:
        session.close()


def test_a_principal_holds_no_more_in_all_engines_than_it_may(house: ServerProcess) -> None:
    wait_until(lambda: nobody(house), 10.0, "that nobody is there")
    sessions = [Session.open(house.address) for _ in range(2)]
    assert len({session.opened.boot_id for session in sessions}) == 2
    kept = []
    for session in sessions:
        with session.use():
            kept.append(tc.ones(MANY))
            tc.synchronize()
    wait_until(lambda: use(house)["device_bytes"] == 8 * MANY, 10.0, "the sum")

    refusals: list[tc.MemoryLimitReached] = []

    def is_refused() -> bool:
        before = len(refusals)
        with sessions[0].use():
            try:
                (kept[0] + 1).sum().item()
            except tc.MemoryLimitReached as refusal:
                refusals.append(refusal)
        return len(refusals) > before

    wait_until(is_refused, 10.0, "a refusal, when the engine was told of the other", 0.2)
    told = refusals[0]
    assert (told.name, told.limit, told.used, told.asked) == ("device_bytes", BYTES, 8 * MANY, 4 * MANY)
    sessions[1].close()
    wait_until(lambda: not is_refused(), 10.0, "that there is room again", 0.2)
    sessions[0].close()


def test_streams_through_the_front_are_counted_there(house: ServerProcess) -> None:
    wait_until(lambda: nobody(house), 10.0, "that nobody is there")
    sessions = [RawSession(house.address) for _ in range(STREAMS + 1)]
    streams = [each.stream() for each in sessions[:STREAMS]]
    for session, stream in zip(sessions, streams, strict=False):
        stream.send(session.batch(session.call(0, "manual_seed", 1)))
        stream.receive()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="streams"):
        sessions[-1].stream().receive()
    assert use(house)["streams"] == STREAMS
    for each in sessions:
        each.close()


def test_a_principal_has_so_many_models_of_a_house_and_no_more(house: ServerProcess) -> None:
    with Raw(house.address) as raw:
        mlp(raw, "one")
        mlp(raw, "two")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="models"):
            mlp(raw, "three")
        assert use(house)["models"] == 2
        raw.ask("DeleteMlp", name="one")
        mlp(raw, "three")
