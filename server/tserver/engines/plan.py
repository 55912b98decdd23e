"""What engines a house is to have, from its settings: their devices, ports and threads. Knows no torch."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from tensorcompute.wire.address import parse
from tserver.config import Config
from tserver.engines.fleet import Launch
from tserver.engines.house import House
from tserver.errors import Exhausted, InvalidArgument

_GPU = re.compile(r"cuda:([0-9]+)")
# Each engine takes two ports: for gRPC, and for bulk bytes.
_PORTS_EACH = 2


class Plan:
    """The engines of one host."""

    def __init__(self, config: Config, key: str, node: str = "") -> None:
        """`node` is which host of a cluster this is: its engines are there without this.

        Raises: InvalidArgument for a setting that cannot be.
        """
        self._config = config
        self._key = key
        # The first GPU of each engine, which is what the house calls its device, with all that it holds.
        self._held = by_engine(devices_of(config.device, gpus_here()), config.devices_per_engine)
        self.devices = list(self._held)
        self._host, self._first_port, self._last_port = _advertised(config.advertise)
        # Which place among the ports an engine has.
        self._slots: dict[int, str] = {}
        # The house's name, which is in those of the sockets where its processes meet. The key is in none.
        self.name = _name(key, node)
        self.front = front_address(key, node)
        self.is_of_cluster = bool(node)
        self.is_isolated = config.isolation != "shared"

    @property
    def first(self) -> list[tuple[str, str]]:
        """The engines that are to be there from the beginning, and their devices."""
        if self.is_isolated or self.is_of_cluster:
            return []
        count = self._config.engines or len(self.devices)
        return [(str(index), self.devices[index % len(self.devices)]) for index in range(count)]

    @property
    def most(self) -> int:
        """How many engines there may be; 0 is any number."""
        return self._config.engines

    def launch(self, engine: str, device: str) -> Launch:
        """How an engine is started. Raises: Exhausted where there is no port for it."""
        gpu = _GPU.fullmatch(device)
        listen, data_listen = self._addresses(engine)
        config = replace(
            self._config,
            listen=listen,
            data_listen=data_listen,
            device="cuda:0" if gpu else device,
            devices_per_engine=len(self._held[device]),
            threads=self._config.threads or (0 if gpu else self._share()),
            engines=0,
            isolation="shared",
            advertise="",
            # The front alone writes models to disk.
            data_dir="",
        )
        house = House(engine, self._key, self.internal(engine), self.front, device, self._config.data_dir)
        shown = _shown()
        gpus = tuple(shown[_number(each)] for each in self._held[device]) if gpu else None
        return Launch(config, house, gpus, is_kept=not self.is_isolated)

    def internal(self, engine: str) -> str:
        """Where an engine listens for the front."""
        return f"unix-abstract:tserver-{self.name}-{engine}"

    def release(self, engine: str) -> None:
        """An engine does not come again: its ports are free."""
        for slot in [slot for slot, holder in self._slots.items() if holder == engine]:
            del self._slots[slot]

    def endpoint(self, bound: str) -> str:
        """What clients are told of an engine that listens there; empty is the front itself."""
        if self._config.front_only:
            return ""
        if bound.startswith("unix:"):
            return bound
        host, _, port = bound.rpartition(":")
        if self._host:
            return f"{self._host}:{port}"
        is_same = host == self._config.listen.rpartition(":")[0] or host.strip("[]") in ("", "0.0.0.0", "::")
        return f":{port}" if is_same else bound

    def _share(self) -> int:
        """Threads of an engine on the CPU: the cores are divided."""
        cores = len(os.sched_getaffinity(0))
        return max(1, cores // max(2, self._config.engines))

    def _addresses(self, engine: str) -> tuple[str, str]:
        """Where an engine listens for clients, and for their bulk bytes."""
        config = self._config
        address = parse(config.listen, listening=True)
        if address.path:
            return f"unix:{address.path}.{engine}", ""
        host = address.text.rpartition(":")[0]
        data_host = config.data_listen.rpartition(":")[0] if config.data_listen not in ("", "auto") else ""
        if not self._first_port:
            return f"{host}:0", f"{data_host}:0" if data_host else config.data_listen
        port = self._port(engine)
        data = config.data_listen if not config.data_listen else f"{data_host or host}:{port + 1}"
        return f"{host}:{port}", data

    def _port(self, engine: str) -> int:
        count = (self._last_port - self._first_port + 1) // _PORTS_EACH
        for slot in range(count):
            if self._slots.setdefault(slot, engine) == engine:
                return self._first_port + slot * _PORTS_EACH
        raise Exhausted(
            f"--advertise {self._config.advertise} has ports for {count} engines, which are all in use; retry later",
            retry_after_s="1",
        )


def front_address(key: str, node: str = "") -> str:
    """Where the front of a host listens for the engines there."""
    return f"unix-abstract:tserver-{_name(key, node)}-front"


def _name(key: str, node: str) -> str:
    return hashlib.blake2b(f"{key}{node}".encode(), digest_size=8).hexdigest()


def gpus_here() -> int:
    """How many GPUs this process is shown."""
    return len(_shown())


def _shown() -> list[str]:
    """The GPUs that this process is shown, as CUDA_VISIBLE_DEVICES names them. CUDA itself is not asked."""
    there = sum(1 for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return [str(index) for index in range(there)]
    return [each.strip() for each in shown.split(",") if each.strip()][:there]


def devices_of(wish: str, gpus: int) -> list[str]:
    """The devices that `--device` names, as the house counts them. Raises: InvalidArgument for what is not there."""
    if wish == "auto":
        wish = "cuda:all" if gpus else "cpu"
    if wish == "cuda:all":
        if not gpus:
            raise InvalidArgument("--device cuda:all: this host has no GPU; use cpu")
        return [f"cuda:{index}" for index in range(gpus)]
    found = ["cuda:0" if each.strip() == "cuda" else each.strip() for each in wish.split(",")]
    for each in found:
        gpu = _GPU.fullmatch(each)
        if each != "cpu" and gpu is None:
            raise InvalidArgument(f"--device {each!r} is not known; use auto, cpu, cuda:all, or a list of cuda:n")
        if gpu is not None and int(gpu[1]) >= gpus:
            raise InvalidArgument(f"--device {each!r} is not there: this host shows {gpus} GPUs")
    if len(set(found)) != len(found):
        raise InvalidArgument(f"--device {wish!r} names a device twice; --engines says how many engines there are")
    return found


def by_engine(devices: list[str], count: int) -> dict[str, list[str]]:
    """The GPUs that each engine holds, so many of them, by the first; the CPU is one engine's by itself.

    Raises: InvalidArgument where they cannot be divided so.
    """
    gpus = [each for each in devices if each != "cpu"]
    held = {gpus[start]: gpus[start : start + count] for start in range(0, len(gpus), count)}
    for first, group in held.items():
        # The house names those of an engine by counting on from its first.
        if [_number(each) for each in group] != list(range(_number(first), _number(first) + count)):
            raise InvalidArgument(
                f"--devices-per-engine {count}: {', '.join(gpus)} cannot be divided among engines of {count} GPUs that "
                "follow each other; give others with --device"
            )
    return {each: held.get(each, [each]) for each in devices if each in held or each == "cpu"}


def _number(gpu: str) -> int:
    return int(gpu.rpartition(":")[2])


def _advertised(text: str) -> tuple[str, int, int]:
    """The host and the range of ports of `--advertise`; empty and 0 where it says nothing of them."""
    if not text:
        return "", 0, 0
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]*)(?::([0-9]{1,5})-([0-9]{1,5}))?", text)
    if match is None or (match[2] and not 0 < int(match[2]) < int(match[3]) <= 65535):
        raise InvalidArgument(
            f"--advertise {text!r} is not HOST, HOST:PORT-PORT or :PORT-PORT with the lower port first"
        )
    return match[1], int(match[2] or 0), int(match[3] or 0)
