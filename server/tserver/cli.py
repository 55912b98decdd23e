"""The command line: `tserver serve` and `tserver health`; the other commands are in rooms of their own."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from tensorcompute.wire.address import parse
from tserver import __version__, extras, logs
from tserver.cluster.commands import group
from tserver.commands import doctor, models, places, remote, settings
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
@remote.options
def health(address: str, service: str, **how: Any) -> None:
    """Ask the server at ADDRESS for its health; exit code 0 when it is serving."""
    try:
        from grpc_health.v1 import health_pb2
    except ImportError as error:
        raise click.ClickException("asking for health needs a package: pip install grpcio-health-checking") from error
    request = health_pb2.HealthCheckRequest(service=service)
    with remote.asking(address, **how) as ask:
        answer = ask("/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse)
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    click.echo(name)
    if name != "SERVING":
        sys.exit(1)


def _checked(given: dict[str, Any]) -> Config:
    """The settings as a whole, refused where they do not go together. From then on it is told what happens."""
    config, open_to = _together(given)
    logs.set_up(config.log_level, config.log_format)
    if open_to:
        log.warning("--insecure: %s", open_to)
    return config


def _together(given: dict[str, Any]) -> tuple[Config, str]:
    """The settings as a whole, and what --insecure opens to whom. Raises: UsageError where they do not go together."""
    settings.check_environment()
    config = Config(**given)
    if config.data_dir and not config.tokens and (found := Path(config.data_dir) / tokens.NAME).exists():
        config = replace(config, tokens=str(found))
    if bool(config.tls_cert) != bool(config.tls_key):
        raise click.UsageError("--tls-cert and --tls-key go together; one of them is missing")
    if config.tls_client_ca and not config.tls_cert:
        raise click.UsageError("--tls-client-ca is for connections with TLS: give --tls-cert and --tls-key too")
    if (config.jwt_issuer or config.jwt_audience) and not config.jwt_jwks:
        raise click.UsageError("--jwt-issuer and --jwt-audience say whose tokens --jwt-jwks is about: give that, too")
    if config.otlp_endpoint and not _is_collector(config.otlp_endpoint):
        raise click.UsageError(
            f"--otlp-endpoint {config.otlp_endpoint[:200]!r} is not http://HOST:PORT or https://HOST:PORT"
        )
    if config.trace_rate and not config.otlp_endpoint:
        raise click.UsageError("--trace-rate says what is traced: give --otlp-endpoint, where traces go, too")
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
    if not open_ones:
        return config, ""
    what = (
        "tokens cross the network in plain text, and whoever hears one can use it"
        if config.has_credentials
        else "EVERYONE who can reach this server can use it, and all that others keep on it"
    )
    return config, f"{what} ({', '.join(open_ones)})"


def _is_collector(endpoint: str) -> bool:
    """Whether it can be the address of a collector of traces."""
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname and parts.port) and parts.path in ("", "/")
    except ValueError:
        return False


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
main.add_command(models.group(settings.from_file))
main.add_command(issuing.command())
main.add_command(doctor.command(settings.options, _together))
