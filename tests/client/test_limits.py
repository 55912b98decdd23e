"""No wait outlives the limit that it was given, and none hangs where green threads have replaced the real ones."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tclient
from tests.support.serving import ServerProcess, server_environment, states_of, wait_until

_LIMIT_S = 0.6
# Between the limit and the end of a wait on a machine that is busy.
_SLACK_S = 5.0


@pytest.fixture(scope="module")
def stoppable() -> Iterator[ServerProcess]:
    """A server of our own, which may be stopped for a while."""
    with ServerProcess() as running:
        yield running


class _Stopped:
    """Within it the server's process does nothing."""

    def __init__(self, server: ServerProcess) -> None:
        self._pid = server.engine_pid()

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        # Each thread stops when it is its turn.
        wait_until(lambda: states_of(self._pid) == {"T"}, 10.0, "all threads of the server stand still")

    def __exit__(self, *exc: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


_BIG = np.ones(3 << 18)
_WAITS: dict[str, Callable[[ModuleType, Any, Any], Any]] = {
    "item": lambda tc, x, served: x.sum().item(),
    "numpy": lambda tc, x, served: x.numpy(),
    "print": lambda tc, x, served: repr(x),
    "shape": lambda tc, x, served: x.nonzero().shape,
    "truth": lambda tc, x, served: bool(x[0] == 1),
    "synchronize": lambda tc, x, served: (x + 1, tc.synchronize()),
    "numpy_async": lambda tc, x, served: asyncio.run(x.numpy_async()),
    "forward of a served model": lambda tc, x, served: served(np.ones((1, 2), np.float32)),
    "what the server is": lambda tc, x, served: tc.server_info(),
    "list of models": lambda tc, x, served: tc.models.list(),
    "statistics of a model": lambda tc, x, served: served.statistics(),
    "export of a model": lambda tc, x, served: served.export(os.path.join(tempfile.gettempdir(), "never")),
    "upload": lambda tc, x, served: tc.from_numpy(_BIG),
    "many calls": lambda tc, x, served: [x + 1 for _ in range(60_000)],
    "large calls": lambda tc, x, served: [tc.tensor(_BIG[:100_000]) for _ in range(100)],
}


@pytest.mark.parametrize("wait", _WAITS.values(), ids=_WAITS)
def test_a_wait_ends_at_its_limit_and_the_session_goes_on(stoppable: ServerProcess, wait: Any) -> None:
    with tclient.connect(stoppable.address, read_timeout_s=_LIMIT_S) as session:
        x = tclient.ones(3)
        served = tclient.models.create("limits", tclient.nn.MLP([2, 2]))
        try:
            served(np.ones((1, 2), np.float32))
            assert x.tolist() == [1, 1, 1]
            with _Stopped(stoppable):
                began = time.monotonic()
                with pytest.raises(tclient.ReadTimeout, match=r"within 0\.6 s \(read_timeout_s\)") as late:
                    wait(tclient, x, served)
                took_s = time.monotonic() - began
            assert _LIMIT_S * 0.9 < took_s < _LIMIT_S + _SLACK_S
            assert isinstance(late.value, TimeoutError)
            session.read_timeout_s = None
            assert (x + 1).tolist() == [2, 2, 2]
            session.read_timeout_s = 30.0
            assert x.sum().item() == 3
        finally:
            session.read_timeout_s = None
            served.delete()


@pytest.mark.parametrize("road", ["data endpoint", "gRPC"])
def test_a_transfer_that_does_not_get_on_ends_at_the_limit(stoppable: ServerProcess, road: str) -> None:
    with tclient.connect(stoppable.address, read_timeout_s=_LIMIT_S) as session:
        if road == "gRPC":
            session.transfers.endpoint.address = ""
        large = tclient.zeros(8 << 20)
        large.sum().item()

        def stop_at_once(done: int, total: int) -> None:
            session.progress = False
            os.kill(stoppable.engine_pid(), signal.SIGSTOP)

        session.progress = stop_at_once
        try:
            with pytest.raises(tclient.ReadTimeout, match="download: the server at"):
                large.numpy()
        finally:
            os.kill(stoppable.engine_pid(), signal.SIGCONT)
        session.read_timeout_s = None
        assert not large.numpy().any()


def test_a_transfer_that_gets_on_may_take_longer_than_the_limit(stoppable: ServerProcess) -> None:
    with tclient.connect(stoppable.address, read_timeout_s=0.3) as session:
        told: list[int] = []

        def dawdle(done: int, total: int) -> None:
            told.append(done)
            # What the callback takes is no wait for the server.
            time.sleep(0.05)

        session.progress = dawdle
        large = np.arange(16 << 20, dtype=np.float32)
        began = time.monotonic()
        session.transfers.endpoint.address = ""
        assert (tclient.from_numpy(large).numpy() == large).all()
        assert time.monotonic() - began > 0.3
        assert told


def test_the_error_tells_the_operation_and_the_line_that_waited(stoppable: ServerProcess) -> None:
    with tclient.connect(stoppable.address, read_timeout_s=_LIMIT_S):
        x = tclient.ones(3)
        x.tolist()
        with _Stopped(stoppable), pytest.raises(tclient.ReadTimeout) as late:
            x.sum().item()
        assert (late.value.operation, late.value.filename) == ("Tensor.item", __file__)


def _silent() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connecting_ends_in_time_whoever_is_there(tls: bool) -> None:
    with _silent() as listener:
        began = time.monotonic()
        with pytest.raises(tclient.ConnectFailed):
            tclient.connect(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.8, tls=tls)
        assert time.monotonic() - began < 0.8 + _SLACK_S
    began = time.monotonic()
    with pytest.raises(tclient.ConnectFailed):
        tclient.connect("no-such-host.invalid:50051", timeout_s=0.8, tls=tls)
    assert time.monotonic() - began < 0.8 + _SLACK_S


_GREEN = """
import sys, time
{patch}
import numpy, tclient as torch

with torch.connect(sys.argv[1], timeout_s=20):
    x = torch.ones(3)
    for _ in range(300):
        x = x + 1
    print(x.tolist())
    served = torch.models.create(sys.argv[2], torch.nn.MLP([3, 2]))
    for _ in range(30):
        assert served(numpy.ones((2, 3), "float32")).shape == (2, 2)
    served.delete()
"""


def _run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=server_environment(**environment),
    )


def test_threads_that_gevent_has_replaced_without_telling_grpc_are_refused_with_the_remedy(
    server: ServerProcess,
) -> None:
    done = _run(_GREEN.format(patch="import gevent.monkey; gevent.monkey.patch_all()"), server.address, "green")
    assert done.returncode == 1
    assert re.search(r"ConnectFailed: connect: gevent .*grpc\.experimental\.gevent\.init_gevent\(\)", done.stderr)


def test_gevent_works_once_grpc_knows_of_it(server: ServerProcess) -> None:
    patch = "import gevent.monkey; gevent.monkey.patch_all()\nimport grpc.experimental.gevent as g; g.init_gevent()"
    done = _run(_GREEN.format(patch=patch), server.address, "green")
    assert (done.returncode, done.stdout) == (0, "[301.0, 301.0, 301.0]\n"), done.stderr


def test_gevent_that_leaves_threads_alone_needs_nothing(server: ServerProcess) -> None:
    patch = "import gevent.monkey; gevent.monkey.patch_all(thread=False)"
    done = _run(_GREEN.format(patch=patch), server.address, "green")
    assert (done.returncode, done.stdout) == (0, "[301.0, 301.0, 301.0]\n"), done.stderr


def test_threads_that_eventlet_has_replaced_are_refused_with_the_remedy(server: ServerProcess) -> None:
    # A stand-in: the package itself is deprecated by its own authors, and only this question is asked of it.
    patch = (
        "import types; m = types.ModuleType('eventlet.patcher'); m.is_monkey_patched = lambda what: what == 'thread'\n"
        "sys.modules['eventlet.patcher'] = m"
    )
    done = _run(_GREEN.format(patch=patch), server.address, "green")
    assert done.returncode == 1
    assert "eventlet.monkey_patch(thread=False)" in done.stderr
