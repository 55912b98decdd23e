"""How the gRPC servers of this process listen: their options, and the binding of addresses."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Any

import grpc

from tensorcompute.wire.address import parse
from tserver.config import Config
from tserver.front import certificates
from tserver.front.certificates import Certificates, Material

# RPCs under way on one connection; those beyond it wait on the client's side. And connections of one listener.
_MAX_STREAMS = 1024
_MAX_CONNECTIONS = 16384


def most_connections(part: float) -> int:
    """Connections that a listener takes at once, which may have this part of the files that the process can open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, int(files * part)))


def options(max_message_bytes: int, part_of_files: float = 0.3) -> list[tuple[str, int]]:
    """Options of a server that takes messages of at most that size, and connections as `most_connections` says."""
    return [
        # Two servers on one port would share its connections silently.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Chunks of bulk data come in few frames.
        ("grpc.http2.max_frame_size", 1 << 20),
        # The client pings an idle connection every 30 s; allow that, or gRPC's default strikes it off.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # gRPC refuses some of many requests at once with CANCELLED, which nobody retries. The queues behind it refuse
        # with RESOURCE_EXHAUSTED, and say when to come again.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 100_000),
        ("grpc.max_metadata_size", 16 << 10),
        # Who connects and says nothing, or nothing that is of HTTP/2, is let go; so is who asks for nothing for long.
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_connection_idle_ms", 600_000),
        ("grpc.max_allowed_incoming_connections", most_connections(part_of_files)),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
    ]


def listen(server: grpc.aio.Server, option: str, address: str, config: Config) -> str:
    """Bind a server to an address, with TLS where that is set up; the address with the port that it got.

    Raises: OSError that names the option.
    """
    wanted = parse(address, listening=True)
    try:
        found = certificates.of(config)
        with _for_this_user():
            port = _add(server, wanted.text, found)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {option} {address}: {error}; choose another address") from error
    return wanted.text if wanted.path else f"{wanted.text.rpartition(':')[0]}:{port}"


def _add(server: grpc.aio.Server, address: str, found: Certificates | None) -> int:
    return server.add_insecure_port(address) if found is None else server.add_secure_port(address, credentials(found))


@contextlib.contextmanager
def _for_this_user() -> Iterator[None]:
    """A unix socket that is made meanwhile is for callers of the same user, who is thereby known."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def credentials(found: Certificates) -> grpc.ServerCredentials:
    """Of a listener of gRPC: TLS 1.2 or newer, by what the files have when a connection begins.

    Where there is an authority for clients, each must show a certificate: gRPC either demands one or asks for none.
    """
    given = found.current()

    def renewed() -> Any:
        """The configuration from now on; None is as before."""
        nonlocal given
        now = found.current()
        if now is given:
            return None
        given = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(_configuration(given), renewed, bool(given.authority))


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    pairs = [(material.key, material.chain)]
    return grpc.ssl_server_certificate_configuration(pairs, material.authority or None)


def listen_within(server: grpc.aio.Server, address: str) -> None:
    """Bind a server to where the processes of a house talk to each other: without TLS, and for who has their key.

    Raises: OSError.
    """
    try:
        with _for_this_user():
            server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} within the house: {error}") from error
