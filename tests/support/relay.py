"""A front that does nothing but forward, as a process: `with relayed(server.address) as front`.

Engines are ordinary servers, named by their addresses. A request goes to the engine of the session that it names, a new
session to each engine in turn, and who names no session to the first one. Knows the forwarding; does not know torch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence

import grpc

from tensorcompute.v1 import tensor_service_pb2 as ts
from tensorcompute.v1.tensor_service_pb2_grpc import TensorServiceStub
from tests.support.serving import LISTENING, ROOT, server_environment
from tserver.config import Config
from tserver.errors import ServerError, SessionLost
from tserver.front import listeners
from tserver.front.forwarding import Target, forwarding_handlers
from tserver.front.health import Health
from tserver.front.interceptor import Interceptor
from tserver.front.routing import ROUTINGS, SERVICES
from tserver.front.rpc import Rpc
from tserver.front.running import loop_factory, quiet_collector
from tserver.session.secret import boot_of
from tserver.supervisor import environment

_OPEN_SESSION = "/tensorcompute.v1.TensorService/OpenSession"
_END_TIMEOUT_S = 20.0


class Relay:
    """A process that forwards, and where it listens."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid


@contextlib.contextmanager
def relayed(*engines: str, cause: str = "") -> Iterator[Relay]:
    """A front before engines at these addresses; where one cannot be reached it tells the `cause`, if there is one."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *engines, "--cause", cause],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(server_environment()),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(LISTENING), f"the relay did not start: {line!r}"
        yield Relay(process, line.removeprefix(LISTENING).strip())
    finally:
        # It ends with its input.
        process.stdin.close()
        try:
            process.wait(_END_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


class _Front:
    """Which engine a request goes to."""

    def __init__(self, addresses: Sequence[str], cause: str) -> None:
        self._cause = cause
        self._targets = [Target(address, gone=self._gone if cause else None) for address in addresses]
        self._turns = itertools.cycle(self._targets)
        self._by_boot: dict[str, Target] = {}

    async def learn(self, addresses: Sequence[str]) -> None:
        """Ask the engines who they are."""
        for address, target in zip(addresses, self._targets, strict=True):
            async with grpc.aio.insecure_channel(address) as channel:
                info = await TensorServiceStub(channel).GetServerInfo(ts.GetServerInfoRequest())
            self._by_boot[info.boot_id] = target

    def choose(self, path: str, first: bytes, rpc: Rpc) -> Target:
        """The engine for an RPC."""
        if path == _OPEN_SESSION:
            return next(self._turns)
        secret = ROUTINGS[path].secret(first) or b""
        # Of an engine that is none of these the first one says so.
        return self._by_boot.get(boot_of(secret), self._targets[0])

    async def _gone(self) -> ServerError:
        return SessionLost(f"the session ended with its engine: {self._cause}; open a new one", cause=self._cause)


async def _serve(addresses: Sequence[str], cause: str) -> None:
    config = Config()
    front = _Front(addresses, cause)
    await front.learn(addresses)
    server = grpc.aio.server(options=listeners.options(config.max_message_bytes), interceptors=[Interceptor()])
    server.add_generic_rpc_handlers(forwarding_handlers(SERVICES, front.choose))
    health = Health(server, [service.full_name for service in SERVICES[:3]])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.say_serving()
    quiet_collector()
    print(f"{LISTENING}127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(grace=0.5)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--cause", default="")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(arguments.engines, arguments.cause))


if __name__ == "__main__":
    main()
