"""The settings of `tserver serve`: as options, as variables of the environment, and as keys of a file in TOML.

All three have the same names. What is given in several ways counts in that order; then there are the defaults.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tserver import logs
from tserver.config import Config
from tserver.limits.file import check_names

_PREFIX = "TSERVER_"
_CONFIG = "TSERVER_CONFIG"
# Variables of that prefix that are no settings of a command.
_BESIDE = (_CONFIG, "TSERVER_NATIVE")
# What Kubernetes sets in each pod for a service that is called like the server.
_OF_A_SERVICE = re.compile(r"TSERVER_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
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
    "jwt_jwks": "File of the public keys (a JWK Set) of who issues JSON Web Tokens, which callers may then show.",
    "jwt_issuer": "What such tokens must name as their issuer (iss); empty is any.",
    "jwt_audience": "Whom they must be for (aud); empty is nobody in particular.",
    "lease_s": "Seconds that a session outlives its last connection.",
    "limits": "TOML file that says what each principal may use; it is read again when it changes.",
    "audit_log": "File that gets a line for each request: who asked for what, and how it ended; empty is none.",
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
    "otlp_endpoint": "http://HOST:PORT, or https://…, of a collector that takes traces by OTLP over gRPC; empty is "
    "none.",
    "trace_rate": "Of requests whose callers trace nothing, one in so many is traced; 0 is none.",
    "log_level": "What is logged on stderr, and what is worse.",
    "log_format": "How: text for people, JSON, or auto: text on a terminal, and JSON elsewhere.",
}


_CHOICES = {
    "log_format": logs.FORMATS,
    "log_level": logs.LEVELS,
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
    "trace_rate",
)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


class _Setting(click.Option):
    """An option whose errors name the way in which its value was given."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """See click."""
        source = None if ctx is None or self.name is None else ctx.get_parameter_source(self.name)
        if ctx is not None and source is ParameterSource.ENVIRONMENT:
            return f"'{self.envvar}'"
        if ctx is not None and source is ParameterSource.DEFAULT_MAP:
            return f"'{ctx.meta[_CONFIG].where(self.name)}'"
        return super().get_error_hint(ctx)


class _File:
    """What a file of settings says."""

    def __init__(self, path: Path) -> None:
        """Raises: UsageError that says what is wrong, and where."""
        self._path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            told = tomllib.loads(self._text)
        except OSError as error:
            raise click.UsageError(f"--config {path}: {error.strerror}") from None
        except ValueError as error:
            raise click.UsageError(f"--config {path}: {error}") from None
        self.values = {name: self._value(name, value) for name, value in told.items()}

    def where(self, name: str) -> str:
        """Where it says a setting: the file, the line and the key."""
        found = re.search(
            rf"""^[ \t]*(["']?){re.escape(name)}\1[ \t]*=|^[ \t]*\[+[ \t]*(["']?){re.escape(name)}\b""",
            self._text,
            re.MULTILINE,
        )
        line = "" if found is None else f", line {self._text.count(chr(10), 0, found.start()) + 1}"
        return f"{self._path}{line}: {name}"

    def line(self, name: str) -> str:
        """The same without the key."""
        return self.where(name).removesuffix(f": {name}")

    def _value(self, name: str, value: Any) -> Any:
        defaults = vars_of(_DEFAULTS)
        try:
            check_names(self.line(name), [name], defaults)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        kind = type(defaults[name])
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise click.UsageError(f"{self.where(name)} is to be {_KINDS[kind]}, and is {_as_toml(value)}")


def vars_of(config: Config) -> dict[str, Any]:
    """The settings by their names."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def from_file(function: Any) -> Any:
    """The option that names a file of settings, for a command that takes some of them."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar=_CONFIG,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="TOML file of settings, by the names of the options with _ for -; options and the environment come first.",
    )(function)


def _read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        file = context.meta[_CONFIG] = _File(path)
        context.default_map = {**(context.default_map or {}), **file.values}


def options(function: Any) -> Any:
    """An option for each field of Config, with its default, and --config."""
    for field in reversed(fields(Config)):
        name = "--" + field.name.replace("_", "-")
        default = getattr(_DEFAULTS, field.name)
        kwargs: dict[str, Any] = {
            "cls": _Setting,
            "help": _HELP[field.name],
            "default": default,
            "envvar": _PREFIX + field.name.upper(),
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
    return from_file(function)


def check_environment(given: Mapping[str, str] = os.environ) -> None:
    """Refuse a variable that looks like a setting and is none. Raises: UsageError."""
    known = [_PREFIX + field.name.upper() for field in fields(Config)]
    for name, value in given.items():
        if name.startswith(_PREFIX) and name not in _BESIDE:
            if _OF_A_SERVICE.fullmatch(name) and ("://" in value or "_SERVICE_" in name or "_PORT_" in name):
                continue
            try:
                check_names("the environment", [name], known)
            except ValueError as error:
                raise click.UsageError(str(error)) from None


def printed(context: click.Context) -> str:
    """All settings of a command as a file has them, each with where its value comes from."""
    return "\n".join(
        (
            "# The settings of `tserver serve`, and where each comes from; --config takes this.",
            *(f"{name} = {_as_toml(context.params[name])}  # {_source(context, name)}" for name in vars_of(_DEFAULTS)),
        )
    )


def _source(context: click.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return "--" + name.replace("_", "-")
    if source is ParameterSource.ENVIRONMENT:
        return _PREFIX + name.upper()
    if source is ParameterSource.DEFAULT_MAP:
        return str(context.meta[_CONFIG].line(name))
    return "default"


def _as_toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    return str(value)
