"""Sessions begin, live in several, end, and do not survive a fork."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
import time
import weakref
from types import ModuleType

import numpy as np
import pytest

import tclient
from tclient._session import current
from tests.support.serving import ServerProcess, server_environment


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TCLIENT_ADDRESS", raising=False)


def test_without_a_connection_the_error_says_what_to_do() -> None:
    with pytest.raises(tclient.NotConnectedError, match=r"tclient\.connect.*TCLIENT_ADDRESS.*tserver serve"):
        tclient.ones(2)


def test_without_an_address_the_usual_one_of_this_machine_is_tried_and_named(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "_DEFAULT_ADDRESS", server.address)
    with tclient.connect() as session:
        assert session.address == server.address
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(current, "_DEFAULT_ADDRESS", address)
        told = f"no address was given and TCLIENT_ADDRESS is not set, so {address} was tried: .*tserver serve"
        with pytest.raises(tclient.ConnectFailed, match=told):
            tclient.connect()
    monkeypatch.setenv("TCLIENT_ADDRESS", address)
    with pytest.raises(tclient.ConnectFailed, match=r"^no tensor server answers"):
        tclient.connect()


def test_nothing_at_the_address_is_said_at_once_with_the_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(tclient.ConnectFailed, match=f"{address}.*start it with: tserver serve --listen") as caught:
            tclient.connect(address)
    assert time.monotonic() - began < 5
    assert isinstance(caught.value, ConnectionError)


def test_an_address_that_never_answers_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(tclient.ConnectFailed):
            tclient.connect(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - began < 5


def test_the_address_may_come_from_the_environment(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCLIENT_ADDRESS", server.address)
    assert tclient.ones(2).tolist() == [1.0, 1.0]
    tclient.disconnect()


def test_a_closed_session_says_so(server: ServerProcess) -> None:
    with tclient.connect(server.address):
        x = tclient.ones(2)
    with pytest.raises(tclient.NotConnectedError, match="is closed"):
        x.tolist()
    with pytest.raises(tclient.NotConnectedError, match="is closed"):
        x + 1


def test_leaving_a_block_brings_back_the_session_before(server: ServerProcess) -> None:
    with tclient.connect(server.address) as outer:
        with tclient.connect(server.address) as inner:
            assert tclient._session.current.current() is inner
        assert tclient._session.current.current() is outer
        with tclient.connect(server.address) as third, outer.use():
            assert tclient._session.current.current() is outer
            assert not third.closed
        assert tclient.ones(1).tolist() == [1.0]


def test_tensors_of_two_sessions_do_not_mix(server: ServerProcess) -> None:
    with tclient.connect(server.address):
        a = tclient.ones(2)
        with tclient.connect(server.address):
            b = tclient.ones(2)
            with pytest.raises(ValueError, match="one session"):
                a + b
            with pytest.raises(ValueError, match="one session"):
                tclient.cat([a, b])
            assert (a + 1).tolist() == [2.0, 2.0]


def test_tensors_dtypes_and_sizes_are_pickled_by_value(tc: ModuleType) -> None:
    assert pickle.loads(pickle.dumps(tc.ones(2))).tolist() == [1, 1]  # noqa: S301
    assert pickle.loads(pickle.dumps(tc.float32)) is tc.float32  # noqa: S301
    assert pickle.loads(pickle.dumps(tc.Size([2, 3]))) == (2, 3)  # noqa: S301


def test_a_tensor_is_a_python_object_like_others(tc: ModuleType) -> None:
    x = tc.ones(2)
    x.note = "mine"
    assert x.note == "mine"
    assert {x: 1}[x] == 1
    assert weakref.ref(x)() is x
    assert isinstance(x, tc.Tensor)
    assert np.from_dlpack(x).tolist() == [1, 1]


def test_a_copy_shares_and_a_deep_copy_does_not(tc: ModuleType) -> None:
    x = tc.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    shallow, deep = copy.copy(x), copy.deepcopy(x)
    with tc.no_grad():
        x.add_(1)
    assert (shallow.tolist(), deep.tolist(), deep.grad.tolist()) == ([2.0, 2.0], [1.0, 1.0], [3.0, 3.0])
    assert deep.requires_grad
    assert shallow.requires_grad
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly"):
        copy.deepcopy(x * 2)


def test_a_forked_child_does_not_touch_its_parent_s_session(tc: ModuleType) -> None:
    x = tc.ones(3)
    tc.synchronize()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                (x + 1).tolist()
                answer = b"no error"
            except tc.NotConnectedError as error:
                answer = str(error).encode()
            del x
            os.write(writer, answer)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)
    assert "belongs to the parent process" in told
    assert (x + 1).tolist() == [2.0, 2.0, 2.0]


def test_a_forked_child_ends_in_its_own_time_and_may_connect_itself(server: ServerProcess) -> None:
    script = """
import os, sys, time, tclient
tclient.connect(sys.argv[1])
x = tclient.ones(3)
x.tolist()
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (x + 1).tolist() == [2.0, 2.0, 2.0]
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, server.address],
        capture_output=True,
        text=True,
        timeout=60,
        env=server_environment(),
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_server_info_tells_what_the_server_is(tc: ModuleType) -> None:
    info = tc.server_info()
    assert info.devices[0].name == "cpu"
    assert info.torch_version
    assert info.sessions >= 1
    assert tc.cuda.is_available() is False
    assert tc.cuda.device_count() == 0
    with pytest.raises(AssertionError, match="not compiled with CUDA") as caught:
        tc.cuda.get_device_name()
    assert "has no CUDA device" in caught.value.__notes__[0]


def test_a_session_may_say_where_it_wants_to_live(server: ServerProcess) -> None:
    with tclient.connect(server.address, device=tclient.device("cpu")):
        assert tclient.ones(2).device.type == "cpu"
    with pytest.raises(tclient.RequestRefused, match="the server has no device 'cuda:7'; it has cpu"):
        tclient.connect(server.address, device="cuda:7")
