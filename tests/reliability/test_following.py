"""A session whose engine stands behind another address: it goes there, and home stands in while it cannot."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tclient
from tclient import _info
from tclient._session import batches
from tclient._session.session import Session
from tclient._transport import channel
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.home import Home
from tests.support.proxy import Proxy
from tests.support.raw import Raw
from tests.support.roads import proxied
from tests.support.serving import (
    HasAddress,
    ServerProcess,
    children_of,
    is_alive,
    name_of,
    server_environment,
    serving,
    wait_until,
)

# Every client of an engine that was killed is told within so many seconds.
TOLD_S = 5.0
CAUSE = "it was ended by SIGKILL"


@pytest.fixture
def home(server: HasAddress, proxy: Proxy) -> Iterator[Home]:
    """A home before the shared server, whose sessions live behind the proxy."""
    with Home(server.address, endpoint=proxy.address) as home:
        yield home


def is_at(session: Session, address: str) -> bool:
    return session.endpoint == address


def count_to(x: tclient.Tensor, numbers: range) -> None:
    """Add one so many times, and look at the sum now and then."""
    for count in numbers:
        x.add_(1)
        if count % 10 == 0:
            assert x.sum().item() == 3 * count


def add_for_ever(x: tclient.Tensor) -> None:
    """Add one and look, until that fails."""
    while True:
        x.add_(1).tolist()


def test_a_session_goes_where_it_lives_and_leaves_home_alone(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        assert is_at(session, proxy.address)
        assert repr(session) == f"<tclient.Session with {home.address} at {proxy.address}, open>"
        x = tclient.zeros(3)
        count_to(x, range(1, 101))
        large = tclient.ones(1 << 20)
        assert tclient.from_numpy(large.numpy()).sum().item() == 1 << 20
    assert home.asked == {"OpenSession": 1}


def test_what_the_server_is_home_tells(home: Home) -> None:
    with tclient.connect(home.address):
        assert tclient.server_info().sessions >= 1
        assert home.asked["GetServerInfo"] == 1
        home.stop()
        assert tclient.server_info().sessions >= 1, "the engine can tell of itself"
        home.start()


def test_the_engines_behind_an_address_are_told_and_a_session_knows_its_own(home: Home) -> None:
    with tclient.connect(home.address) as session:
        home.info = ts.GetServerInfoResponse(
            devices=[
                ts.DeviceInfo(name="cuda:0", free_bytes=1, engine="cuda:0"),
                ts.DeviceInfo(name="cuda:3", free_bytes=2, engine="cuda:3"),
                ts.DeviceInfo(name="cpu", free_bytes=3),
            ],
            engines=[
                ts.EngineInfo(id="cuda:0", device="cuda:0", boot_id="another", state="SERVING"),
                ts.EngineInfo(id="cuda:3", device="cuda:3", boot_id=session.opened.boot_id, sessions=1, node="here"),
                ts.EngineInfo(id="cuda:5", state="STARTING", reason=CAUSE),
            ],
        )
        told = tclient.server_info()
        assert [(each.id, each.sessions, each.state, each.reason) for each in told.engines] == [
            ("cuda:0", 0, "SERVING", ""),
            ("cuda:3", 1, "", ""),
            ("cuda:5", 0, "STARTING", CAUSE),
        ]
        assert [(each.name, each.engine) for each in told.devices] == [
            ("cuda:0", "cuda:0"),
            ("cuda:3", "cuda:3"),
            ("cpu", ""),
        ]
        assert [each.name for each in _info.own_devices()] == ["cpu"], "the engine tells of itself"
    home.endpoint = ""
    with tclient.connect(home.address) as session:
        home.info.engines[1].boot_id = session.opened.boot_id
        del session.opened.devices[:]
        session.opened.devices.extend(ts.DeviceInfo(name=name, free_bytes=9) for name in ("cuda:0", "cuda:1", "cpu"))
        assert [(each.name, each.free_bytes) for each in _info.own_devices()] == [
            ("cuda:0", 2),
            ("cuda:1", 9),
            ("cpu", 3),
        ]


def test_a_port_alone_is_on_the_host_of_home(server: HasAddress) -> None:
    host, _, port = server.address.rpartition(":")
    with Home(server.address, endpoint=f":{port}") as home, tclient.connect(home.address) as session:
        assert is_at(session, f"{host}:{port}")
        assert tclient.ones(2).tolist() == [1, 1]


@pytest.mark.parametrize("endpoint", [":1", "unix:/nobody/listens", "no address", "127.0.0.1:1"])
def test_a_session_whose_endpoint_cannot_be_reached_stays_at_home(server: HasAddress, endpoint: str, road: str) -> None:
    began = time.monotonic()
    with Home(server.address, endpoint=endpoint) as home, tclient.connect(home.address) as session:
        assert time.monotonic() - began < 2.0
        assert is_at(session, home.address)
        x = tclient.zeros(3)
        count_to(x, range(1, 51))
        session.transfers.endpoint.address = ""
        numbers = np.arange(1 << 20, dtype=np.float32)
        assert np.array_equal((tclient.from_numpy(numbers) + 1).numpy(), numbers + 1)
        assert tclient.server_info().sessions >= 1
    assert home.asked["CloseSession"] == 1


def test_another_server_under_the_name_of_the_endpoint_is_not_taken_for_it(server: HasAddress) -> None:
    with (
        serving() as other,
        Home(server.address, endpoint=other.address) as home,
        tclient.connect(home.address) as session,
    ):
        assert is_at(session, home.address)
        assert tclient.ones(2).tolist() == [1, 1]


def test_an_endpoint_that_swallows_all_is_given_up_in_time(
    home: Home, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_REACH_S", 0.3)
    proxy.black_hole()
    began = time.monotonic()
    with tclient.connect(home.address) as session:
        assert time.monotonic() - began < 5.0
        assert is_at(session, home.address)
        count_to(tclient.zeros(3), range(1, 21))


def test_adds_over_a_cut_for_good_give_the_exact_sum_by_way_of_home(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        count_to(x, range(1, 101))
        proxy.refuse()
        proxy.cut()
        began = time.monotonic()
        count_to(x, range(101, 201))
        assert time.monotonic() - began < TOLD_S
        assert is_at(session, home.address)
        assert x.tolist() == [200.0] * 3
    assert home.asked["ExecuteStream"] >= 1


def test_a_connection_that_comes_back_at_once_is_not_left(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        for cut in range(5):
            count_to(x, range(20 * cut + 1, 20 * cut + 21))
            proxy.cut()
        assert x.tolist() == [100.0] * 3
        assert is_at(session, proxy.address)


def test_adds_of_many_threads_over_changes_of_way_give_the_exact_sum(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(())
        ended = threading.Event()
        counts = [0] * 3

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
            for _ in range(3):
                proxy.refuse()
                proxy.cut()
                wait_until(lambda: is_at(session, home.address), 10.0, "the way by home")
                proxy.refuse(False)
                wait_until(lambda: is_at(session, proxy.address), 10.0, "the return to the endpoint")
        finally:
            ended.set()
            for thread in threads:
                thread.join(30.0)
        assert x.item() == sum(counts)


def test_a_read_that_waits_while_the_endpoint_goes_is_answered_by_way_of_home(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.eye(400) * 2
        y = x
        for _ in range(60):
            y = (y @ x) / 2
        waits = session.stats.waits
        read: list[float] = []
        reader = threading.Thread(target=lambda: read.append(y.sum().item()))
        reader.start()
        wait_until(lambda: session.stats.waits > waits or bool(read), 10.0, "the wait of the reader")
        proxy.refuse()
        proxy.cut()
        reader.join(20.0)
        assert read == [800.0]


def test_bulk_data_goes_by_way_of_home(home: Home, proxy: Proxy) -> None:
    numbers = np.arange(1 << 20, dtype=np.float32)
    with tclient.connect(home.address) as session:
        session.transfers.endpoint.address = ""
        proxy.refuse()
        proxy.cut()
        assert np.array_equal((tclient.from_numpy(numbers) + 1).numpy(), numbers + 1)
    assert home.asked["Upload"]
    assert home.asked["Download"]


def test_forward_passes_go_by_way_of_home(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address):
        served = tclient.models.create("followed", tclient.nn.Linear(3, 2))
        rows = np.ones((2, 3), dtype=np.float32)
        expected = served(rows)
        proxy.refuse()
        proxy.cut()
        assert np.allclose(served(rows), expected)
        served.delete()


def test_an_endpoint_that_falls_silent_is_left(home: Home, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    short = (
        ("grpc.keepalive_time_ms", 300),
        ("grpc.keepalive_timeout_ms", 300),
        ("grpc.http2.ping_timeout_ms", 300),
        ("grpc.min_reconnect_backoff_ms", 300),
    )
    monkeypatch.setattr(channel, "_ENDPOINT_OPTIONS", short)
    monkeypatch.setattr(batches, "_SILENCE_S", 0.5)
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        count_to(x, range(1, 21))
        proxy.black_hole()
        count_to(x, range(21, 31))
        assert is_at(session, home.address)


def test_home_may_be_gone_while_the_endpoint_is_there(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        count_to(x, range(1, 21))
        home.stop()
        proxy.cut()
        count_to(x, range(21, 41))
        proxy.refuse()
        proxy.cut()
        x.add_(1)
        refused = proxy.accepted
        wait_until(lambda: proxy.accepted > refused + 1, 10.0, "attempts to connect again")
        proxy.refuse(False)
        assert x.tolist() == [41.0] * 3
        home.start()
        assert is_at(session, proxy.address)


@pytest.fixture
def engine() -> Iterator[ServerProcess]:
    """A server that may be killed."""
    with ServerProcess() as engine:
        yield engine


def test_clients_of_an_engine_that_was_killed_are_told_why(
    server: HasAddress, engine: ServerProcess, road: str
) -> None:
    with proxied(engine.address, road) as proxy, Home(engine.address, endpoint=proxy.address) as home:
        with tclient.connect(home.address) as busy, tclient.connect(home.address) as idle:
            with busy.use():
                x = tclient.zeros(3)
                x.tolist()
            with idle.use():
                y = tclient.ones(3)
                y.tolist()
            told: list[BaseException] = []

            def work() -> None:
                try:
                    add_for_ever(x)
                except tclient.SessionLost as error:
                    told.append(error)

            worker = threading.Thread(target=work)
            worker.start()
            doomed = [engine.pid, engine.engine_pid()]
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda: not any(map(is_alive, doomed)), 10.0, "the end of the engine")
            home.lose(engine.address, CAUSE)
            worker.join(TOLD_S)
            assert CAUSE in str(told[0])
            with pytest.raises(tclient.SessionLost, match=CAUSE):
                y.tolist()
            with pytest.raises(tclient.SessionLost, match=CAUSE):
                tclient.ones(1).tolist()
            assert time.monotonic() - began < TOLD_S
        # Another engine takes its place.
        home.engine, home.endpoint = server.address, server.address
        with tclient.connect(home.address) as session:
            assert is_at(session, server.address)
            assert tclient.ones(2).tolist() == [1, 1]


def test_a_successor_at_the_same_endpoint_says_that_the_session_is_lost(engine: ServerProcess, road: str) -> None:
    with Home(engine.address, endpoint=engine.address) as home, tclient.connect(home.address):
        x = tclient.zeros(3)
        x.tolist()
        os.kill(engine.engine_pid(), signal.SIGKILL)
        with pytest.raises(tclient.SessionLost, match="SIGKILL"):
            add_for_ever(x)


@pytest.fixture(scope="module")
def mortal() -> Iterator[ServerProcess]:
    """Two engines behind their own front."""
    with serving("--engines", "2") as house:
        yield house


@pytest.fixture
def house(mortal: ServerProcess) -> ServerProcess:
    """The same, with both engines there, which the test may kill."""
    with Raw(mortal.address) as raw:

        def is_whole() -> bool:
            return [each.state for each in raw.ask("GetServerInfo").engines] == ["SERVING"] * 2

        wait_until(is_whole, 30.0, "both engines")
    return mortal


def kill_engines(house: ServerProcess, *ids: str) -> None:
    """Kill engines of a house."""
    for pid in children_of(house.pid):
        if name_of(pid) in {f"tserver:{id}" for id in ids}:
            os.kill(pid, signal.SIGKILL)


def engine_of(session: Session) -> str:
    """The engine that a session lives on."""
    with session.use():
        return next(each.id for each in tclient.server_info().engines if each.boot_id == session.opened.boot_id)


def test_one_engine_of_a_house_ends_with_its_sessions_alone(house: ServerProcess, road: str) -> None:
    with contextlib.ExitStack() as stack:
        first = second = stack.enter_context(tclient.connect(house.address))

        def is_on_another() -> bool:
            nonlocal second
            second = stack.enter_context(tclient.connect(house.address))
            return engine_of(second) != engine_of(first)

        # Where the next session goes, the house decides.
        wait_until(is_on_another, 10.0, "a session on the other engine", interval_s=0.1)
        assert {first.endpoint, second.endpoint}.isdisjoint({house.address})
        with first.use():
            x = tclient.zeros(3)
            x.tolist()
        with second.use():
            y = tclient.zeros(3)
            count_to(y, range(1, 21))
        began = time.monotonic()
        kill_engines(house, engine_of(first))
        with pytest.raises(tclient.SessionLost, match="SIGKILL"):
            add_for_ever(x)
        assert time.monotonic() - began < TOLD_S
        with second.use():
            count_to(y, range(21, 41))
        with tclient.connect(house.address):
            assert tclient.ones(2).tolist() == [1, 1]


def test_a_session_can_be_opened_as_soon_as_one_was_lost_with_all_engines(house: ServerProcess, road: str) -> None:
    with tclient.connect(house.address):
        x = tclient.zeros(3)
        x.tolist()
        kill_engines(house, "0", "1")
        with pytest.raises(tclient.SessionLost, match="SIGKILL"):
            add_for_ever(x)
    with tclient.connect(house.address):
        assert tclient.ones(2).tolist() == [1, 1]


def connections_to(address: str) -> int:
    """How many connections this process has to a port, from /proc."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(port):
                inodes.add(fields[9])
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{entry}").removeprefix("socket:[").removesuffix("]") in inodes
        except OSError:
            continue
    return found


@pytest.mark.parametrize("breaks", [False, True], ids=["at the endpoint", "at home"])
def test_a_closed_session_leaves_no_connection_on_either_way(home: Home, proxy: Proxy, breaks: bool) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        count_to(x, range(1, 11))
        if breaks:
            proxy.refuse()
            proxy.cut()
            count_to(x, range(11, 21))
            assert connections_to(home.address)
        else:
            wait_until(lambda: not connections_to(home.address), 5.0, "the end of the connection to home")
            assert connections_to(proxy.address)
    assert session.closed
    wait_until(lambda: not connections_to(home.address), 5.0, "the end of the connections to home")
    wait_until(lambda: not connections_to(proxy.address), 5.0, "the end of the connections to the endpoint")


FORKING = """
import os, sys, tclient

tclient.connect(sys.argv[1])
x = tclient.zeros(3)
print(x.tolist(), flush=True)
input()
print(x.add_(1).tolist(), tclient._session.current.current().endpoint == sys.argv[1], flush=True)
child = os.fork()
if not child:
    try:
        x.tolist()
    except tclient.NotConnectedError:
        with tclient.connect(sys.argv[1]):
            os._exit(int(tclient.full((), 7).item()))
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), x.add_(1).tolist())
"""


def test_a_fork_takes_neither_way_along(server: HasAddress) -> None:
    # In a process without the gRPC of this home: that has no gate that a fork could close.
    with (
        proxied(server.address, "grpc") as proxy,
        Home(server.address, endpoint=proxy.address) as home,
        subprocess.Popen(
            [sys.executable, "-c", FORKING, home.address],
            env=server_environment(TCLIENT_LANE="0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program,
    ):
        assert program.stdout is not None
        assert program.stdout.readline() == "[0.0, 0.0, 0.0]\n"
        proxy.refuse()
        proxy.cut()
        told, errors = program.communicate("\n", timeout=60)
        assert told == "[1.0, 1.0, 1.0] True\n7 [2.0, 2.0, 2.0]\n", errors


def test_ctrl_c_leaves_the_session_as_it_is(home: Home, proxy: Proxy) -> None:
    with tclient.connect(home.address) as session:
        x = tclient.zeros(3)
        x.tolist()
        home.stop()
        proxy.refuse()
        proxy.cut()
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            x.add_(1).tolist()
        home.start()
        assert x.tolist() == [1.0] * 3
        assert is_at(session, home.address)
