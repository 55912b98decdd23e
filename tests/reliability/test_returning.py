"""A session that had to go on over gRPC returns to a lane when there is one again, and what it does is applied once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tclient
from tclient._session.session import Session
from tclient._transport import lanes, stream
from tests.support.proxy import Proxy
from tests.support.roads import proxied, take
from tests.support.serving import HasAddress, wait_until


@pytest.fixture
def proxy(server: HasAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the shared server, on the way of lanes."""
    take("lane", monkeypatch)
    with proxied(server.address, "lane") as proxy:
        yield proxy


def is_on_a_lane(session: Session) -> bool:
    return session._batches._sender.lane is not None


def lose_lanes(proxy: Proxy) -> None:
    """Break all connections; of the new ones, those for lanes are refused."""
    proxy.refuse(data_only=True)
    proxy.cut()


def returns(work: Callable[[], object], is_back: Callable[[], bool]) -> None:
    """Work until it goes over a lane."""

    def is_back_after_work() -> bool:
        work()
        return is_back()

    wait_until(is_back_after_work, 10.0, "the return to a lane", interval_s=0.001)


def test_a_session_returns_to_a_lane_once_there_is_one(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.zeros(3)
        count = 0

        def add() -> None:
            nonlocal count
            count += 1
            assert x.add_(1).sum().item() == 3 * count

        for _ in range(3):
            add()
            assert is_on_a_lane(session)
            lose_lanes(proxy)
            add()
            assert not is_on_a_lane(session)
            proxy.refuse(False)
            returns(add, lambda: is_on_a_lane(session))
        add()
        assert x.tolist() == [count] * 3


def test_a_session_returns_after_an_outage(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.zeros(())
        assert x.item() == 0
        proxy.refuse()
        proxy.cut()
        accepted = proxy.accepted
        reader = threading.Thread(target=x.add_(1).item)
        reader.start()
        wait_until(lambda: proxy.accepted > accepted + 2, 10.0, "attempts to connect")
        proxy.refuse(False)
        reader.join(20.0)
        returns(x.item, lambda: is_on_a_lane(session))
        assert x.item() == 1


def test_adds_of_many_threads_over_changes_of_road_give_the_exact_sum(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.zeros(())
        ended = threading.Event()
        counts = [0] * 4

        def add(index: int) -> None:
            while not ended.is_set():
                x.add_(1)
                counts[index] += 1
                if counts[index] % 20 == 0:
                    x.item()

        threads = [threading.Thread(target=add, args=(index,)) for index in range(len(counts))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                lose_lanes(proxy)
                wait_until(lambda: not is_on_a_lane(session), 10.0, "gRPC")
                proxy.refuse(False)
                wait_until(lambda: is_on_a_lane(session), 10.0, "the return to a lane")
        finally:
            ended.set()
            for thread in threads:
                thread.join(30.0)
        assert x.item() == sum(counts)


def test_forward_passes_return_to_a_lane(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        model = tclient.models.create("returning", tclient.nn.MLP([4, 3, 2]))
        rows = np.ones((2, 4), np.float32)
        expected = np.asarray(model(rows))

        def run() -> None:
            np.testing.assert_array_equal(np.asarray(model(rows)), expected)

        def has_lane() -> bool:
            return session.forwards._stream is not None and session.forwards._stream._sender.lane is not None

        try:
            assert has_lane()
            lose_lanes(proxy)
            run()
            assert not has_lane()
            proxy.refuse(False)
            returns(run, has_lane)
            run()
        finally:
            model.delete()


def test_nothing_is_sent_twice_that_is_large(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.zeros(())
        lose_lanes(proxy)
        assert x.add_(1).item() == 1
        with monkeypatch.context() as patch:
            # As if something large were always under way.
            patch.setattr(stream, "_LIGHT_BYTES", -1)
            patch.setattr(stream, "_QUIET_S", 0.02)
            proxy.refuse(False)
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                x.item()
            assert not is_on_a_lane(session)
        returns(x.item, lambda: is_on_a_lane(session))
        assert x.item() == 1


def test_where_no_lane_can_be_opened_calls_stay_on_grpc(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lanes, "_GROWTH", 1.0)
    monkeypatch.setattr(lanes, "_PAUSE_S", 0.01)
    with tclient.connect(proxy.address) as session, caplog.at_level(logging.DEBUG, "tclient"):
        x = tclient.zeros(())
        assert x.item() == 0
        lose_lanes(proxy)

        def said() -> int:
            return sum("stay on gRPC" in message for message in caplog.messages)

        returns(x.item, lambda: said() > 0)
        accepted = proxy.accepted
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            x.item()
        assert proxy.accepted == accepted, "none is looked for any more"
        assert said() == 1
        assert not is_on_a_lane(session)
