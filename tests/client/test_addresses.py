"""Addresses: each mistake has its own message, this machine is reached past every proxy, unix sockets are served."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tclient
from tensorcompute.wire.address import beside, parse, proxy_before
from tests.support.serving import ServerProcess, server_environment
from tserver.cli import main

_PROXY_VARIABLES = [f"{kind}_proxy" for kind in ("grpc", "https", "http", "all", "no", "no_grpc")]
_MISTAKES = {
    "gpu-host": "no port, and an address is HOST:PORT: write 'gpu-host:50051'",
    "gpu-host:": "no port, and an address is HOST:PORT: write 'gpu-host:50051'",
    "[::1]": r"no port, .*write '\[::1\]:50051'",
    "::1": r"more than one colon.*'\[::1\]:50051'",
    "fe80::1:50051x": r"more than one colon.*'\[fe80::1\]:50051x'",
    ":50051": "has no host; write 127.0.0.1:50051",
    "http://gpu-host:50051": "begins with http://.*no scheme: write 'gpu-host:50051'$",
    "https://gpu-host/api": "begins with https://.*write 'gpu-host:50051'; its TLS is asked for by tls=True",
    "grpc://gpu-host": "begins with grpc://.*write 'gpu-host:50051'",
    "gpu-host:50051/v1": "has a path.*write 'gpu-host:50051'",
    "gpu-host:99999": "port 99999 is out of range; ports are 1 to 65535",
    "gpu-host:0": "port 0 is out of range",
    "gpu-host:-1": "port '-1' is not a number",
    "gpu-host:grpc": "port 'grpc' is not a number; write 'gpu-host:50051'",
    "gpu host:50051": "'gpu host' is neither the name of a host nor an IP address",
    "me@gpu-host:50051": "'me@gpu-host' is neither the name",
    "256.1.1.1:50051": "'256.1.1.1' is neither the name",
    "unix:": "names no socket.*unix:/run/tserver.sock",
    "unix:/" + "a" * 120: "at most 107 bytes, and this one 121",
}


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names no proxy."""
    for name in _PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(("address", "told"), _MISTAKES.items(), ids=[text[:24] for text in _MISTAKES])
def test_an_address_that_is_none_is_told_so_and_how_it_is_written(address: str, told: str) -> None:
    with pytest.raises(tclient.InvalidAddress, match=told) as caught:
        tclient.connect(address)
    assert isinstance(caught.value, (tclient.ConnectFailed, ValueError))
    assert repr(address)[1:20] in str(caught.value)


@pytest.mark.parametrize("option", ["--listen", "--data-listen", "--oip-listen", "--metrics-listen"])
@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:99999", "http://127.0.0.1:1", ":50051"])
def test_a_server_refuses_to_listen_on_what_is_no_address(option: str, address: str) -> None:
    done = CliRunner().invoke(main, ["serve", option, address])
    assert done.exit_code == 2
    assert f"{option} {address!r}" in done.stderr


def test_what_may_stand_for_an_address_is_told_by_what_it_is() -> None:
    with pytest.raises(TypeError, match="50051 is not an address"):
        tclient.connect(50051)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "local"),
    {
        "127.0.0.1:1": True,
        "127.8.9.1:1": True,
        "[::1]:1": True,
        "localhost:1": True,
        "LocalHost.:1": True,
        "unix:/run/x": True,
        "unix:///run/x": True,
        "unix-abstract:x": True,
        "localhost.example.com:1": False,
        "128.0.0.1:1": False,
        "0.0.0.0:1": False,
        "dns:///gpu-host:1": False,
    }.items(),
)
def test_only_this_machine_is_local(address: str, local: bool) -> None:
    assert parse(address).is_local is local


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2"),
        ({"https_proxy": "http://q:2", "GRPC_PROXY": "http://g:3"}, "http://g:3"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "gpu.example.com"}, None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "a, .example.com"}, None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "example.com:50051"}, None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "*"}, None),
        ({"http_proxy": "http://p:1", "no_grpc_proxy": "gpu.example.com", "no_proxy": "x"}, None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "ample.com,10.0.0.0/8"}, "http://p:1"),
    ],
)
def test_the_environment_says_in_either_case_which_proxy_stands_before_a_host(
    environment: dict[str, str], proxy: str | None, no_proxies: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        no_proxies.setenv(name, value)
    found = proxy_before(parse("gpu.example.com:50051"))
    assert (found and found.url) == proxy
    assert proxy_before(parse("127.0.0.1:50051")) is None


def test_a_network_of_no_proxy_holds_the_addresses_in_it(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("HTTP_PROXY", "http://p:1")
    no_proxies.setenv("NO_PROXY", "10.0.0.0/8,fd00::/8")
    assert proxy_before(parse("10.1.2.3:50051")) is None
    assert proxy_before(parse("[fd00::5]:50051")) is None
    assert proxy_before(parse("11.1.2.3:50051")) is not None


class _HttpProxy:
    """Takes CONNECT requests, and leads every one to the same server."""

    def __init__(self, target: str) -> None:
        self._target = parse(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://me:secret@127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._lead, args=(caller,), daemon=True).start()

    def _lead(self, caller: socket.socket) -> None:
        asked = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in asked:
                asked += caller.recv(4096)
            self.asked.append(asked.split()[1].decode())
            there = socket.create_connection((self._target.host, self._target.port))
            caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            threading.Thread(target=_pump, args=(there, caller), daemon=True).start()
            _pump(caller, there)

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[_HttpProxy]:
    """A proxy that leads to the shared server, whatever it is asked for."""
    made = _HttpProxy(server.address)
    yield made
    made.close()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "grpc_proxy"])
def test_this_machine_is_reached_past_a_proxy(
    server: ServerProcess, proxy: _HttpProxy, variable: str, no_proxies: pytest.MonkeyPatch
) -> None:
    no_proxies.setenv(variable, "http://127.0.0.1:1")
    with tclient.connect(server.address):
        assert tclient.ones(3).sum().item() == 3
    assert _tserver("health", server.address).stdout == "SERVING\n"


@pytest.mark.parametrize("variable", ["https_proxy", "HTTP_PROXY"])
def test_another_machine_is_reached_through_the_proxy(
    proxy: _HttpProxy, variable: str, no_proxies: pytest.MonkeyPatch
) -> None:
    no_proxies.setenv(variable, proxy.url)
    with tclient.connect("gpu-host.invalid:50051"):
        assert tclient.ones(3).sum().item() == 3
    assert set(proxy.asked) == {"gpu-host.invalid:50051"}


@pytest.mark.parametrize("no_proxy", ["no_proxy", "NO_PROXY"])
def test_a_host_that_no_proxy_names_is_not_asked_of_the_proxy(
    proxy: _HttpProxy, no_proxy: str, no_proxies: pytest.MonkeyPatch
) -> None:
    no_proxies.setenv("http_proxy", proxy.url)
    no_proxies.setenv(no_proxy, ".invalid")
    with pytest.raises(tclient.ConnectFailed) as caught:
        tclient.connect("gpu-host.invalid:50051", timeout_s=2.0)
    assert not proxy.asked
    assert "proxy" not in str(caught.value)


def test_an_error_beyond_a_proxy_names_the_proxy_and_how_to_pass_it_and_no_password(
    no_proxies: pytest.MonkeyPatch,
) -> None:
    no_proxies.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:1")
    with pytest.raises(tclient.ConnectFailed) as caught:
        tclient.connect("gpu-host.invalid:50051", timeout_s=2.0)
    told = str(caught.value)
    assert re.search("proxy http://127.0.0.1:1, which HTTPS_PROXY names.*add gpu-host.invalid to no_proxy", told)
    assert "secret" not in told


def _tserver(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tserver", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=server_environment(),
    )


def test_a_unix_socket_serves_all_that_a_port_serves_and_is_gone_with_the_server(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's.sock'}"
    with ServerProcess(listen=address) as running:
        assert running.address == address
        with tclient.connect(address):
            assert tclient.ones(3).sum().item() == 3
            array = np.arange(3 << 18, dtype=np.float64)
            assert (tclient.from_numpy(array).numpy() == array).all()
            served = tclient.models.create("m", tclient.nn.MLP([2, 3]))
            assert served(np.zeros((5, 2), np.float32)).shape == (5, 3)
        assert _tserver("health", address).stdout == "SERVING\n"

        second = _tserver("serve", "--listen", address)
        assert second.returncode == 1
        assert f"cannot listen on --listen {address}" in second.stderr
        assert "another path" in second.stderr

        # The second one took nothing from the first, which is started again where it was.
        with tclient.connect(address):
            x = tclient.ones(3)
            assert x.sum().item() == 3
            os.kill(running.engine_pid(), signal.SIGKILL)
            with pytest.raises(tclient.SessionLost, match="SIGKILL"):
                x.sum().item()
        with tclient.connect(address):
            assert tclient.ones(3).sum().item() == 3
    assert not (tmp_path / "s.sock").exists()


def test_a_unix_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's.sock'}"
    with ServerProcess(listen=address) as running:
        running.kill()
    assert (tmp_path / "s.sock").exists()
    with ServerProcess(listen=address), tclient.connect(address):
        assert tclient.ones(3).sum().item() == 3


@pytest.mark.parametrize(
    ("address", "told"),
    [("unix:{}/file", "cannot listen"), ("unix:{}/none/s.sock", "No such file or directory")],
    ids=["a file is there", "no such folder"],
)
def test_a_path_that_cannot_be_a_socket_is_refused_and_left_as_it_is(tmp_path: Path, address: str, told: str) -> None:
    (tmp_path / "file").write_text("mine")
    done = CliRunner().invoke(main, ["serve", "--listen", address.format(tmp_path)])
    assert done.exit_code == 1
    assert told in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", ["--metrics-listen", "--data-listen"])
def test_metrics_and_bulk_data_take_no_unix_socket(option: str) -> None:
    done = CliRunner().invoke(main, ["serve", option, "unix:/run/s.sock", "--listen", "127.0.0.1:0"])
    assert done.exit_code == 1
    assert f"{option} 'unix:/run/s.sock' is a unix socket; this listener takes HOST:PORT" in done.stderr


def test_nothing_is_imported_from_the_working_directory_of_a_server(tmp_path: Path) -> None:
    trap = "import pathlib, os; pathlib.Path(__file__).with_name('sprung').touch(); os._exit(3)\n"
    # A library that the server imports, some that libraries import if they are there, and some of Python's own.
    for name in ("safetensors", "click", "torch", "numpy", "psutil", "sympy", "uvloop", "secrets", "yaml"):
        (tmp_path / f"{name}.py").write_text(trap)
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(trap.replace("with_name", "parent.with_name"))
    process = subprocess.Popen(
        [sys.executable, "-m", "tserver", "serve", "--listen", "127.0.0.1:0", "--device", "cpu"],
        cwd=tmp_path,
        env=server_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), process.communicate()[1]
        with tclient.connect(line.split()[-1]):
            loss = tclient.nn.Linear(2, 1)(tclient.ones(3, 2)).sum()
            loss.backward()
        assert not (tmp_path / "sprung").exists()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("named", "asked", "meant"),
    [
        (":50052", "gpu-host:50051", "gpu-host:50052"),
        (":50052", "10.0.0.7:50051", "10.0.0.7:50052"),
        (":50052", "[::1]:50051", "[::1]:50052"),
        (":50052", "[fe80::1%eth0]:50051", "[fe80::1%eth0]:50052"),
        (":50052", "dns:gpu-host:50051", "gpu-host:50052"),
        (":50052", "dns:///gpu-host:50051", "gpu-host:50052"),
        (":50052", "dns://10.0.0.1/gpu-host:50051", "gpu-host:50052"),
        (":50052", "ipv4:10.0.0.7:50051", "10.0.0.7:50052"),
        (":50052", "ipv6:[::1]:50051", "[::1]:50052"),
        (":50052", "ipv4:10.0.0.7:50051,10.0.0.8:50051", None),
        (":50052", "unix:/run/tserver.sock", None),
        ("other:50052", "gpu-host:50051", "other:50052"),
        ("[::1]:50052", "gpu-host:50051", "[::1]:50052"),
        ("other:50052", "unix:/run/tserver.sock", "other:50052"),
        ("unix:/run/engine.sock", "gpu-host:50051", "unix:/run/engine.sock"),
        ("other", "gpu-host:50051", None),
        (":0", "gpu-host:50051", None),
        (":https", "gpu-host:50051", None),
    ],
)
def test_what_a_server_names_without_a_host_is_on_its_own(named: str, asked: str, meant: str | None) -> None:
    found = beside(named, parse(asked))
    assert (None if found is None else found.text) == meant
