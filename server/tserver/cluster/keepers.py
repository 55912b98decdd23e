"""What actors do: each keeps one child process going, and speaks for it with the directory. Knows no Ray.

A keeper is a thread, and its child ends with it. The directory may be away at any time: what it is to know waits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import Protocol

from tserver.cluster.known import Message, News
from tserver.cluster.ports import Ports, free_port
from tserver.cluster.process import Process
from tserver.cluster.spec import Spec
from tserver.cluster.view import View
from tserver.engines.plan import front_address

log = logging.getLogger("tserver.cluster")

_TICK_S = 0.5
_BEAT_S = 1.0
# What ends sooner than this after its start would only end again.
_HEALTHY_AFTER_S = 5.0
_LONGEST_PAUSE_S = 30.0
# How long a front may leave what it is told lying.
_FRONT_TIMEOUT_S = 30.0


class Away(Exception):
    """The directory cannot be reached now."""


class Directory(Protocol):
    """The directory, as actors reach it. All of it raises Away."""

    def serving(self, message: Message) -> None:
        """An engine serves."""

    def beat(self, engine: str, boot_id: str) -> bool:
        """It goes on; whether it is known."""

    def ended(self, message: Message) -> None:
        """A run of it has ended."""

    def last_end(self, engine: str) -> str:
        """Why the last run of an engine ended, as far as that is known."""

    def front(self, node: str, address: str, internal: str, *, leads: bool, told: list[Message]) -> None:
        """A front goes on, or is about to begin, whose address is empty then. `leads` says that it keeps the models,
        and `told` what the engines of its host have to do.
        """

    def left(self, engine: str) -> None:
        """An engine has no model any more that others lack."""

    def news(self, run: str, version: int, told_version: int) -> News:
        """What is new; waits a while for something."""


class _Keeper(threading.Thread):
    """A child that is started again when it ends by itself, until it is told to stop."""

    def __init__(self, name: str, spec: Spec, directory: Directory) -> None:
        super().__init__(name=name, daemon=True)
        self._spec = spec
        self._directory = directory
        self._stop_for = ""
        self._stopping = threading.Event()
        self._quick_ends = 0

    def stop(self, cause: str) -> None:
        """End the child for good, in its own time; this thread ends when that is done."""
        self._stop_for = self._stop_for or cause
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                process = self._begin()
            except OSError as error:
                self._quick_ends += 1
                self._ended(str(error))
                self._pause()
                continue
            while process.code() is None:
                if self._stopping.is_set():
                    process.stop(self._spec.config.drain_s)
                self._turn(process, _TICK_S)
            for _ in range(2):
                # What it said last.
                self._turn(process, 0.0)
            self._quick_ends = self._quick_ends + 1 if process.age_s < _HEALTHY_AFTER_S else 0
            cause = process.close()
            log.warning("%s ended", self.name, extra={"cause": self._stop_for or cause})
            self._ended(self._stop_for or cause)
            self._pause()
        self._over()

    def _pause(self) -> None:
        """What ended soon would end again."""
        if self._quick_ends:
            self._stopping.wait(min(_LONGEST_PAUSE_S, 2.0 ** (self._quick_ends - 1) - 1.0))

    def _begin(self) -> Process:
        raise NotImplementedError

    def _turn(self, process: Process, wait_s: float) -> None:
        raise NotImplementedError

    def _ended(self, cause: str) -> None:
        """A run has ended."""

    def _over(self) -> None:
        """There will be no other run."""


class EngineKeeper(_Keeper):
    """An engine."""

    def __init__(self, engine: str, spec: Spec, directory: Directory, node: str, node_ip: str) -> None:
        super().__init__(f"engine {engine}", spec, directory)
        self._engine = engine
        self._node = node
        self._host = spec.host(node_ip)
        self._ports = Ports(spec.config.advertise, self._host, node_ip)
        self._reading = -1
        self._said = b""
        self._serving: Message | None = None
        self._beaten_at = 0.0
        self._untold: deque[Message] = deque()
        self._cause = ""

    def _begin(self) -> Process:
        spec = self._spec
        self._ports.choose()
        self._internal = f"{self._host}:{free_port(self._host)}"
        cause = self._cause
        with contextlib.suppress(Away):
            cause = cause or self._directory.last_end(self._engine)
        config = spec.engine_config(self._ports.listen, self._ports.data_listen(spec.config.data_listen))
        house = spec.house(self._engine, self._internal, front_address(spec.key, self._node))
        self._said, self._serving = b"", None
        reading, writing = os.pipe()
        self._reading = reading
        settings = {"role": "engine", "config": asdict(config), "house": house.message(), "previous_end": cause}
        return Process({**settings, "beats": None}, {"report": writing}, (reading,))

    def _turn(self, process: Process, wait_s: float) -> None:
        for is_printed, data in process.turn(wait_s):
            if is_printed:
                print(data.decode(errors="replace"), end="", flush=True)
                continue
            self._said += data
            if self._serving is None and self._said.endswith(b"\n"):
                self._serves(json.loads(self._said), process.pid)
        now = time.monotonic()
        if self._serving is None or now - self._beaten_at <= _BEAT_S or not self._tell_ends():
            return
        self._beaten_at = now
        with contextlib.suppress(Away):
            if not self._directory.beat(self._engine, self._serving["boot_id"]):
                self._directory.serving(self._serving)

    def _serves(self, said: dict[str, str], pid: int) -> None:
        self._serving = {
            "is": "serving",
            "engine": self._engine,
            "boot_id": said["boot_id"],
            "internal": self._internal,
            "endpoint": self._ports.endpoint(said["address"]),
            "device": self._spec.house(self._engine, "", "").device,
            "node": self._node,
            "pid": pid,
        }
        # It is told at the next beat, which is now.
        self._beaten_at = 0.0

    def _ended(self, cause: str) -> None:
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        self._cause = cause
        boot_id = "" if self._serving is None else self._serving["boot_id"]
        ended = {"is": "ended", "engine": self._engine, "boot_id": boot_id, "cause": cause}
        self._untold.append({**ended, "comes_again": not self._stop_for})
        self._serving = None
        self._tell_ends()

    def _over(self) -> None:
        for _ in range(5):
            if self._tell_ends():
                return
            time.sleep(_BEAT_S)

    def _tell_ends(self) -> bool:
        with contextlib.suppress(Away):
            while self._untold:
                self._directory.ended(self._untold[0])
                self._untold.popleft()
        return not self._untold


class FrontKeeper(_Keeper):
    """The front of a host: it is told over its socket, as the supervisor would tell it, what becomes of engines."""

    def __init__(self, spec: Spec, directory: Directory, node: str, node_ip: str) -> None:
        super().__init__("front", spec, directory)
        self._node = node
        host = spec.host(node_ip)
        # Where other fronts reach this one.
        self._internal = f"{host}:{free_port(host)}"
        self._view = View()
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._listen = spec.config.listen
        self.address = ""
        self._printed = b""
        self._cause = ""
        self._told_at = 0.0
        # What engines here have said since then.
        self._told: dict[str, Message] = {}
        self._knows = threading.Event()

    def run(self) -> None:
        watching = threading.Thread(target=self._watch, name="watch", daemon=True)
        watching.start()
        # A front that knew no engine would call all sessions lost; and it is to know where models are kept.
        while not self._knows.wait(_TICK_S) and not self._stopping.is_set():
            self._beat()
        super().run()
        watching.join()

    def _begin(self) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_FRONT_TIMEOUT_S)
        config = self._spec.front_config(self._listen)
        settings = {"role": "front", "config": asdict(config), "previous_end": self._cause, "beats": None}
        process = Process(settings, {"control": theirs}, (ours,))
        with self._lock:
            self._control = ours
            place = {"node": self._node, "internal": self._internal}
            self._send({"is": "house", "key": self._spec.key, **place, "leader": self._leader()})
            for message in self._view.all():
                self._send(message)
            self._send({"is": "all"})
        return process

    def _turn(self, process: Process, wait_s: float) -> None:
        for is_printed, data in process.turn(wait_s):
            # It may also wish for engines, which is no business of a front's here.
            if not is_printed and data:
                self._hear(json.loads(data))
            if is_printed:
                self._printed += data
                *lines, self._printed = self._printed.split(b"\n")
                for line in lines:
                    self._note(line.decode(errors="replace"))
        self._beat()
        if self._control is None:
            process.end("the front did not listen to what it was told")

    def _beat(self) -> None:
        if time.monotonic() - self._told_at > _BEAT_S:
            self._told_at = time.monotonic()
            with contextlib.suppress(Away):
                leads, told = self._view.leader == self._node, list(self._told.values())
                self._directory.front(self._node, self.address, self._internal, leads=leads, told=told)
                self._told.clear()

    def _hear(self, message: Message) -> None:
        """What the front says on its socket."""
        if message["is"] == "told":
            self._told[message["engine"]] = message
        elif message["is"] == "left":
            with contextlib.suppress(Away):
                self._directory.left(message["engine"])

    def _leader(self) -> str:
        """Where the front is reached that keeps the models; empty is here."""
        return "" if self._view.leader == self._node else self._view.leader_at

    def _note(self, line: str) -> None:
        kind, found, address = line.partition("listening on ")
        if found and not kind:
            # A free port that was found once stays the port.
            self._listen = self.address = address
        print(line, flush=True)

    def _ended(self, cause: str) -> None:
        with self._lock:
            if self._control is not None:
                self._control.close()
            self._control = None
        self._cause = cause

    def _watch(self) -> None:
        """Ask the directory what is new, again and again."""
        while not self._stopping.is_set():
            try:
                news = self._directory.news(self._view.run, self._view.version, self._view.told_version)
            except Away:
                self._stopping.wait(_TICK_S)
                continue
            with self._lock:
                before = self._leader()
                for message in self._view.take(news, time.monotonic()):
                    self._send(message)
                if self._leader() != before:
                    self._send({"is": "leader", "internal": self._leader()})
            if self._view.leader:
                self._knows.set()

    def _send(self, message: Message) -> None:
        if self._control is None:
            return
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            # It has ended, or will be ended.
            self._control.close()
            self._control = None
