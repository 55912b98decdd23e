"""Moves whose connections break: between the servers, between a server and the client, or with a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import tclient
from tclient import Session
from tests.moving.test_moving import held, opened
from tests.support.proxy import Direction, Proxy
from tests.support.roads import data_port_of
from tests.support.serving import HasAddress, serving, wait_until

COUNT = 4 << 20
SIZE = 4 * COUNT


class Far(NamedTuple):
    """Two sessions of servers that reach each other through a proxy only."""

    here: Session
    there: Session
    # Before the receiving server: its client, and the other server.
    proxy: Proxy


@pytest.fixture(scope="module")
def line(other_server: HasAddress) -> Iterator[tuple[str, Proxy]]:
    """A server that may use no other way than that through a proxy, and the proxy."""
    with opened(other_server.address) as (session,):
        port = data_port_of(session)
    with (
        Proxy(other_server.address, data_port=port) as proxy,
        serving("--send-to", f"{proxy.address.rpartition(':')[0]}:{port}") as sender,
    ):
        yield sender.address, proxy


@pytest.fixture
def far(line: tuple[str, Proxy]) -> Iterator[Far]:
    """Sessions of both."""
    sender, proxy = line
    with opened(sender, proxy.address, lane=False) as (here, there), here.use():
        proxy.cuts = 0
        yield Far(here, there, proxy)
        proxy.refuse(refusing=False)


def checked(far: Far, x: Any) -> None:
    y = x.to(session=far.there)
    assert (y[0].item(), y[-1].item(), y.sum().item()) == (0, COUNT - 1, COUNT * (COUNT - 1) // 2)
    del y
    assert held(far.there) == (0, 0)
    assert held(far.here) == (1, SIZE)


def test_a_move_goes_through_the_proxy(far: Far) -> None:
    checked(far, tclient.arange(COUNT, dtype=tclient.int32))
    assert far.here.stats.moves == 1
    assert far.proxy.passed_bytes(Direction.TO_SERVER) > SIZE


@pytest.mark.parametrize(
    ("size_bytes", "direction"),
    [
        pytest.param(0, Direction.TO_SERVER, id="before the permission is asked for"),
        pytest.param(0, Direction.TO_CLIENT, id="before it is given"),
        pytest.param(1000, Direction.TO_SERVER, id="soon"),
        pytest.param(SIZE // 2, Direction.TO_SERVER, id="in the middle"),
        pytest.param(SIZE, Direction.TO_SERVER, id="near the end"),
    ],
)
def test_a_cut_is_not_noticed(far: Far, size_bytes: int, direction: Direction) -> None:
    x = tclient.arange(COUNT, dtype=tclient.int32)
    far.proxy.cut_after(size_bytes, direction)
    checked(far, x)
    assert far.proxy.cuts == 1
    assert far.here.stats.downloads == 0


def test_cuts_at_any_moment_are_not_noticed(far: Far) -> None:
    x = tclient.arange(COUNT, dtype=tclient.int32)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.03) and far.proxy.cuts < 15:
            far.proxy.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        for _ in range(4):
            checked(far, x)
    finally:
        over.set()
        cutting.join()


def test_where_the_server_is_not_reached_the_client_carries(far: Far) -> None:
    x = tclient.arange(COUNT, dtype=tclient.int32)
    far.proxy.refuse(data_only=True)
    for _ in range(2):
        checked(far, x)
    assert (far.here.stats.moves, far.here.stats.downloads) == (0, 2)


def test_a_cut_while_the_client_carries_is_not_noticed(far: Far) -> None:
    x = tclient.arange(COUNT, dtype=tclient.int32)
    far.proxy.refuse(data_only=True)
    far.proxy.cut_after(SIZE // 2, Direction.TO_SERVER)
    checked(far, x)
    assert far.proxy.cuts == 1


def test_a_move_that_does_not_get_on_is_late_and_leaves_nothing(far: Far) -> None:
    x = tclient.arange(COUNT, dtype=tclient.int32)
    far.here.read_timeout_s = 1.0
    before = far.proxy.passed_bytes(Direction.TO_SERVER)

    def stop() -> None:
        wait_until(lambda: far.proxy.passed_bytes(Direction.TO_SERVER) > before + SIZE // 4, 10.0, "bytes move")
        far.proxy.stall(Direction.TO_SERVER)

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(tclient.ReadTimeout):
        x.to(session=far.there)
    stopping.join()
    far.proxy.resume(Direction.TO_SERVER)
    far.here.read_timeout_s = None
    wait_until(lambda: held(far.there) == (0, 0), 10.0, "the memory is free again")
    checked(far, x)


@pytest.mark.parametrize("which", ["the sender", "the receiver"])
def test_a_server_that_dies_is_told_of(which: str) -> None:
    with (
        serving("--lease-s", "2") as one,
        serving("--lease-s", "2") as other,
        opened(one.address, other.address) as (here, there),
        here.use(),
    ):
        x = tclient.ones(16 << 20)
        here.synchronize()
        timer = threading.Timer(0.15, (one if which == "the sender" else other).kill)
        timer.start()
        with pytest.raises((tclient.SessionLost, tclient.ConnectFailed)):
            move_again_and_again(x, there)
        timer.join()


def move_again_and_again(x: Any, session: Session) -> None:
    for _ in range(1000):
        x.to(session=session).sum().item()
