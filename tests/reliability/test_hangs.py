"""An engine that hangs, a process that is stopped, and a server that is told to stop within a kernel."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import grpc
import pytest

import tclient as tc
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.raw import RawSession
from tests.support.serving import ServerProcess, serving, states_of, wait_until
from tests.support.values import Kept

HANG_S = 1.0
DRAIN_S = 2.0
# A sum that takes days, where the server is told to allow it.
ENDLESS = 10**15
ALLOWED = ("--max-call-elements", str(2**62))


@pytest.fixture(scope="module")
def impatient() -> Iterator[ServerProcess]:
    """A server that gives up soon."""
    options = ["--hang-s", str(HANG_S), "--drain-s", str(DRAIN_S), "--lease-s", "60"]
    with serving(*options, *ALLOWED) as server:
        yield server


@pytest.mark.parametrize("trouble", ["a kernel that does not end", "a process that does not run"])
def test_a_server_that_hangs_is_started_again_and_says_why(impatient: ServerProcess, trouble: str) -> None:
    with tc.connect(impatient.address):
        x = tc.ones(1)
        assert x.item() == 1.0
        if trouble == "a kernel that does not end":
            x = x.expand(ENDLESS).sum()
            why = "the engine hung in Tensor.sum for 1 s"
        else:
            engine = impatient.engine_pid()
            os.kill(engine, signal.SIGSTOP)
            # Each thread stops when it is its turn.
            wait_until(lambda: states_of(engine) == {"T"}, 10.0, "all threads of the server stand still")
            why = "the server hung: nothing of it has run for"
        with pytest.raises(tc.SessionLost, match=why):
            x.item()
    with tc.connect(impatient.address):
        assert tc.ones(2).sum().item() == 2.0


def _answers(session: RawSession) -> bool:
    """Whether the engine has a moment. It has until the kernel begins, which is after the batch was sent."""
    try:
        session.ask("GetServerInfo", timeout_s=1.0)
    except grpc.RpcError as error:
        if "Deadline Exceeded" not in str(error):
            raise
        return False
    return True


def _ready(http: str) -> int:
    """The status of what a health check over HTTP asks."""
    with Caller(http) as caller:
        return caller.ask("GET", "/v2/health/ready").status


def test_a_server_that_is_told_to_stop_within_a_kernel_stops_in_time() -> None:
    options = ["--drain-s", str(DRAIN_S), "--hang-s", "10", "--http-listen", "127.0.0.1:0", *ALLOWED]
    with serving(*options) as server, RawSession(server.address) as session:
        http = listener(server, "http")
        assert _ready(http) == 200
        calls = [session.call(1, "ones", 1), session.call(2, "Tensor.expand", Kept(1), ENDLESS)]
        calls.append(session.call(3, "Tensor.sum", Kept(2)))
        with session.stream() as stream:
            stream.send(session.batch(*calls))
            wait_until(lambda: not _answers(session), 20.0, "the kernel to hold the engine")
            wait_until(lambda: _ready(http) == 400, 5.0, "health to say so")
            began = time.monotonic()
            assert server.terminate(DRAIN_S + 10.0) == 0
            assert time.monotonic() - began < DRAIN_S + 5.0
