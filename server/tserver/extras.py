"""What is said where a package is missing that the server needs. Needs none itself."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tserver.config import Config

_OURS = frozenset({"tserver", "tclient", "tensorcompute"})
# What every server imports, and what one does that listens for HTTP.
_ALWAYS = ("grpc", "google.protobuf", "numpy", "torch", "safetensors")
_FOR_HTTP = ("aiohttp", "prometheus_client")
_FOR_JWT = ("jwt", "cryptography")
_FOR_OTLP = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc")


def told(error: ModuleNotFoundError) -> str:
    """How to get what is missing. Raises the error again if it is a part of this project, which is then broken."""
    name = (error.name or "").partition(".")[0]
    if not name or name in _OURS:
        raise error
    return "tserver: " + _remedy([name])


def missing(config: Config) -> str:
    """The same of all that a server with these settings needs, before any of it is imported; empty if it is there."""
    names = [*_ALWAYS, *(_FOR_HTTP if config.http_listen or config.metrics_listen else ())]
    if absent := [name for name in names if not is_there(name)]:
        return _remedy(absent)
    for is_wanted, option, needed, extra in (
        (config.jwt_jwks, "--jwt-jwks", _FOR_JWT, "jwt"),
        (config.otlp_endpoint, "--otlp-endpoint", _FOR_OTLP, "otel"),
    ):
        absent = [name for name in needed if not is_there(name)] if is_wanted else []
        if absent:
            return _remedy(absent, option, extra)
    return ""


def is_there(name: str) -> bool:
    """Whether a module can be found. Imports at most the packages that it is in."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _remedy(names: list[str], what: str = "the server", extra: str = "server") -> str:
    are = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {are} not installed; {what} needs: pip install 'tclient[{extra}]'"
