"""How a command reaches a running server: one set of options, and a connection that shows a token. Knows gRPC."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tensorcompute.wire.address import channel_options, parse

_MAX_ANSWER_BYTES = 256 << 20


def options(function: Any) -> Any:
    """The options of a connection, but for the address."""
    for option in (
        click.option("--timeout-s", default=5.0, show_default=True, help="Seconds to wait for an answer."),
        click.option("--token-file", default="", envvar="TCLIENT_TOKEN_FILE", help="File of the token to show."),
        click.option("--tls-key", default="", envvar="TCLIENT_TLS_KEY", help="PEM file of its key."),
        click.option("--tls-cert", default="", envvar="TCLIENT_TLS_CERT", help="PEM file of a certificate to show."),
        click.option(
            "--tls-name", default="", help="The name in the server's certificate, where it differs from ADDRESS."
        ),
        click.option("--tls-ca", default="", help="PEM file of the authority to trust; the connection is TLS then."),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def asking(
    address: str, *, tls_ca: str, tls_name: str, tls_cert: str, tls_key: str, token_file: str, timeout_s: float
) -> Iterator[Callable[[str, Any, Any], Any]]:
    """What asks the server at an address: for the path of an RPC, a request and the kind of its answer, the answer.

    Raises: ClickException that says what is wrong.
    """
    import grpc

    try:
        parsed = parse(address)
        token = Path(token_file).read_text().strip() if token_file else os.environ.get("TCLIENT_TOKEN", "")
        files = [Path(each).read_bytes() if each else None for each in (tls_ca, tls_key or tls_cert, tls_cert)]
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    given: tuple[tuple[str, Any], ...] = (
        *channel_options(parsed),
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    )
    if tls_ca:
        given += (("grpc.ssl_target_name_override", tls_name),) if tls_name else ()
        connection = grpc.secure_channel(parsed.text, grpc.ssl_channel_credentials(*files), options=given)
    elif token and not parsed.is_local:
        raise click.ClickException(f"{address}: a token is shown over TLS, or on this machine: give --tls-ca")
    else:
        connection = grpc.insecure_channel(parsed.text, options=given)

    def ask(path: str, request: Any, kind: Any) -> Any:
        call: Any = connection.unary_unary(path, type(request).SerializeToString, kind.FromString)
        try:
            shown = (("authorization", f"Bearer {token}"),) if token else ()
            return call(request, timeout=timeout_s, metadata=shown)
        except grpc.RpcError as error:
            raise click.ClickException(f"{address}: {error.code().name}: {error.details()}") from error

    with connection:
        yield ask
