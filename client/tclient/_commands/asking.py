"""How all commands reach a server: the same options, and a connection without a session. Knows the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

from tclient._transport.channel import TENSOR_SERVICE, Channel
from tclient._transport.trust import TokenFile, Trust

ADDRESS = "TCLIENT_ADDRESS"
DEFAULT_ADDRESS = "127.0.0.1:50051"
MODEL_SERVICE = "/tensorcompute.v1.ModelService/"
T = TypeVar("T")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The options that say whom to trust, and who calls."""
    parser.add_argument("--tls", action="store_true", help="the connection is TLS, by the authorities of this machine")
    parser.add_argument("--tls-ca", metavar="FILE", help="TLS by this authority: PEM; else TCLIENT_TLS")
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate to show: PEM; else TCLIENT_TLS_CERT")
    parser.add_argument("--tls-key", metavar="FILE", help="its key: PEM; else TCLIENT_TLS_KEY")
    parser.add_argument(
        "--token-file", metavar="FILE", help="file of the token to show; else TCLIENT_TOKEN or TCLIENT_TOKEN_FILE"
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Where the server is, and all that belongs to a connection and what comes of it."""
    parser.add_argument(
        "address", nargs="?", metavar="ADDRESS", help=f"HOST:PORT; else {ADDRESS}, and without that {DEFAULT_ADDRESS}"
    )
    add_trust(parser)
    parser.add_argument("--timeout-s", type=_seconds, default=10.0, metavar="S", help="to wait for an answer (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def trust_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `tclient.connect` is given of it."""
    token = TokenFile(os.path.abspath(options.token_file)) if options.token_file else None
    tls = options.tls_ca or (True if options.tls else None)
    return {"tls": tls, "tls_cert": options.tls_cert, "tls_key": options.tls_key, "token": token}


def address_of(options: argparse.Namespace) -> str:
    """The address that is meant."""
    return options.address or os.environ.get(ADDRESS) or DEFAULT_ADDRESS


class Server:
    """What asks."""

    def __init__(self, channel: Channel, timeout_s: float) -> None:
        self._channel, self._timeout_s = channel, timeout_s

    def tensors(self, method: str, request: Any, response: type[T]) -> T:
        """An RPC of TensorService. Raises: a ServerError."""
        return self._ask(TENSOR_SERVICE + method, request, response)

    def models(self, method: str, request: Any, response: type[T]) -> T:
        """One of ModelService. Raises: a ServerError."""
        return self._ask(MODEL_SERVICE + method, request, response)

    def _ask(self, path: str, request: Any, response: type[T]) -> T:
        answer: T = self._channel.question(path, request, response, self._timeout_s)
        return answer


@contextlib.contextmanager
def asking(options: argparse.Namespace) -> Iterator[Server]:
    """A connection to the server that is meant. Raises: ConnectFailed and its kin."""
    given = trust_of(options)
    trust = Trust.given(given["tls"], given["tls_cert"], given["tls_key"], given["token"])
    channel = Channel(address_of(options), trust)
    try:
        yield Server(channel, options.timeout_s)
    finally:
        channel.close()
