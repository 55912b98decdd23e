"""A house of engines under test: its processes, and what it says of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, children_of, name_of, serving, wait_until

ENGINE = "tserver:"


@contextlib.contextmanager
def housing(*options: str, engines: int = 2) -> Iterator[ServerProcess]:
    """A house on free ports of loopback."""
    count = ("--engines", str(engines)) if engines else ()
    with serving(*count, *options) as server:
        yield server


def engine_pids(server: ServerProcess) -> dict[str, int]:
    """The processes of the engines, by id."""
    named = {pid: name_of(pid) for pid in children_of(server.pid)}
    return {name.removeprefix(ENGINE): pid for pid, name in named.items() if name.startswith(ENGINE)}


def info(server: ServerProcess) -> ts.GetServerInfoResponse:
    """What the house says of itself."""
    with Raw(server.address) as raw:
        answer: ts.GetServerInfoResponse = raw.ask("GetServerInfo")
        return answer


def serving_engines(server: ServerProcess) -> dict[str, str]:
    """The boot ids of the engines that serve, by id."""
    return {each.id: each.boot_id for each in info(server).engines if each.state == "SERVING"}


def wait_for_engines(server: ServerProcess, count: int, timeout_s: float = 20.0) -> None:
    """Wait until so many engines serve."""
    wait_until(lambda: len(serving_engines(server)) == count, timeout_s, f"{count} engines that serve")


def engine_of(session_secret: bytes, server: ServerProcess) -> str:
    """The id of the engine that a session is on."""
    boot_id = session_secret[:8].hex()
    return next(engine for engine, boot in serving_engines(server).items() if boot == boot_id)
