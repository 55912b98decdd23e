"""Sessions on disk, between the run of a server that they were of and the next one.

    DATA_DIR/sessions/DIGEST/session.json    whose it is, its place in the sequence, its kept replies, its files
    DATA_DIR/sessions/DIGEST/...             what it holds (engine/snapshots)

DIGEST is that of the session's secret, which itself is nowhere on disk. A session is there from the one rename that
puts it there, and is taken by another, once: of two servers that are asked for it, one has it. Every method blocks on
the disk. Knows no tensors.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorcompute.wire.safetensors import load_json
from tserver.errors import InvalidArgument
from tserver.storage import files

log = logging.getLogger("tserver.session")

SESSIONS = "sessions"
FORMAT = "tensorcompute-session"
FORMAT_VERSION = 1
_HEAD = "session.json"
_NEW, _TAKEN = ".new-", ".taken-"
_MOST_HEAD_BYTES = 256 << 20
# What a server that has ended left in the middle of it is swept away then: others may be at work on theirs.
_LEFT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a session besides what it holds."""

    principal: str
    lease_s: float
    # When nobody may have it any more, in seconds since 1970.
    expires_unix_s: float
    # The last batch that was run, the last one that was acknowledged, and the replies to those between.
    received: int
    acked: int
    kept: dict[int, bytes]
    # How far the batch behind them has come, if it was begun.
    begun: dict[str, Any] | None
    # The bytes and the digest of each file.
    files: dict[str, tuple[int, str]]
    # What its tensors were on, as placement names it: the CPU, or any GPU. Empty is anything.
    device: str = ""


class KeptSessions:
    """Those in one data directory, which the engines of a house share."""

    def __init__(self, directory: Path) -> None:
        """Raises: OSError."""
        self._root = directory / SESSIONS
        # Those that were there when it was last looked, by their folders: whose, and until when.
        self._waiting: dict[str, tuple[str, float]] = {}
        directory.mkdir(files.PRIVATE_FOLDER, parents=True, exist_ok=True)
        files.make_folder(self._root)

    def begin(self) -> Path:
        """A folder to write into. Raises: OSError."""
        folder = self._root / (_NEW + secrets.token_hex(8))
        files.make_folder(folder)
        return folder

    def finish(self, folder: Path, secret: bytes, head: Head) -> None:
        """What a session holds is in the folder: keep it. When this returns it is on disk. Raises: OSError."""
        for name in head.files:
            files.sync(folder / name)
        files.write(folder / _HEAD, [files.seal(_written(secret, head))])
        files.sync(folder)
        final = self._root / _digest(secret)
        files.sweep(final)
        folder.rename(final)
        files.sync(self._root)

    def find(self, secret: bytes, principal: str) -> Head | None:
        """What is kept of a session, of that principal, whose time is not over."""
        folder = self._root / _digest(secret)
        try:
            head = _read(files.read(folder / _HEAD, _MOST_HEAD_BYTES), secret)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, InvalidArgument) as error:
            log.error("a session on disk is damaged; it is gone", extra={"cause": str(error)})
            files.sweep(folder)
            return None
        # Another's is as if it were not there.
        return head if head.principal == principal and head.expires_unix_s > time.time() else None

    def take(self, secret: bytes) -> Path | None:
        """Have a session that was found, with nobody else: the folder of its files. None where another was quicker."""
        taken = self._root / (_TAKEN + secrets.token_hex(8))
        try:
            (self._root / _digest(secret)).rename(taken)
        except FileNotFoundError:
            return None
        self._waiting.pop(_digest(secret), None)
        with contextlib.suppress(OSError):
            os.utime(taken)
            files.sync(self._root)
        return taken

    def drop(self, folder: Path) -> None:
        """A folder of `begin` or `take` is of no use any more."""
        files.sweep(folder)

    def sweep(self) -> None:
        """Remove those whose time is over, and what was left behind."""
        now = time.time()
        waiting: dict[str, tuple[str, float]] = {}
        for folder in self._folders():
            with contextlib.suppress(OSError):
                begun = folder.stat().st_mtime
                if folder.name.startswith("."):
                    if now > begun + _LEFT_S:
                        files.sweep(folder)
                    continue
                principal, expires = _expires(folder)
                if now > expires:
                    files.sweep(folder)
                else:
                    waiting[folder.name] = principal, expires
        self._waiting = waiting

    def waiting(self, principal: str) -> int:
        """How many of a principal's there are, as far as that is known without looking."""
        now = time.time()
        return sum(whose == principal and expires > now for whose, expires in self._waiting.copy().values())

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from list(self._root.iterdir())


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _expires(folder: Path) -> tuple[str, float]:
    """Whose it is, and until when; of what cannot be read, nobody's and over."""
    try:
        head = load_json(files.read(folder / _HEAD, _MOST_HEAD_BYTES))
        return str(head["principal"]), float(head["expires_unix_s"])
    except (OSError, ValueError, TypeError, LookupError):
        return "", 0.0


def _written(secret: bytes, head: Head) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "session_sha256": _digest(secret),
        "principal": head.principal,
        "lease_s": head.lease_s,
        "expires_unix_s": head.expires_unix_s,
        "received": head.received,
        "acked": head.acked,
        "kept": [[seq, base64.b64encode(reply).decode()] for seq, reply in head.kept.items()],
        "begun": head.begun,
        "device": head.device,
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in head.files.items()},
    }


def _read(data: bytes, secret: bytes) -> Head:
    """Raises: ValueError, TypeError, LookupError."""
    said = load_json(data)
    if not isinstance(said, dict):
        raise TypeError("it is no object of JSON")
    if said.get("format") != FORMAT or said.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"it is of format {str(said.get('format_version'))[:20]}; this server reads {FORMAT_VERSION}")
    if said.pop("sha256", None) != files.digest_of(said):
        raise ValueError("it does not have the sha256 that it says of itself")
    if not hmac.compare_digest(str(said["session_sha256"]), _digest(secret)):
        raise ValueError("it is of another session")
    received, acked = int(said["received"]), int(said["acked"])
    kept = {int(seq): base64.b64decode(reply, validate=True) for seq, reply in said["kept"]}
    if not 0 <= acked <= received < 1 << 63 or sorted(kept) != list(range(acked + 1, received + 1)):
        raise ValueError("its batches and the replies to them do not fit")
    return Head(
        principal=str(said["principal"]),
        lease_s=float(said["lease_s"]),
        expires_unix_s=float(said["expires_unix_s"]),
        received=received,
        acked=acked,
        kept=kept,
        begun=said["begun"] if isinstance(said["begun"], dict) and said["begun"]["seq"] == received + 1 else None,
        files={str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in said["files"].items()},
        device=str(said.get("device", "")),
    )
