"""Engines behind one address: where sessions go, who is forwarded, and what is left when a process ends."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import tclient
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.engines.house import (
    engine_of,
    engine_pids,
    housing,
    info,
    serving_engines,
    wait_for_engines,
)
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, child_named, children_of, is_alive, wait_until

LOST_WITHIN_S = 5.0
# How often an engine is killed under load; a long run has a thousand.
KILLS = int(os.environ.get("TSERVER_TEST_KILLS", "20"))


@pytest.fixture(scope="module")
def house() -> Iterator[ServerProcess]:
    """Two engines, which these tests may end."""
    with housing("--metrics-listen", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    """The engines of the house are there again when a test begins."""
    if "house" in request.fixturenames:
        wait_for_engines(request.getfixturevalue("house"), 2)


def test_sessions_are_spread_and_know_where_they_are(house: ServerProcess) -> None:
    sessions = [tclient.Session.open(house.address) for _ in range(4)]
    try:
        homes = [engine_of(session.secret, house) for session in sessions]
        assert sorted(homes) == ["0", "0", "1", "1"]
        assert all(session.opened.endpoint for session in sessions)
        assert len({session.opened.endpoint for session in sessions}) == 2
        for number, session in enumerate(sessions):
            with session.use():
                assert (tclient.ones(3) * number).tolist() == [number] * 3
    finally:
        for session in sessions:
            session.close()


def test_what_names_a_session_finds_its_engine_through_the_front(house: ServerProcess) -> None:
    with tclient.connect(house.address) as session, Raw(house.address) as raw:
        x = tclient.arange(5)
        x.add_(1)
        session.synchronize()
        context = ts.SessionContext(session=session.secret)
        listed = raw.ask("ListTensors", context=context).tensors
        assert [list(each.shape) for each in listed] == [[5]]
        total = raw.ask("Add", context=context, input=listed[0].id, scalar=pb.Value(integer=10))
        got = raw.ask("GetTensor", context=context, tensor=total.tensor.id, include_data=True)
        assert [int(each) for each in memoryview(got.data.data).cast("q")] == [11, 12, 13, 14, 15]


def test_callers_without_a_session_stay_with_one_engine(house: ServerProcess) -> None:
    with Raw(house.address) as raw:
        ids = {raw.ask("CreateTensor", shape=[2], ones=ts.OnesFactory()).tensor.id.id
               for _ in range(6)}  # fmt: skip
    with Raw(house.address) as other:
        assert ids <= {each.id.id for each in other.ask("ListTensors").tensors}


def test_a_device_that_no_engine_has(house: ServerProcess) -> None:
    with pytest.raises(tclient.TensorError, match="no engine has the device 'cuda:3'; there are cpu"):
        tclient.Session.open(house.address, device="cuda:3")
    with tclient.Session.open(house.address, device="cpu") as session:
        assert session.opened.default_device == "cpu"


def test_a_secret_that_never_was_and_a_session_of_an_earlier_run(house: ServerProcess) -> None:
    with Raw(house.address) as raw:
        for secret, code in ((b"no secret", "UNAUTHENTICATED"), (bytes(24), "NOT_FOUND")):
            with pytest.raises(grpc.RpcError) as told:
                raw.ask("ListTensors", context=ts.SessionContext(session=secret))
            assert told.value.code().name in (code, "UNAUTHENTICATED", "FAILED_PRECONDITION", "ABORTED", "NOT_FOUND")


def test_a_killed_engine_takes_its_own_sessions_alone(house: ServerProcess) -> None:
    first, second = (tclient.Session.open(house.address) for _ in range(2))
    try:
        with first.use():
            x = tclient.ones(3)
        with second.use():
            y = tclient.ones(3)
        doomed = engine_of(first.secret, house)
        assert doomed != engine_of(second.secret, house)
        before = serving_engines(house)
        doomed_pid = engine_pids(house)[doomed]
        os.kill(doomed_pid, signal.SIGKILL)
        began = time.monotonic()
        with first.use():
            wait_until(lambda: not is_alive(doomed_pid), 10.0, "the end of the engine")
            with pytest.raises(tclient.SessionLost, match="SIGKILL"):
                x.add_(1).tolist()
        assert time.monotonic() - began < LOST_WITHIN_S
        with second.use():
            assert y.add_(1).tolist() == [2, 2, 2]
        wait_for_engines(house, 2)
        after = serving_engines(house)
        assert after.keys() == before.keys()
        assert {engine for engine in after if after[engine] != before[engine]} == {doomed}
        # Who comes through the front is told the same.
        with Raw(house.address) as raw, pytest.raises(grpc.RpcError) as told:
            raw.ask("ListTensors", context=ts.SessionContext(session=first.secret))
        assert "SIGKILL" in str(told.value.details())
    finally:
        second.close()


def wait_for_a_successor(server: ServerProcess, boots: set[str]) -> None:
    wait_until(lambda: bool(set(serving_engines(server).values()) - boots), 40.0, "a successor")


def test_kills_under_load(house: ServerProcess) -> None:
    """Every call succeeds or says SessionLost in time, and only where an engine was killed."""
    over = threading.Event()
    slowest = 0.0
    lost: list[str] = []

    def work() -> int:
        nonlocal slowest
        done = 0
        while not over.is_set():
            began = time.monotonic()
            try:
                session = tclient.Session.open(house.address)
            except tclient.ServerBusy:
                continue
            try:
                with session.use():
                    x = tclient.zeros(4)
                    for _ in range(50):
                        began = time.monotonic()
                        x.add_(1)
                        value = x[0].item()
                        slowest = max(slowest, time.monotonic() - began)
                        done += 1
                    assert value == 50
                session.close()
            except tclient.SessionLost as error:
                slowest = max(slowest, time.monotonic() - began)
                lost.append(str(error))
        return done

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        try:
            for number in range(KILLS):
                wait_for_engines(house, 2)
                boots = set(serving_engines(house).values())
                os.kill(engine_pids(house)[str(number % 2)], signal.SIGKILL)
                wait_for_a_successor(house, boots)
        finally:
            over.set()
        done = sum(each.result(30.0) for each in working)
    assert done > 0
    assert slowest < LOST_WITHIN_S
    assert all("SIGKILL" in text or "engine" in text for text in lost)


def test_sessions_outlive_the_front(house: ServerProcess) -> None:
    with tclient.connect(house.address) as session:
        x = tclient.ones(3)
        assert x.tolist() == [1, 1, 1]
        front = child_named(house.pid, "tserver-front")
        os.kill(front, signal.SIGKILL)
        for _ in range(20):
            x.add_(1)
            assert len(x.tolist()) == 3
        wait_until(lambda: not is_alive(front), 10.0, "the end of the front")
        assert x.tolist() == [21, 21, 21]

        def answers() -> bool:
            try:
                return len(serving_engines(house)) == 2
            except grpc.RpcError:
                return False

        wait_until(answers, 20.0, "a front that finds both engines")
        with Raw(house.address) as raw:
            listed = raw.ask("ListTensors", context=ts.SessionContext(session=session.secret))
        assert len(listed.tensors) >= 1
        assert x.add_(1).tolist() == [22, 22, 22]


def test_engines_outlive_the_fork_server_and_get_successors(house: ServerProcess) -> None:
    forks = child_named(house.pid, "tserver-forks")
    with tclient.connect(house.address) as session:
        x = tclient.ones(3)
        os.kill(forks, signal.SIGKILL)
        assert x.add_(1).tolist() == [2, 2, 2]
        mine = engine_of(session.secret, house)
        other = next(engine for engine in engine_pids(house) if engine != mine)
        before = serving_engines(house)[other]
        os.kill(engine_pids(house)[other], signal.SIGKILL)
        wait_until(lambda: serving_engines(house).get(other, before) != before, 30.0, "the successor")
        assert x.add_(1).tolist() == [3, 3, 3]


def test_metrics_tell_engines_apart(house: ServerProcess) -> None:
    address = next(line.rpartition(" ")[2] for line in house.stdout if line.startswith("metrics listening on"))
    with tclient.connect(house.address):
        tclient.ones(3).tolist()
        text = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
    for engine in "01":
        assert f'tensorcompute_engine_up{{engine="{engine}"}} 1.0' in text
        assert f'tensorcompute_sessions{{engine="{engine}"}}' in text
    assert 'engine="front"' in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left(number: signal.Signals) -> None:
    with housing() as server:
        processes = [server.pid, *children_of(server.pid)]
        assert len(processes) == 5
        with tclient.connect(server.address):
            assert tclient.ones(3).tolist() == [1, 1, 1]
        server.signal(number)
        code = server.wait()
        assert code == (-number if number == signal.SIGKILL else 0)
        wait_until(lambda: not any(map(is_alive, processes)), 10.0, "the end of all")


def test_everything_goes_through_the_front_where_that_is_wanted() -> None:
    with housing("--front-only") as server:
        sessions = [tclient.Session.open(server.address, lane=False) for _ in range(2)]
        assert [session.opened.endpoint for session in sessions] == ["", ""]
        for session in sessions:
            with session.use():
                x = tclient.rand(300, 1000)
                assert (x - x).abs().sum().item() == 0
                assert tclient.tensor(x.numpy()).equal(x)
            session.close()


@pytest.mark.parametrize("isolation", ["principal", "session"])
def test_an_engine_of_ones_own(isolation: str) -> None:
    with housing("--isolation", isolation, engines=0) as server:
        wait_for_engines(server, 1)
        sessions = [tclient.Session.open(server.address) for _ in range(2)]
        homes = {engine_of(session.secret, server) for session in sessions}
        # All here are one principal.
        assert len(homes) == (1 if isolation == "principal" else 2)
        for session in sessions:
            with session.use():
                assert tclient.ones(2).tolist() == [1, 1]
            session.close()
        if isolation == "session":
            # None is used by a second one; but one is ready.
            wait_until(lambda: not homes & engine_pids(server).keys(), 20.0, "the end of engines that were used")
            wait_for_engines(server, 1)


def test_no_more_engines_than_allowed() -> None:
    with housing("--isolation", "session", "--engines", "2", engines=0) as server:
        with (
            tclient.Session.open(server.address),
            tclient.Session.open(server.address),
            pytest.raises(tclient.ServerBusy, match="2 engines are in use"),
        ):
            tclient.Session.open(server.address, timeout_s=1.0)
        opened: list[str] = []

        def opens() -> bool:
            try:
                with tclient.Session.open(server.address) as session:
                    opened.append(session.opened.endpoint)
            except tclient.ServerBusy:
                return False
            return True

        wait_until(opens, 20.0, "a place that is free again")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cuda:all"], "no GPU"),
        (["--device", "cpu,cpu"], "twice"),
        (["--engines", "2", "--advertise", "host:9-1"], "--advertise 'host:9-1'"),
    ],
)
def test_settings_that_cannot_be(options: list[str], said: str) -> None:
    server = ServerProcess(*options)
    assert server.wait() != 0
    assert said in server.log()
    assert "Traceback" not in server.log()


def test_an_engine_that_is_stopped_is_replaced() -> None:
    with housing("--hang-s", "2") as server:
        with tclient.connect(server.address) as session:
            x = tclient.ones(3)
            assert x.tolist() == [1, 1, 1]
            mine = engine_of(session.secret, server)
            os.kill(engine_pids(server)[mine], signal.SIGSTOP)
            with pytest.raises(tclient.SessionLost, match=r"hung|hang"):
                x.add_(1).tolist()
        wait_for_engines(server, 2)


def test_info_tells_of_engines(house: ServerProcess) -> None:
    with tclient.connect(house.address):
        told = info(house)
    assert [each.id for each in told.engines] == ["0", "1"]
    assert {each.device for each in told.engines} == {"cpu"}
    assert [each.name for each in told.devices] == ["cpu"]
    assert told.operations_digest
    assert told.torch_version
