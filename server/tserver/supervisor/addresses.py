"""What can be listened on, found out before anything is started."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from tensorcompute.wire.address import parse


class PortTaken(Exception):
    """Another process listens on the port already."""


def reserve(listen: str, option: str = "--listen", *, unix: bool = True) -> None:
    """See that an address can be listened on; with port 0 a port is found by who listens.

    Raises: PortTaken, ValueError for what is no address, or names a unix socket where that is not possible.
    """
    try:
        address = parse(listen, listening=True)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None
    if address.path and not unix:
        raise ValueError(f"{option} {listen!r} is a unix socket; this listener takes HOST:PORT")
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            if address.path:
                _clear(address.path, probe)
                probe.bind(address.path)
                os.unlink(address.path)
            else:
                # As gRPC binds: a port whose last connections are only timing out is free, one that is listened on is
                # not.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Port 0 stays 0: the server itself takes one, so that nobody can take it in between.
                probe.bind((address.host, address.port))
        except socket.gaierror as error:
            raise ValueError(f"{option} {listen!r}: the host {address.host!r} is not known ({error})") from error
        except OSError as error:
            remedy = "another path" if address.path else "another port"
            raise PortTaken(
                f"cannot listen on {option} {listen}: {error.strerror}; stop the other server, or choose {remedy}"
            ) from error


def _clear(path: str, probe: socket.socket) -> None:
    """Remove a socket that nobody listens on any more: what a server leaves that was killed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            try:
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
