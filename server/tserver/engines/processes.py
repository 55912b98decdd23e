"""The engines of a house that are processes of this machine: children of the supervisor, which is asked over a socket.

They outlive the front, and each other. Knows neither gRPC nor torch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from tserver.engines.control import End, event_of, message_of
from tserver.engines.fleet import Event, Launch, Told

log = logging.getLogger("tserver.engines")

_MAX_MESSAGE_BYTES = 1 << 16


class ChildEngines:
    """See Fleet."""

    def __init__(self, control: int) -> None:
        """`control` is the descriptor of the socket, which is this object's from now on."""
        self.key = ""
        self.node = self.internal = self.leader = ""
        self._socket = socket.socket(fileno=control)
        self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque()
        self._on_event: Callable[[Event], None] | None = None
        self._told_all: asyncio.Future[None] | None = None

    async def start(self, on_event: Callable[[Event], None]) -> None:
        """See Fleet. When this returns, all has been told that was known before."""
        loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._told_all = loop.create_future()
        loop.add_reader(self._socket.fileno(), self._receive)
        await self._told_all

    def launch(self, wanted: Launch) -> None:
        """See Fleet."""
        self._send(message_of(wanted))

    def end(self, engine: str, cause: str) -> None:
        """See Fleet."""
        self._send(message_of(End(engine, cause)))

    def left(self, engine: str) -> None:
        """See Fleet. In a cluster it is told; the supervisor drains no engine."""
        if self.node:
            self._send({"is": "left", "engine": engine})

    async def stop(self) -> None:
        """See Fleet."""
        self._close()

    def tell(self, told: Told) -> None:
        """See Fleet."""
        if self.node:
            self._send(message_of(told))

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._end_without_supervisor()
            return
        message = json.loads(data)
        if message["is"] == "house":
            self.key, self.node = message["key"], message.get("node", "")
            self.internal, self.leader = message.get("internal", ""), message.get("leader", "")
        elif message["is"] == "leader":
            self.leader = message["internal"]
        elif message["is"] == "all":
            if self._told_all is not None and not self._told_all.done():
                self._told_all.set_result(None)
        elif self._on_event is not None:
            self._on_event(event_of(message))

    def _send(self, message: dict[str, Any]) -> None:
        self._waiting.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        if self._socket.fileno() < 0:
            self._waiting.clear()
            return
        while self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._socket.fileno(), self._flush)
                return
            except ConnectionError:
                # Reading tells of it.
                self._waiting.clear()
                break
            self._waiting.popleft()
        asyncio.get_running_loop().remove_writer(self._socket.fileno())

    def _end_without_supervisor(self) -> None:
        """Nobody would start it again, nor any engine."""
        log.critical("the supervisor is gone; the front ends")
        self._close()
        if self._told_all is not None and not self._told_all.done():
            self._told_all.set_exception(ConnectionError("the supervisor is gone"))
        signal.raise_signal(signal.SIGTERM)

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
