"""Servers that end, crash and come back, and leases that run out: SessionLost, with the cause, and never a hang."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest

import tclient
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.roads import proxied
from tests.support.serving import ServerProcess, is_alive, serving, wait_until
from tests.support.values import Kept

Code = grpc.StatusCode
LEASE_S = 2.0


@pytest.fixture(scope="module")
def mortal() -> Iterator[ServerProcess]:
    """A server with a short lease that these tests may crash, but not end."""
    with serving("--lease-s", str(LEASE_S)) as server:
        yield server


def restarted(server: ServerProcess, old_boot: str) -> bool:
    try:
        with Raw(server.address) as raw:
            boot: str = raw.ask("GetServerInfo", timeout_s=2.0).boot_id
            return boot != old_boot
    except grpc.RpcError:
        return False


@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGKILL], ids=lambda number: number.name)
def test_a_crash_of_the_engine_ends_sessions_with_its_cause_and_the_server_is_back(
    mortal: ServerProcess, crash: signal.Signals
) -> None:
    with tclient.connect(mortal.address) as session:
        x = tclient.ones(3)
        assert x.tolist() == [1, 1, 1]
        engine = mortal.engine_pid()
        assert engine != mortal.pid, "a supervisor and its child"
        began = time.monotonic()
        os.kill(engine, crash)
        # It may answer until the signal has ended it.
        wait_until(lambda: not is_alive(engine), 10.0, "the end of the engine")
        with pytest.raises(tclient.SessionLost) as told:
            x.add_(1).tolist()
        assert time.monotonic() - began < 60.0
        assert crash.name in str(told.value)
        with pytest.raises(tclient.SessionLost):
            tclient.ones(1).tolist()
        old_boot = session.opened.boot_id
    assert restarted(mortal, old_boot)
    assert mortal.engine_pid() != engine
    assert [line for line in mortal.stdout if line.startswith("listening on")] == [f"listening on {mortal.address}"]
    with tclient.connect(mortal.address):
        assert tclient.ones(2).tolist() == [1, 1]


def test_a_lease_that_runs_out_while_the_connection_is_cut_loses_the_session(mortal: ServerProcess, road: str) -> None:
    with proxied(mortal.address, road) as proxy, Raw(mortal.address) as raw:
        before = raw.ask("GetServerInfo").sessions
        with tclient.connect(proxy.address):
            x = tclient.ones(3)
            assert x.tolist() == [1, 1, 1]
            proxy.refuse()
            proxy.cut()
            wait_until(lambda: raw.ask("GetServerInfo").sessions == before, 10 * LEASE_S, "the end of the lease")
            proxy.refuse(False)
            with pytest.raises(tclient.SessionLost, match=r"lease|attached"):
                x.tolist()


def test_a_server_that_is_gone_for_good_loses_the_session_when_the_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the client gives a server beyond the lease, to come back and say that the session is lost.
    monkeypatch.setattr("tclient._session.batches.RESTART_S", 1.0)
    with serving("--lease-s", str(LEASE_S)) as server, tclient.connect(server.address):
        x = tclient.ones(3)
        x.tolist()
        child = server.engine_pid()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(child), 10.0, "the end of the child with its supervisor")
        began = time.monotonic()
        with pytest.raises(tclient.SessionLost, match=server.address):
            x.tolist()
        assert time.monotonic() - began < LEASE_S + 15.0
        with pytest.raises(tclient.ConnectFailed, match=server.address):
            tclient.connect(server.address, timeout_s=5.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_server_that_is_asked_to_stop_finishes_what_runs(number: signal.Signals) -> None:
    with serving() as server, RawSession(server.address) as session, RawSession(server.address) as late:
        child = server.engine_pid()
        x = session.make("eye", 500)
        calls = [session.call(0, "matmul", x, x) for _ in range(150)]
        with session.stream() as stream:
            stream.send(session.batch(*calls, session.call(0, "Tensor.sum", x), session.call(7, "Tensor.sum", x)))
            stream.send(session.batch(session.call(0, "Tensor.item", Kept(7))))
            late.held()
            server.signal(number)
            wait_until(lambda: refuses_sessions(late), 10.0, "the refusal of new sessions")
            assert stream.receive().seq == 2
            assert stream.receive().value(0) == 500.0
        assert server.wait() == 0
        assert not is_alive(child)


def refuses_sessions(raw: Raw) -> bool:
    code = status_of(lambda: raw.ask("OpenSession", min_protocol=1, max_protocol=1))
    assert code in (Code.OK, Code.UNAVAILABLE)
    return code == Code.UNAVAILABLE


def test_a_server_refuses_to_start_beside_a_rival(mortal: ServerProcess) -> None:
    rival = ServerProcess(listen=mortal.address)
    assert rival.wait(30.0) != 0
    said = rival.log()
    assert mortal.address in said or str(mortal.port) in said, said
    assert "in use" in said, said
    assert "listening on" not in "\n".join(rival.stdout)
    with Raw(mortal.address) as raw:
        raw.ask("GetServerInfo")


def test_a_server_refuses_a_port_that_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rival = ServerProcess(listen=f"127.0.0.1:{other.getsockname()[1]}")
        assert rival.wait(30.0) != 0
        assert "in use" in rival.log()


def test_a_deadline_that_passes_in_the_line_harms_nobody(mortal: ServerProcess) -> None:
    with RawSession(mortal.address) as session, RawSession(mortal.address) as other:
        x = session.make("eye", 500)
        pid = mortal.engine_pid()
        batch = session.batch(*(session.call(0, "matmul", x, x) for _ in range(100)), session.call(0, "Tensor.sum", x))
        running = threading.Thread(target=session.execute, args=(batch,))
        running.start()
        asks: dict[str, dict[str, Any]] = {"GetTensor": {"tensor": x}, "ListTensors": {}, "GetServerInfo": {}}
        for method, fields in asks.items():
            for _ in range(5):
                code = status_of(partial(session.ask, method, timeout_s=0.003, **fields))
                assert code in (Code.OK, Code.DEADLINE_EXCEEDED)
        running.join(20.0)
        assert session.held()[0] == 1
        assert other.read(other.make("ones", 2)).tolist() == [1, 1]
        assert mortal.engine_pid() == pid


def test_a_call_with_a_deadline_that_has_passed_is_not_applied_twice(mortal: ServerProcess) -> None:
    with RawSession(mortal.address) as session:
        x = session.make("zeros", ())
        batch = session.batch(session.call(0, "Tensor.add_", x, 1), session.call(0, "Tensor.item", x))
        for _ in range(10):
            code = status_of(lambda: session.execute(batch, timeout_s=0.001))
            assert code in (Code.OK, Code.DEADLINE_EXCEEDED)
        assert session.execute(batch).value(1) == 1


def test_a_session_of_an_earlier_boot_is_lost_for_raw_callers_too(mortal: ServerProcess) -> None:
    with RawSession(mortal.address) as session, RawSession(mortal.address) as streaming, streaming.stream() as stream:
        os.kill(mortal.engine_pid(), signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as told:
            stream.receive()
        assert isinstance(told.value, grpc.Call)
        assert told.value.code() == Code.UNAVAILABLE, "the connection broke; nothing is known of the session yet"
        wait_until(lambda: restarted(mortal, session.opened.boot_id), 30.0, "the next boot")
        with Raw(mortal.address) as raw, refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST") as lost:
            raw.ask("ListTensors", context=session.context())
        assert "SIGKILL" in lost.metadata["cause"]
