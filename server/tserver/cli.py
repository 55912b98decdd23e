"""The command line: `tserver serve` and `tserver health`; `tserver cluster` and `token` are in rooms of their own."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from tensorcompute.wire.address import channel_options, parse
from tserver import __version__, logs
from tserver.cluster.commands import group
from tserver.config import Config
from tserver.credentials import tokens
from tserver.credentials.commands import group as token_group
from tserver.limits.file import LimitsFile
from tserver.supervisor import PortTaken, supervise

log = logging.getLogger("tserver")

_DEFAULTS = Config()
_HELP = {
    "listen": "HOST:PORT to listen on, or unix:PATH; port 0 takes a free one.",
    "device": "Where new tensors live: auto takes the GPU when there is one; cuda:all, or a list like cuda:0,cuda:1, "
    "has an engine on each.",
    "devices_per_engine": "GPUs that one engine holds: its first is where new tensors live, the others may be named "
    "(cuda:1). Each engine is shown its own alone, as cuda:0, cuda:1 and so on.",
    "engines": "Processes that run torch behind this address; 0 is one for each device, and where engines are made for "
    "callers, as many as it takes. With more than one, a session is placed on one of them.",
    "isolation": "Whose sessions may share the process of an engine: everyone's (shared), those of one principal "
    "(principal), or none (session).",
    "spare_engines": "Engines that are kept ready for the next principal or session, where each has its own.",
    "advertise": "HOST[:PORT-PORT] that clients are told to reach engines at, and the ports that those take; empty is "
    "the host that the client knows already, and free ports.",
    "front_only": "Tell clients of no address but this one: everything goes through it.",
    "insecure": "Allow an address other than loopback without credentials, or without TLS. Everyone who reaches it can "
    "use the server, or hear the tokens of others.",
    "tls_cert": "PEM file with the server's certificate chain.",
    "tls_key": "PEM file with its private key.",
    "tls_client_ca": "PEM file of the authority that signs the certificates of clients, which each must then show.",
    "tokens": "File of tokens (see tserver token), of which each caller must then show one; by default tokens.json in "
    "the data directory, where there is one.",
    "lease_s": "Seconds that a session outlives its last connection.",
    "limits": "TOML file that says what each principal may use; it is read again when it changes.",
    "max_sessions": "Sessions at once.",
    "max_session_bytes": "Memory that the tensors of one session may take, on each GPU where an engine holds several; "
    "0 is unlimited.",
    "max_memory_bytes": "Memory of the host that the server may take for all that it holds: beyond that, calls are "
    "refused. 0 is nine tenths of what the machine or its cgroup has, or what is free at the start if that is less.",
    "max_message_bytes": "Size of one request.",
    "max_inline_bytes": "Size of tensor data within a message; larger tensors are streamed.",
    "max_unacked_bytes": "Size of replies kept for one session until its client has them.",
    "max_chunk_bytes": "Size of one chunk of an upload or download.",
    "max_batches_in_flight": "Batches of one session that may wait to be run.",
    "max_nesting": "Depth of lists in an argument.",
    "max_call_elements": "Elements that one call on the CPU may go through where they are not there in memory (views "
    "by expand), and what products and counts may come to accordingly; on a GPU 128 times as many. 0 is 2^33.",
    "single_owner": "All callers are one owner: leave uninitialised memory as it is, instead of zeroing it.",
    "threads": "Threads of one kernel on the CPU; 0 leaves one core to gRPC and takes the others.",
    "drain_s": "Seconds that running work gets when the server is told to stop.",
    "hang_s": "Seconds without progress after which the engine is ended and started again; its sessions are lost, and "
    "told why. A single kernel may not take longer, as it cannot be interrupted; 0 is for ever.",
    "data_dir": "Directory of models, and of what callers keep under names, so that they are there again after a "
    "restart. It is made private to the user of the server.",
    "checkpoint_on_drain": "Keep sessions in the data directory when the server is told to stop, for the next one to "
    "go on with them.",
    "model_dir": "Directory with safetensors files that callers may load models from.",
    "data_listen": "HOST:PORT for the bytes of large tensors, outside gRPC; auto is a free port where --listen is on "
    "loopback, and none elsewhere; empty is none.",
    "shared_memory": "Let clients on this machine move the bytes of large tensors through memory that both sides have.",
    "send_to": "Where the server may connect to send tensors to another one, when a client has it do so: house is this "
    "machine, any is anywhere, none is nowhere; or HOST:PORT,...",
    "oip_listen": "HOST:PORT or unix:PATH for clients of the Open Inference Protocol, such as Triton's; empty is none.",
    "oip_max_message_bytes": "Size of one request of the Open Inference Protocol over gRPC, out of its compression; 0 "
    "is a 256th of the memory, and at least 64 MiB.",
    "oip_model_control": "Let clients of the Open Inference Protocol load and unload models.",
    "oip_shared_memory": "Let clients of the Open Inference Protocol on this machine pass tensors in shared memory.",
    "http_listen": "HOST:PORT for HTTP: the Open Inference Protocol under /v2, and /metrics; empty is none.",
    "metrics_listen": "HOST:PORT for /metrics alone, for Prometheus to scrape; empty is none.",
    "log_level": "debug, info, warning or error.",
}


_CHOICES = {
    "log_level": ["debug", "info", "warning", "error"],
    "isolation": ["shared", "principal", "session"],
}
_MAY_BE_0 = (
    "engines",
    "spare_engines",
    "threads",
    "max_session_bytes",
    "max_memory_bytes",
    "max_call_elements",
    "oip_max_message_bytes",
    "drain_s",
    "hang_s",
)


def _options(function: Any) -> Any:
    """An option for each field of Config, with its default."""
    for field in reversed(fields(Config)):
        name = "--" + field.name.replace("_", "-")
        default = getattr(_DEFAULTS, field.name)
        kwargs: dict[str, Any] = {
            "help": _HELP[field.name],
            "default": default,
            "envvar": f"TSERVER_{field.name.upper()}",
        }
        if isinstance(default, bool):
            kwargs["is_flag"] = True
        elif field.name in _CHOICES:
            kwargs["type"] = click.Choice(_CHOICES[field.name])
            kwargs["show_default"] = True
        else:
            if isinstance(default, (int, float)):
                lowest = 0 if field.name in _MAY_BE_0 else type(default)(1)
                if field.name == "lease_s":
                    lowest = 0.1
                kwargs["type"] = click.FloatRange(lowest) if isinstance(default, float) else click.IntRange(int(lowest))
            kwargs["show_default"] = True
        function = click.option(name, field.name, **kwargs)(function)
    return function


@click.group()
@click.version_option(__version__, prog_name="tserver")
def main() -> None:
    """Hold tensors on a device and run torch on them over gRPC."""


@main.command()
@_options
def serve(**settings: Any) -> None:
    """Serve until SIGTERM or SIGINT; prints `listening on ADDRESS` when ready."""
    config = _checked(settings)
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


def _checked(settings: dict[str, Any]) -> Config:
    """The settings as a whole, refused where they do not go together. From then on it is told what happens."""
    config = Config(**settings)
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
    logs.set_up(config.log_level)
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


main.add_command(group(_options, _checked))
main.add_command(token_group())
