"""The file of limits: TOML with the table [default], and [principal."NAME"] for those that differ from it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tserver.config import Config
from tserver.watched import Watched

# Of all sessions, the part that one principal may have where nothing else is said.
_SHARE = 4
# What one may have on disk then.
_DISK_BYTES = 256 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What one principal may use; 0 is as much as it likes."""

    # Sessions at once, and streams of gRPC.
    sessions: int = 0
    streams: int = 0
    # What all its sessions hold together: memory on devices and on the host, uploads under way included, and tensors.
    device_bytes: int = 0
    tensors: int = 0
    # What is kept under names, as checkpoints, and of models of its own.
    disk_bytes: int = 0
    # Versions of models, public or not, that are its.
    models: int = 0
    # Of its batches, on average; bytes of its uploads and downloads, too.
    calls_per_s: float = 0.0
    bytes_per_s: float = 0.0
    # Of the engine's time.
    compute_s_per_min: float = 0.0


_NAMES = {field.name: field.type for field in fields(Limits)}


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says."""

    default: Limits
    principals: Mapping[str, Limits]

    def of(self, principal: str) -> Limits:
        """What a principal may use."""
        return self.principals.get(principal, self.default)


def parse(text: str, default: Limits = Limits()) -> Table:
    """What the text of a file says. Raises: ValueError that names what is wrong."""
    told = tomllib.loads(text)
    check_names("the file", told, ("default", "principal"))
    common = _limits("[default]", _table("[default]", told.get("default", {})), default)
    principals = {
        name: _limits(f'[principal."{name}"]', _table(f'[principal."{name}"]', values), common)
        for name, values in _table("[principal]", told.get("principal", {})).items()
    }
    return Table(common, principals)


class LimitsFile:
    """A file, read again when it changes; one that cannot be read or understood leaves what was last."""

    def __init__(self, path: Path | None, default: Limits = Limits()) -> None:
        """Raises: OSError where the file is not right from the beginning."""
        self.table = Table(default, {})
        self._watched: Watched[Table] | None = None
        if path is not None:
            self._watched = Watched(
                f"--limits {path}",
                [path],
                lambda: parse(path.read_text(), default),
                "the limits are left as they were",
            )
            self.table = self._watched.current()

    @classmethod
    def of(cls, config: Config) -> LimitsFile:
        """That of a server. Where callers are known, none of them takes all sessions. Raises: OSError."""
        sessions = max(1, config.max_sessions // _SHARE) if config.has_credentials else 0
        default = Limits(sessions=sessions, disk_bytes=_DISK_BYTES)
        return cls(Path(config.limits) if config.limits else None, default)

    def look(self) -> bool:
        """Read it again if it has changed; whether other limits hold now."""
        table = self.table if self._watched is None else self._watched.current()
        changed = table != self.table
        self.table = table
        return changed


def _table(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a table")
    return value


def _limits(where: str, values: Mapping[str, Any], default: Limits) -> Limits:
    check_names(where, values, _NAMES)
    for name, value in values.items():
        is_number = isinstance(value, int) or (isinstance(value, float) and _NAMES[name] == "float")
        if isinstance(value, bool) or not is_number or not 0 <= value < 1 << 62:
            raise ValueError(f"{where}: {name} is {value!r}, and not a number that is 0 or more")
    return replace(default, **values)


def check_names(where: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse what is not known, and name what is nearest to it. Raises: ValueError."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f"; do you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise ValueError(f"{where}: {name[:100]!r} is not known{hint}")
