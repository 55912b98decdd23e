"""Where an engine of a host listens. Several look for ports there at once, each by itself."""

from __future__ import annotations

import re
import socket

# For gRPC, and for bulk bytes.
_PORTS_EACH = 2
_RANGE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]*)(?::([0-9]{1,5})-([0-9]{1,5}))?")


class Ports:
    """The ports of one engine, which stay the same through its runs where they are free."""

    def __init__(self, advertise: str, host: str, node_ip: str) -> None:
        """`advertise` is HOST, HOST:PORT-PORT or :PORT-PORT. Raises: ValueError for what is none of them."""
        match = _RANGE.fullmatch(advertise)
        if match is None or (match[2] and not 0 < int(match[2]) < int(match[3]) <= 65535):
            raise ValueError(f"--advertise {advertise!r} is not HOST, HOST:PORT-PORT or :PORT-PORT, lower port first")
        self._told_host = match[1]
        self._host = host
        self._pairs = range(int(match[2]), int(match[3]), _PORTS_EACH) if match[2] else range(0)
        self._port = 0

    def choose(self) -> None:
        """Choose a port for the next run. Raises: OSError if none is free."""
        if self._port and self._fits(self._port):
            return
        self._port = next((port for port in self._pairs if self._fits(port)), 0)
        if self._pairs and not self._port:
            raise OSError(f"none of the ports {self._pairs.start} to {self._pairs.stop} of {self._host} is free")

    def _fits(self, port: int) -> bool:
        return _is_free(self._host, port) and (not self._pairs or _is_free(self._host, port + 1))

    @property
    def listen(self) -> str:
        """Where the engine listens for clients."""
        return f"{self._host}:{self._port}"

    def data_listen(self, wished: str) -> str:
        """Where it listens for bulk bytes, where the house's setting is this."""
        if not wished or wished == "auto":
            return wished
        return f"{self._host}:{self._port + 1 if self._pairs else 0}"

    def endpoint(self, bound: str) -> str:
        """What clients are told of it, once it listens there."""
        port = bound.rpartition(":")[2]
        if not self._pairs:
            # A free port that was found once stays the port.
            self._port = int(port)
        return f"{self._told_host or self._host}:{port}"


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError:
            return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
