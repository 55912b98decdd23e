"""Whether the files and folders that settings name are there and can be used, before anything is started."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tserver import audit
from tserver.config import Config

_FILES = ("tls_cert", "tls_key", "tls_client_ca", "tokens", "jwt_jwks")


def check(config: Config) -> None:
    """Raises: OSError that names the option and the path."""
    for name in _FILES:
        _look(config, name, _readable)
    _look(config, "model_dir", lambda path: os.scandir(path).close())
    _look(config, "data_dir", _writable)
    _look(config, "audit_log", lambda path: os.close(audit.opened(path)))


def _look(config: Config, name: str, see: Callable[[Path], None]) -> None:
    path = getattr(config, name)
    if path:
        try:
            see(Path(path))
        except OSError as error:
            raise OSError(f"--{name.replace('_', '-')} {path}: {error.strerror}") from error


def _readable(path: Path) -> None:
    with path.open("rb") as file:
        file.read(1)


def _writable(path: Path) -> None:
    """A folder that is not there is to be made in the next one above that is."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    with tempfile.TemporaryFile(dir=there):
        pass
