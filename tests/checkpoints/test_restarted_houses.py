"""A house of engines that is told to stop, and the next one in its place: clients go on, wherever their engine is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import tclient as tc
from tests.checkpoints.place import END_S, Place, trained
from tests.engines.house import engine_pids, serving_engines, wait_for_engines
from tests.support.serving import children_of, is_alive, name_of, serving, wait_until

HOUSE = ("--engines", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A house of two engines that keeps sessions."""
    made = Place(tmp_path_factory.mktemp("house"), *HOUSE)
    yield made
    made.server.__exit__(None, None, None)


def answers(place: Place) -> bool:
    """Whether its front does."""
    try:
        return len(place.info().engines) == 2
    except grpc.RpcError:
        return False


def test_a_loss_curve_is_the_same_bit_by_bit(place: Place) -> None:
    with serving() as other:
        expected, _ = trained(other.address, "Adam", 120, "before").communicate(timeout=END_S)
    # Those that are ahead end behind the last restart: within one nobody hears of that, and the lease ends the session.
    running = [trained(place.address, "Adam", 120, "before", waits=each > 0) for each in range(3)]
    # All of them are there before the first restart.
    wait_until(lambda: place.info().sessions >= 3, END_S, "the programs")
    assert running[0].stdout is not None
    lines = []
    for line in running[0].stdout:
        lines.append(line)
        if line.split()[0] in ("37", "81"):
            place.restart()
    others = [each.communicate(timeout=END_S) for each in running]
    assert "".join(lines) == expected, others[0][1]
    assert [told for told, _ in others[1:]] == [expected] * 2, others
    wait_until(lambda: place.kept() == [], 10.0, "the end of what was taken")


def test_additions_through_restarts_are_exact_and_the_session_has_its_endpoint_and_lanes_again(place: Place) -> None:
    with tc.connect(place.address) as session:
        x, y = tc.zeros(3), tc.zeros(3)
        for number in range(400):
            x.add_(1)
            y = y + x
            if number % 200 == 100:
                before = session.channel.engine_address
                place.restart()
                assert x.tolist() == [number + 1.0] * 3
        assert x.tolist() == [400.0] * 3
        assert y.tolist() == [400.0 * 401 / 2] * 3

        def is_back() -> bool:
            tc.ones(1).tolist()
            return session.endpoint != session.address and session._batches._sender.lane is not None

        wait_until(is_back, 10.0, "the endpoint and a lane")
        assert session.channel.engine_address != before
        # Bulk bytes go over the data endpoint, which is another one than before.
        session.transfers.endpoint.resting.clear()
        data = np.arange(1 << 20, dtype=np.float32)
        assert np.array_equal(tc.tensor(data).numpy(), data)
        assert session.transfers.endpoint.resting, "no connection to the data endpoint"
    wait_until(lambda: place.kept() == [], 10.0, "the end of what was taken")


def test_many_sessions_come_back_each_once_on_any_engine(place: Place) -> None:
    sessions = [tc.connect(place.address) for _ in range(6)]
    held = []
    for number, session in enumerate(sessions):
        with session.use():
            held.append(tc.full((4,), float(number)))
            session.synchronize()
    place.restart()
    for number, (session, tensor) in enumerate(zip(sessions, held, strict=True)):
        with session.use():
            assert (tensor + 1).tolist() == [number + 1.0] * 4
    wait_until(lambda: place.kept() == [], 10.0, "the end of what was taken")
    for session in sessions:
        session.close()


def test_a_front_that_is_started_again_finds_a_session_where_it_was_brought(place: Place) -> None:
    with tc.connect(place.address) as session:
        x = tc.full((2,), 3.0)
        session.synchronize()
        place.restart()
        assert x.tolist() == [3.0, 3.0]
        (front,) = [
            pid
            for name, pid in ((name_of(each), each) for each in children_of(place.server.pid))
            if name == "tserver-front"
        ]
        os.kill(front, signal.SIGKILL)
        credentials = session.credentials()
        wait_until(lambda: answers(place), 20.0, "the front")
        taken = tc.attach(credentials)
        assert taken.tensors().others[0].take().tolist() == [3.0, 3.0]
        taken.close()


def test_one_engine_that_is_told_to_stop_leaves_its_sessions_to_the_others(place: Place) -> None:
    with tc.connect(place.address) as session:
        x = tc.full((2,), 5.0)
        session.synchronize()
        engines = serving_engines(place.server)
        (engine,) = [each for each, boot in engines.items() if boot == session.secret[:8].hex()]
        pid = engine_pids(place.server)[engine]
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), 20.0, "its end")
        assert (x + 1).tolist() == [6.0, 6.0]
        wait_until(lambda: place.kept() == [], 10.0, "the end of what was taken")
    wait_for_engines(place.server, 2)


def test_an_engine_that_is_killed_takes_its_sessions_along(place: Place) -> None:
    session = tc.connect(place.address)
    x = tc.ones(2)
    session.synchronize()
    engines = serving_engines(place.server)
    (engine,) = [each for each, boot in engines.items() if boot == session.secret[:8].hex()]
    os.kill(engine_pids(place.server)[engine], signal.SIGKILL)
    with pytest.raises(tc.SessionLost, match="its engine"):
        x.tolist()
    session.close()
    wait_for_engines(place.server, 2)


@pytest.mark.parametrize("isolation", ["principal", "session"])
def test_an_isolated_house_brings_sessions_to_engines_of_their_own(tmp_path: Path, isolation: str) -> None:
    place = Place(tmp_path, "--isolation", isolation, "--spare-engines", "1")
    try:
        with tc.connect(place.address) as first, tc.connect(place.address) as second:
            with first.use():
                x = tc.full((2,), 1.0)
                first.synchronize()
            with second.use():
                y = tc.full((2,), 2.0)
                second.synchronize()
            place.restart()
            with first.use():
                assert x.tolist() == [1.0, 1.0]
            with second.use():
                assert y.tolist() == [2.0, 2.0]
            counts = sorted(each.sessions for each in place.info().engines if each.sessions)
            assert counts == ([2] if isolation == "principal" else [1, 1])
        wait_until(lambda: place.kept() == [], 10.0, "the end of what was taken")
    finally:
        place.server.__exit__(None, None, None)
