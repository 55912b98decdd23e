"""Connections that break: the program does not notice, and every operation is applied exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

import tclient
from tests.support.proxy import Direction, Proxy
from tests.support.serving import wait_until

Break = Callable[[Proxy], None]
BREAKS: dict[str, Break] = {
    "at any moment": Proxy.cut,
    "before the reply": lambda proxy: proxy.cut_after(0, Direction.TO_CLIENT),
    "within a reply": lambda proxy: proxy.cut_after(21, Direction.TO_CLIENT),
    "within a request": lambda proxy: proxy.cut_after(37, Direction.TO_SERVER),
}


@pytest.mark.parametrize("break_connection", BREAKS.values(), ids=BREAKS)
def test_500_adds_in_place_over_ten_cuts_give_the_exact_sum(proxy: Proxy, break_connection: Break) -> None:
    with tclient.connect(proxy.address):
        x = tclient.zeros(3)
        for count in range(1, 501):
            x.add_(1)
            if count % 50 == 25:
                break_connection(proxy)
            if count % 20 == 0:
                assert x.sum().item() == 3 * count
        assert x.tolist() == [500.0] * 3
    assert proxy.cuts == 10
    assert proxy.accepted >= 11


def test_adds_of_many_threads_over_cuts_give_the_exact_sum(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        x = tclient.zeros(())
        done = threading.Event()

        def add() -> None:
            for count in range(300):
                x.add_(1)
                if count % 50 == 0:
                    x.item()

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and proxy.cuts < 10:
            proxy.cut()
            done.wait(0.02)
        for thread in threads:
            thread.join(30.0)
        assert x.item() == 1200


def test_a_cut_during_a_read_is_not_noticed(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.eye(400) * 2
        y = x
        for _ in range(60):
            y = (y @ x) / 2
        waits = session.stats.waits
        read: list[float] = []
        reader = threading.Thread(target=lambda: read.append(y.sum().item()))
        reader.start()
        wait_until(lambda: session.stats.waits > waits or bool(read), 10.0, "the wait of the reader")
        proxy.cut()
        reader.join(30.0)
        assert read == [800.0]


def test_a_connection_that_is_refused_for_a_while_is_resumed(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        x = tclient.ones(3)
        assert x.tolist() == [1, 1, 1]
        proxy.refuse()
        proxy.cut()
        x.add_(1)
        refused = proxy.accepted
        wait_until(lambda: proxy.accepted > refused + 1, 10.0, "attempts to connect again")
        proxy.refuse(False)
        assert x.tolist() == [2, 2, 2]


def test_a_network_that_stalls_and_goes_on_loses_nothing(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.zeros(3)
        x.tolist()
        connections = proxy.accepted
        proxy.stall(Direction.TO_CLIENT)
        for _ in range(300):
            x.add_(1)
        waits = session.stats.waits
        read: list[list[float]] = []
        reader = threading.Thread(target=lambda: read.append(x.tolist()))
        reader.start()
        wait_until(lambda: session.stats.waits > waits, 10.0, "the wait of the reader")
        proxy.resume(Direction.TO_CLIENT)
        reader.join(20.0)
        assert read == [[300.0] * 3]
    assert proxy.accepted == connections


def test_a_chain_and_its_read_are_one_wait_on_a_slow_network_too(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        for direction in Direction:
            proxy.delay(0.02, direction)
        x = y = tclient.ones(4)
        waits = session.stats.waits
        for _ in range(1000):
            y = y + x
        assert y.tolist() == [1001.0] * 4
        assert session.stats.waits == waits + 1


def test_results_that_were_lost_on_the_way_are_not_computed_again(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        tclient.manual_seed(5)
        first = tclient.rand(4).tolist()
        tclient.manual_seed(5)
        drawn = tclient.rand(4)
        proxy.cut_after(0, Direction.TO_CLIENT)
        assert drawn.tolist() == first
        second = tclient.rand(4).tolist()
        tclient.manual_seed(5)
        tclient.rand(4)
        assert tclient.rand(4).tolist() == second


def test_an_error_of_a_call_survives_a_cut(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        x = tclient.ones(3)
        proxy.cut_after(0, Direction.TO_CLIENT)
        x.add_(tclient.ones(2))
        with pytest.raises(RuntimeError, match="size"):
            x.tolist()
        assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.value)
def test_bulk_data_survives_a_cut(proxy: Proxy, direction: Direction) -> None:
    numbers = np.arange(3 << 20, dtype=np.float32)
    with tclient.connect(proxy.address) as session:
        session.transfers.endpoint.address = ""  # through the proxy, as all the rest
        proxy.cut_after(1 << 20, direction)
        x = tclient.from_numpy(numbers)
        x.add_(1)
        assert np.array_equal(x.numpy(), numbers + 1)
    assert proxy.cuts == 1
