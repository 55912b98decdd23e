"""Far, slow and lossy networks: every road of the client works on them, with TLS and without."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import tclient
from tclient._session.session import Session
from tests.support.proxy import MBIT, OTHER_LOOPBACKS, Direction, Link, Proxy
from tests.support.roads import data_port_of, take
from tests.support.serving import HasAddress, serving, wait_until

Array = np.ndarray[Any, Any]
FAR = Link(round_trip_s=0.4)
LINKS = {
    "1 ms": Link(round_trip_s=0.001),
    "400 ms": FAR,
    "400 ms, jitter of 200 ms": Link(round_trip_s=0.4, jitter_s=0.2),
    "1,500 ms": Link(round_trip_s=1.5),
    "1,500 ms, jitter of 500 ms": Link(round_trip_s=1.5, jitter_s=0.5),
    "100 ms, 5 % cut": Link(round_trip_s=0.1, cut_fraction=0.05, seed=1),
    "1,500 ms, jitter, 5 % cut": Link(round_trip_s=1.5, jitter_s=0.5, cut_fraction=0.05, seed=2),
    "1 Mbit/s": Link(round_trip_s=0.05, bytes_per_s=MBIT),
}


@dataclass
class Served:
    """A server, and how to speak to it."""

    server: HasAddress
    tls: bool | Path
    # The road that calls take.
    road: str

    @contextlib.contextmanager
    def behind(self, link: Link) -> Iterator[Network]:
        """The server at the far end of a link: its address, and its data endpoint."""
        with tclient.connect(self.server.address, tls=self.tls) as session:
            named = f"127.0.0.1{session.opened.data_endpoint}"
        data_port = data_port_of(session) if self.road == "lane" else 0
        with Proxy(self.server.address, link, data_port=data_port) as main, Proxy(named, link) as data:
            yield Network(main, data, self.tls)

    @contextlib.contextmanager
    def across(self, link: Link) -> Iterator[tuple[Network, Session]]:
        """A session across a link, which is the current one."""
        with self.behind(link) as network, contextlib.closing(network.connect()) as session, session.use():
            yield network, session


@dataclass
class Network:
    """Where a server is reached."""

    main: Proxy
    data: Proxy
    tls: bool | Path
    tried: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def connect(self) -> Session:
        """A session over the link; it is not made the current one."""
        session = Session.open(self.main.address, tls=self.tls, lane=os.environ.get("TCLIENT_LANE") != "0")
        session.transfers.endpoint.address = session.transfers.endpoint.lane_address = self.data.address
        # Small arrays are bulk here, too.
        session.channel.max_inline = 32 << 10
        return session

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Count whether it works."""
        self.tried[what] += 1
        try:
            yield
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.passed[what] += 1


@pytest.fixture(scope="module", params=["plain, grpc", "TLS, grpc", "TLS, lane"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with TLS or without, and a road to it."""
    security, road = request.param.split(", ")
    with pytest.MonkeyPatch.context() as patch:
        take(road, patch)
        yield from _served(security, road, request, tmp_path_factory)


def _served(
    security: str, road: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    if security == "plain":
        yield Served(request.getfixturevalue("server"), False, road)
        return
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    both = str(folder / "both.pem")
    authority.issue_cert("127.0.0.1", *OTHER_LOOPBACKS).private_key_and_cert_chain_pem.write_to_path(both)
    with serving("--tls-cert", both, "--tls-key", both) as server:
        yield Served(server, folder / "authority.pem", road)


def some_numbers(size_bytes: int) -> Array:
    return np.arange(size_bytes // 4, dtype=np.float32)


def run_a_chain(session: Session) -> None:
    """100 calls and their read are one round trip."""
    x = y = tclient.ones(4)
    waits = session.stats.waits
    for _ in range(100):
        y = y + x
    assert y.tolist() == [101.0] * 4
    assert session.stats.waits == waits + 1


def move_bulk(session: Session, size_bytes: int = 1 << 21) -> None:
    """There and back, by the data endpoint where the session has one."""
    numbers = some_numbers(size_bytes)
    assert np.array_equal(tclient.from_numpy(numbers).numpy(), numbers)


def move_within(session: Session, size_bytes: int) -> None:
    """As `move_bulk_over_grpc`, in a thread of its own."""
    with session.use():
        move_bulk_over_grpc(session, size_bytes)


def move_bulk_over_grpc(session: Session, size_bytes: int = 1 << 21) -> None:
    named, session.transfers.endpoint.address = session.transfers.endpoint.address, ""
    try:
        move_bulk(session, size_bytes)
    finally:
        session.transfers.endpoint.address = named


def run_forward(session: Session) -> None:
    """A pass of a model that the server keeps, of rows that come from here."""
    rows = some_numbers(4 * 64 * 6).reshape(64, 6) / 1000
    model = tclient.models.get("far")
    with ThreadPoolExecutor(1) as other:
        again = other.submit(model, rows)
        np.testing.assert_allclose(model(rows), again.result(), rtol=1e-5, atol=1e-5)
    assert model.describe().name == "far"


def keep_model(served: Served) -> None:
    with tclient.connect(served.server.address, tls=served.tls):
        if not any(model.name == "far" for model in tclient.models.list()):
            tclient.models.create("far", tclient.nn.MLP([6, 32, 3]))


ROADS: dict[str, Callable[[Session], None]] = {
    "chain": run_a_chain,
    "bulk": move_bulk,
    "bulk over gRPC": move_bulk_over_grpc,
    "forward": run_forward,
}


@pytest.fixture(scope="module")
def far(served: Served) -> Iterator[tuple[Network, Session]]:
    """A session at 400 ms round trip, and the network between."""
    keep_model(served)
    with served.across(FAR) as both:
        yield both


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_a_road_works_at_400_ms(far: tuple[Network, Session], road: Callable[[Session], None]) -> None:
    network, session = far
    began = time.monotonic()
    with session.use():
        road(session)
    assert time.monotonic() - began < 12.0
    if road is move_bulk:
        assert session.transfers.endpoint.resting, "by the data endpoint"
        assert session.transfers.endpoint.address == network.data.address


def test_a_session_is_resumed_within_seconds_at_400_ms(far: tuple[Network, Session]) -> None:
    network, session = far
    with session.use():
        x = tclient.zeros(3)
        x.add_(1).tolist()
        network.main.cut()
        began = time.monotonic()
        assert x.add_(1).tolist() == [2, 2, 2]
        assert tclient.server_info().sessions >= 1
        # Four round trips with TLS, and one for each of the two reads.
        assert time.monotonic() - began < 12.0


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.value)
def test_a_connection_that_breaks_while_a_session_is_opened_is_made_again(served: Served, direction: Direction) -> None:
    with served.behind(Link(round_trip_s=0.1)) as network:
        network.main.cut_after(40, direction)
        network.connect().close()
        assert network.main.cuts == 1


def test_questions_right_after_a_cut_are_answered(served: Served) -> None:
    keep_model(served)
    with served.across(Link(round_trip_s=0.02)) as (network, _):
        model = tclient.models.get("far")
        for _ in range(4):
            network.main.cut()
            assert model.describe().name == "far"
            network.main.cut()
            assert tclient.server_info().sessions >= 1
            network.main.cut_after(30, Direction.TO_SERVER)
            assert model.statistics().execution_count >= 0


def test_what_a_slow_link_carries_is_not_given_up(served: Served) -> None:
    """128 KiB take a second; others speak on the same connection meanwhile."""
    with served.across(LINKS["1 Mbit/s"]) as (_, session):
        move_bulk(session, 64 << 10)
        assert session.transfers.endpoint.resting, "by the data endpoint"
        move_bulk_over_grpc(session, 64 << 10)
        with ThreadPoolExecutor(1) as other:
            moving = other.submit(move_within, session, 128 << 10)
            run_a_chain(session)
            moving.result(30.0)


def test_a_session_goes_on_after_a_network_that_swallowed_all_bytes(served: Served) -> None:
    with served.across(Link(round_trip_s=0.02)) as (network, session):
        x = tclient.zeros(3)
        x.add_(1).tolist()
        network.main.black_hole()
        read: list[list[float]] = []
        x.add_(1)
        reader = threading.Thread(target=lambda: read.append(x.tolist()))
        waits = session.stats.waits
        reader.start()
        wait_until(lambda: session.stats.waits > waits, 10.0, "the wait of the reader")
        network.main.black_hole(False)
        network.main.cut()
        reader.join(20.0)
        assert read == [[2, 2, 2]]


# --- the long run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_every_road_works_every_time(served: Served, link: Link) -> None:
    """50 sessions, ten at once: connect, and every road. Five of smaller arrays where bytes take time."""
    keep_model(served)
    slow = link.bytes_per_s > 0
    with served.behind(link) as network:

        def run(_: int) -> None:
            session = None
            with network.trying("connect"):
                session = network.connect()
            if session is None:
                return
            with contextlib.closing(session), session.use():
                for name, road in ROADS.items():
                    with network.trying(name):
                        if "bulk" in name and slow:
                            (move_bulk if name == "bulk" else move_bulk_over_grpc)(session, 256 << 10)
                        else:
                            road(session)
                with network.trying("three reads"):
                    x = tclient.zeros(3)
                    for count in range(1, 4):
                        assert x.add_(1).tolist() == [count] * 3
                if not link.cut_fraction:
                    assert session.transfers.endpoint.address == network.data.address, "by the data endpoint"

        with ThreadPoolExecutor(2 if slow else 25 if link.round_trip_s > 1 else 10) as threads:
            list(threads.map(run, range(5 if slow else 50)))
        print({what: f"{network.passed[what]} of {network.tried[what]}" for what in network.tried})
        print(f"connections cut: {network.main.cut_by_link + network.data.cut_by_link}")
        assert not network.failures, network.failures
        assert network.main.cut_by_link + network.data.cut_by_link > 0 or not link.cut_fraction


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_trip_s", [0.05, 1.5])
def test_8_mib_come_and_go_at_1_mbit(served: Served, round_trip_s: float) -> None:
    """Over a minute each way; the two roads at once, each with a link of its own."""
    with served.behind(Link(round_trip_s=round_trip_s, bytes_per_s=MBIT)) as network:

        def move(road: Callable[[Session, int], None]) -> None:
            with contextlib.closing(network.connect()) as session, session.use():
                road(session, 8 << 20)
                assert bool(session.transfers.endpoint.resting) == (road is move_bulk)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(move, [move_bulk, move_bulk_over_grpc]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sessions_resume_promptly_over_a_very_far_link(served: Served) -> None:
    with served.across(Link(round_trip_s=1.2)) as (network, _):
        x = tclient.zeros(3)
        for count in range(1, 11):
            network.main.cut()
            began = time.monotonic()
            assert x.add_(1).tolist() == [count] * 3
            assert time.monotonic() - began < 10.0
