"""The command line: `tserver serve` and `tserver health`; the other commands are in rooms of their own."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tensorcompute.wire.address import channel_options, parse
from tserver import __version__, extras, logs
from tserver.cluster.commands import group
from tserver.commands import places, settings
from tserver.config import Config
from tserver.credentials import issuing, tokens
from tserver.credentials.commands import group as token_group
from tserver.limits.file import LimitsFile
from tserver.supervisor import PortTaken, supervise

log = logging.getLogger("tserver")


@click.group()
@click.version_option(__version__, prog_name="tserver")
def main() -> None:
    """Hold tensors on a device and run torch on them over gRPC."""


@main.command()
@settings.options
@click.option("--print-config", is_flag=True, help="Print all settings as a file of them, and where each comes from.")
@click.pass_context
def serve(context: click.Context, /, print_config: bool, **given: Any) -> None:
    """Serve until SIGTERM or SIGINT; prints `listening on ADDRESS` when ready."""
    if print_config:
        click.echo(settings.printed(context))
    config = _checked(given)
    try:
        places.check(config)
    except OSError as error:
        raise click.UsageError(str(error)) from None
    if print_config:
        return
    if absent := extras.missing(config):
        sys.exit(f"tserver: {absent}")
    log.info("starting", extra={"version": __version__, "listen": config.listen, "device": config.device})
    try:
        sys.exit(supervise(config))
    except (PortTaken, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("address")
@click.option("--service", default="", help="The service to ask for; empty is the whole server.")
@click.option("--tls-ca", default="", help="PEM file of the authority to trust; the connection is TLS then.")
@click.option("--tls-name", default="", help="The name in the server's certificate, where it differs from ADDRESS.")
@click.option("--timeout-s", default=5.0, show_default=True, help="Seconds to wait for an answer.")
def health(address: str, service: str, tls_ca: str, tls_name: str, timeout_s: float) -> None:
    """Ask the server at ADDRESS for its health; exit code 0 when it is serving."""
    import grpc

    try:
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ImportError as error:
        raise click.ClickException("asking for health needs a package: pip install grpcio-health-checking") from error
    try:
        parsed = parse(address)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    options = channel_options(parsed)
    if tls_ca:
        trusted = grpc.ssl_channel_credentials(Path(tls_ca).read_bytes())
        options += (("grpc.ssl_target_name_override", tls_name),) if tls_name else ()
        connection = grpc.secure_channel(parsed.text, trusted, options=options)
    else:
        connection = grpc.insecure_channel(parsed.text, options=options)
    with connection as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            raise click.ClickException(f"{address}: {error.code().name}: {error.details()}") from error
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    click.echo(name)
    if name != "SERVING":
        sys.exit(1)


def _checked(given: dict[str, Any]) -> Config:
    """The settings as a whole, refused where they do not go together. From then on it is told what happens."""
    settings.check_environment()
    config = Config(**given)
    if config.data_dir and not config.tokens and (found := Path(config.data_dir) / tokens.NAME).exists():
        config = replace(config, tokens=str(found))
    if bool(config.tls_cert) != bool(config.tls_key):
        raise click.UsageError("--tls-cert and --tls-key go together; one of them is missing")
    if config.tls_client_ca and not config.tls_cert:
        raise click.UsageError("--tls-client-ca is for connections with TLS: give --tls-cert and --tls-key too")
    open_ones = [option for option, address in config.listeners().items() if _is_open(option, address, config)]
    if config.checkpoint_on_drain and not config.data_dir:
        raise click.UsageError("--checkpoint-on-drain needs --data-dir, where sessions are kept")
    try:
        config.places_to_send()
    except ValueError as error:
        raise click.UsageError(f"--send-to: {error}") from None
    try:
        LimitsFile.of(config)
    except OSError as error:
        raise click.UsageError(str(error)) from None
    logs.set_up(config.log_level, config.log_format)
    if open_ones:
        what = (
            "tokens cross the network in plain text, and whoever hears one can use it"
            if config.has_credentials
            else "EVERYONE who can reach this server can use it, and all that others keep on it"
        )
        log.warning("--insecure: %s", what, extra={"listeners": open_ones})
    return config


def _is_open(option: str, address: str, config: Config) -> bool:
    """Whether an address is reachable from outside by who should not, which is wanted then. Raises: UsageError."""
    try:
        parsed = parse(address, listening=True)
    except ValueError as error:
        raise click.UsageError(f"{option} {error}") from None
    lacking = []
    if not config.tls_cert:
        lacking.append(("there is no TLS", "give --tls-cert and --tls-key"))
    if not config.has_credentials:
        lacking.append(("nobody needs credentials", "make a token (tserver token create) and give --tokens"))
    if parsed.is_local or not lacking:
        return False
    if not config.insecure:
        raise click.UsageError(
            f"{option} {address} is reachable from outside, and {' and '.join(lack for lack, _ in lacking)}: "
            f"{', and '.join(remedy for _, remedy in lacking)}; or --insecure if everyone who can reach it may use it"
        )
    return True


main.add_command(group(settings.options, _checked))
main.add_command(token_group(settings.from_file))
main.add_command(issuing.command())
