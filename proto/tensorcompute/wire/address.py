"""Addresses of servers: HOST:PORT or unix:PATH, and the proxy that stands before one.

gRPC by itself takes any text for a name to look up, sends this machine's own addresses to a proxy, and reads the
variables that name proxies in lower case only.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_USUAL_PORT = 50051
_MAX_PORT = 65535
# The kernel's sockaddr_un.
_MAX_UNIX_PATH = 107
# Ways to find a server that gRPC itself knows; what follows is not for us to judge.
_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix-abstract:", "vsock:", "xds:")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Of these one host alone: dns:NAME:PORT, with or without slashes, ipv4:HOST:PORT, ipv6:[HOST]:PORT.
_RESOLVED = re.compile(r"(?:dns:(?://[^/]*/)?|ipv4:|ipv6:)(\[[^\]]+\]|[^/:,]+):[0-9]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. One of host and path is empty; with an address for gRPC's own resolvers both are."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def is_local(self) -> bool:
        """Whether it can only be this machine: loopback, or a unix socket."""
        if self.text.startswith(("unix:", "unix-abstract:")):
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return self.host.rstrip(".").lower() in ("localhost", "localhost.localdomain")


def parse(given: str, *, listening: bool = False) -> Address:
    """Read an address. One to listen on may have port 0, which is any free one.

    Raises: ValueError, whose text quotes the address and says what it should be; TypeError if it is no text.
    """
    if not isinstance(given, str):
        raise TypeError(f'{given!r} is not an address; give text, such as "127.0.0.1:{_USUAL_PORT}"')
    text = given.strip()
    if text.startswith("unix:"):
        return _unix(text)
    if text.startswith(_RESOLVERS) and not listening:
        return Address(text)
    if scheme := _SCHEME.match(text):
        plain = text[scheme.end() :].partition("/")[0].rpartition("@")[2] or "HOST"
        plain = plain if re.search(r":[0-9]+$", plain) else f"{plain}:{_USUAL_PORT}"
        secure = "; its TLS is asked for by tls=True" if scheme[1].lower() in ("https", "grpcs") else ""
        raise ValueError(f"{given!r} begins with {scheme[0]}, and an address has no scheme: write {plain!r}{secure}")
    if "/" in text:
        raise ValueError(f"{given!r} has a path, and an address is HOST:PORT: write {text.partition('/')[0]!r}")
    if not text:
        raise ValueError(f'the address is empty; write HOST:PORT, such as "127.0.0.1:{_USUAL_PORT}"')
    return _host_and_port(given, text, listening)


def host_of(address: Address) -> str:
    """The host of a server; empty where it is not known, or one of several."""
    found = None if address.host else _RESOLVED.fullmatch(address.text)
    return found[1].strip("[]") if found else address.host


def beside(named: str, address: Address) -> Address | None:
    """Where a server at an address says that something of its is: HOST:PORT, unix:PATH, or :PORT on its own host.

    None where that is nowhere.
    """
    if named.startswith(":"):
        host = host_of(address)
        if not host:
            return None
        named = (f"[{host}]" if ":" in host else host) + named
    try:
        return parse(named)
    except ValueError:
        return None


def _unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    # gRPC writes absolute paths as unix:///path too.
    path = path[2:] if path.startswith("///") else path
    if not path or path.endswith("/"):
        raise ValueError(f"{text!r} names no socket; write unix: and the path of one, such as unix:/run/tserver.sock")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise ValueError(
            f"{text!r}: the path of a unix socket has at most {_MAX_UNIX_PATH} bytes, and this one "
            f"{len(os.fsencode(path))}; choose a shorter one"
        )
    return Address(f"unix:{path}", path=path)


def _host_and_port(given: str, text: str, listening: bool) -> Address:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        separator, port = rest[:1], rest[1:]
    else:
        host, separator, port = text.rpartition(":") if ":" in text else (text, "", "")
        if ":" in host:
            bare = text.strip("[]")
            hint = f"[{bare}]:{_USUAL_PORT}" if _is_ip(bare) else f"[{host}]:{port}"
            raise ValueError(f"{given!r} has more than one colon; an IPv6 address stands in brackets: {hint!r}")
    name = f"[{host}]" if ":" in host else host
    if separator != ":" or not port:
        raise ValueError(f"{given!r} has no port, and an address is HOST:PORT: write {name + ':' + str(_USUAL_PORT)!r}")
    if not re.fullmatch(r"[0-9]+", port):
        raise ValueError(f"{given!r}: the port {port!r} is not a number; write {name + ':' + str(_USUAL_PORT)!r}")
    least = 0 if listening else 1
    if not least <= int(port) <= _MAX_PORT:
        raise ValueError(f"{given!r}: the port {int(port)} is out of range; ports are {least} to {_MAX_PORT}")
    if not host:
        here = (
            "0.0.0.0:{0} for every interface, or 127.0.0.1:{0} for this machine alone" if listening else "127.0.0.1:{0}"
        )
        raise ValueError(f"{given!r} has no host; write {here.format(int(port))}")
    numeric = bool(re.fullmatch(r"[0-9.]+", host)) or ":" in host
    if not (_is_ip(host) if numeric else _HOST.fullmatch(host) or not host.isascii()) or re.search(r"\s", host):
        raise ValueError(f"{given!r}: {host!r} is neither the name of a host nor an IP address")
    return Address(f"{name}:{int(port)}", host=host, port=int(port))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the environment names."""

    variable: str
    url: str

    def __str__(self) -> str:
        """Without the password that it may hold."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def proxy_before(address: Address) -> Proxy | None:
    """The proxy that connections to an address go through, in gRPC's order; None is none."""
    if address.is_local or not address.host:
        return None
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        variable, url = _variable(name)
        if url:
            excepted = _variable("no_grpc_proxy")[1] or _variable("no_proxy")[1]
            if any(_matches(address.host, entry) for entry in re.split(r"[,\s]+", excepted) if entry):
                return None
            return Proxy(variable, url if "://" in url else f"http://{url}")
    return None


def _variable(name: str) -> tuple[str, str]:
    """A variable of the environment in either case of letters: its name, and its value or an empty one."""
    for variable in (name, name.upper()):
        if value := os.environ.get(variable, "").strip():
            return variable, value
    return name, ""


def _matches(host: str, entry: str) -> bool:
    """Whether an entry of no_proxy means a host: a name, the end of one, an IP address, a network, or *."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        domain = re.sub(r":[0-9]+$", "", entry).lstrip("*").strip("[].").lower()
        name = host.rstrip(".").lower()
        return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def channel_options(address: Address) -> tuple[tuple[str, str | int], ...]:
    """The options of a gRPC channel to an address that have it go through its proxy, or through none."""
    if not address.is_local and not address.host:
        return ()
    proxy = proxy_before(address)
    return (("grpc.enable_http_proxy", 0),) if proxy is None else (("grpc.http_proxy", proxy.url),)
