"""A front that does nothing but have engines, and tell what becomes of them: it serves orders, lines of JSON over TCP.

Runs in the place of `tserver.child`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.support.serving import wait_until
from tserver import logs
from tserver.config import Config
from tserver.engines.control import message_of
from tserver.engines.fleet import Event, Launch
from tserver.engines.house import House
from tserver.engines.processes import ChildEngines

MODULE = "tests.support.small_front"


def main() -> int:
    """Serve orders until told to stop; the exit code."""
    settings = json.loads(sys.argv[1])
    assert settings.pop("role") == "front"
    cause_file, previous_end = settings.pop("cause_file"), settings.pop("previous_end")
    beats, control = settings.pop("beats"), settings.pop("control")
    config = Config(**settings)
    logs.set_up(config.log_level, config.log_format)
    if config.advertise == "never":
        return 3
    return asyncio.run(_Front(config, control, {"cause_file": cause_file, "previous_end": previous_end}).run(beats))


class _Front:
    def __init__(self, config: Config, control: int, told: dict[str, str]) -> None:
        self._config = config
        self._fleet = ChildEngines(control)
        self._told = told
        self._events: list[dict[str, Any]] = []
        self._serving: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self, beats: int) -> int:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        beating = asyncio.create_task(_beat(beats))
        await self._fleet.start(self._note)
        self._told["known"] = json.dumps(self._events)
        first = {str(index) for index in range(self._config.engines)}
        for engine in first:
            self._fleet.launch(self.launch(engine))
        await self._until(lambda: first <= self._serving)
        host, _, port = self._config.listen.rpartition(":")
        server = await asyncio.start_server(self._serve, host, int(port))
        print(f"listening on {host}:{server.sockets[0].getsockname()[1]}", flush=True)
        await stop.wait()
        for engine in self._serving:
            self._fleet.end(engine, "the server is stopping")
        await self._until(lambda: not self._serving)
        beating.cancel()
        await self._fleet.stop()
        return 0

    def launch(self, engine: str, *, is_kept: bool = True, **settings: Any) -> Launch:
        """How an engine is started."""
        # As the address that is within the house is not to be guessed.
        within = f"unix-abstract:{hashlib.sha256(self._fleet.key.encode()).hexdigest()[:16]}-{engine}"
        config = replace(self._config, **{"listen": "127.0.0.1:0", "engines": 0, **settings})
        return Launch(config, House(engine, self._fleet.key, within, "", "cpu"), is_kept=is_kept)

    def _note(self, event: Event) -> None:
        message = message_of(event)
        self._events.append(message)
        if message["is"] == "serving":
            self._serving.add(event.engine)
        else:
            self._serving.discard(event.engine)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = json.loads(await reader.readline())
        do = order.pop("do")
        if do == "launch":
            self._fleet.launch(self.launch(**order))
        elif do == "end":
            self._fleet.end(**order)
        elif do == "exit":
            os._exit(order["code"])
        modules = sorted({"torch", "grpc"} & set(sys.modules))
        key = hashlib.sha256(self._fleet.key.encode()).hexdigest()
        told = {"events": self._events, "pid": os.getpid(), "key": key, "modules": modules, **self._told}
        writer.write(json.dumps(told).encode())
        writer.close()


async def _beat(beats: int) -> None:
    while True:
        os.write(beats, b".")
        await asyncio.sleep(0.1)


# --- on the side of the tests ---------------------------------------------------------------------------------------


def ask(address: str, do: str = "tell", **order: Any) -> dict[str, Any]:
    """Give the front an order; what it knows. Waits for a front that is being started again."""
    host, _, port = address.rpartition(":")
    answers: list[dict[str, Any]] = []

    def answered() -> bool:
        with (
            contextlib.suppress(ConnectionError, json.JSONDecodeError),
            socket.create_connection((host, int(port)), 5.0) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(json.dumps({"do": do, **order}).encode() + b"\n")
            answers.append(json.loads(answer.read()))
        return bool(answers) or do == "exit"

    wait_until(answered, 20.0, f"an answer of the front to {do}")
    return answers[0] if answers else {}


if __name__ == "__main__":
    sys.exit(main())
