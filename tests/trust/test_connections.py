"""Floods of connections on every port: who says nothing, or nonsense, keeps nobody out and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import tclient
from tensorcompute.oip import inference_pb2 as oip
from tests.support.listeners import listener
from tests.support.serving import ServerProcess, wait_until
from tserver.front import rpc
from tserver.front.binding import SERVICES, bind
from tserver.front.interceptor import Interceptor

Code = grpc.StatusCode

# As many as a server may have files in this test, and more who say nothing.
FILES, SILENT = 256, 300
SERVED_WITHIN_S = 15.0
# A long run has 20,000.
HOSTILE = int(os.environ.get("TSERVER_TEST_CONNECTIONS", "1000"))


@pytest.fixture(scope="module")
def poor() -> Iterator[ServerProcess]:
    """A server with few files and all ports."""
    options = ("--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    with ServerProcess(*options, files=FILES) as server:
        yield server


def ports_of(server: ServerProcess) -> dict[str, str]:
    with tclient.Session.open(server.address) as session:
        data = session.opened.data_endpoint
    told = {kind: listener(server, kind) for kind in ("oip", "http", "metrics")}
    return {"main": server.address, "data": f"127.0.0.1{data}" if data.startswith(":") else data, **told}


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5.0)


def held(pid: int) -> tuple[int, int]:
    """The descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def answers(ask: Callable[[], Any]) -> Callable[[], bool]:
    def tried() -> bool:
        with contextlib.suppress(tclient.TensorError, grpc.RpcError, OSError):
            ask()
            return True
        return False

    return tried


def work(address: str) -> None:
    with tclient.Session.open(address) as session, session.use():
        assert (tclient.ones(300_000) + 1).sum().item() == 600_000


def test_silent_connections_on_every_port_keep_nobody_out_for_long(poor: ServerProcess) -> None:
    ports = ports_of(poor)
    silent = []
    try:
        for address in ports.values():
            for _ in range(SILENT):
                # Beyond a bound they are refused, which is as good.
                with contextlib.suppress(OSError):
                    silent.append(connected(address))
        wait_until(answers(lambda: work(poor.address)), SERVED_WITHIN_S, "an answer at the main port")

        def live() -> None:
            with grpc.insecure_channel(ports["oip"]) as channel:
                ask: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                assert oip.ServerLiveResponse.FromString(ask(b"", timeout=2.0)).live

        wait_until(answers(live), SERVED_WITHIN_S, "an answer at the port of the Open Inference Protocol")
        for kind, path in (("http", "/v2/health/live"), ("metrics", "/metrics")):
            url = f"http://{ports[kind]}{path}"
            wait_until(answers(lambda url=url: urllib.request.urlopen(url, timeout=2.0).read()), 15.0, url)  # type: ignore[misc]
    finally:
        for each in silent:
            each.close()


def nonsense(number: int) -> bytes:
    """What a hostile peer says first."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return (
        b"",
        secrets.token_bytes(64),
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        preface,
        preface + b"\xff" * 64,
        b"TCD2" + secrets.token_bytes(60),
        preface + struct.pack(">I", 0)[1:] + b"\x04\x00" + struct.pack(">I", 0) + b"\x00\x40\x00\x01\x05" + b"\x00" * 4,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + secrets.token_bytes(32),
    )[number % 8]


@pytest.mark.timeout(900)
def test_hostile_connections_leave_no_thread_and_no_descriptor(poor: ServerProcess) -> None:
    ports = list(ports_of(poor).values())
    pid = poor.engine_pid()
    work(poor.address)
    before = held(pid)

    def attack(first: int) -> None:
        open_ones: list[socket.socket] = []
        for number in range(first, HOSTILE, 4):
            with contextlib.suppress(OSError):
                one = connected(ports[number // 8 % len(ports)])
                open_ones.append(one)
                one.sendall(nonsense(number))
                if number % 3 == 0:
                    # Reset, and not closed.
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if len(open_ones) > 20:
                for each in open_ones:
                    each.close()
                open_ones.clear()
        for each in open_ones:
            each.close()

    attackers = [threading.Thread(target=attack, args=(first,)) for first in range(4)]
    for each in attackers:
        each.start()
    for each in attackers:
        each.join()
    wait_until(answers(lambda: work(poor.address)), SERVED_WITHIN_S, "an answer after the flood")

    def is_over() -> bool:
        files, threads = held(pid)
        # A connection of the data endpoint has a thread for a moment; gRPC keeps some of its own for later.
        return files <= before[0] + 2 and threads <= before[1] + 4

    wait_until(is_over, 20.0, f"no more than {before} (now {held(pid)})")
    assert Path(f"/proc/{pid}").exists()


def test_a_stream_on_which_nothing_is_said_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_FIRST_S", 0.05)
    over = threading.Event()

    def silent() -> Iterator[bytes]:
        over.wait(60.0)
        yield from ()

    async def begin() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(interceptors=[Interceptor()])
        server.add_generic_rpc_handlers((bind(SERVICES[0], Reader(), only={"ExecuteStream"}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(10.0)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.stream_stream("/tensorcompute.v1.TensorService/ExecuteStream")
            call = method(silent(), timeout=20.0)
            assert call.code() is Code.DEADLINE_EXCEEDED
            assert "no message came on this stream" in call.details()
    finally:
        over.set()
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Reader:
    """A servicer that waits for what is said."""

    async def ExecuteStream(self, requests: AsyncIterator[Any], _: Any) -> None:
        """Read it all."""
        async for _ in requests:
            pass
