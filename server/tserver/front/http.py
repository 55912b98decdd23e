"""HTTP beside gRPC, for the metrics: a listener with a thread for each request. Knows no application."""

from __future__ import annotations

import socket
import ssl
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tserver.config import Config

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever scrapes does so every few seconds."""


def serve(option: str, address: str, config: Config, application: WSGIApplication) -> str:
    """Answer requests, until the process ends; the address. Raises: OSError that names the option."""
    host, _, port = address.rpartition(":")
    try:
        # The family as the system prefers it for this host.
        family, *_, found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        kind = _Server6 if family == socket.AF_INET6 else _Server
        server = make_server(str(found[0]), int(port), application, kind, _Handler)
        if config.tls_cert:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(config.tls_cert, config.tls_key)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen on {option} {address}: {error}; choose another address") from error
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return f"{host}:{server.server_port}"
