"""The steps of which everything on disk is made: private files and folders, brought to disk, renamed, removed.

Files are 0600 and folders 0700, whatever the umask. No file is opened through a link. A name exists under its last path
from the moment of one rename; what is renamed is on disk before that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tserver.errors import Exhausted, StorageFailed

log = logging.getLogger("tserver.storage")

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
# What the system says where there is no room.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Written(NamedTuple):
    """A file on disk."""

    size_bytes: int
    sha256: str


def make_folder(path: Path) -> None:
    """A folder that only this user reads, if it is not there yet. Raises: OSError, also for a link in its place."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, PRIVATE_FOLDER)
    if not is_folder(path):
        raise NotADirectoryError(errno.ENOTDIR, "it is a link or a file, where a folder is to be", str(path))


def is_folder(path: Path) -> bool:
    """Whether there is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def write(path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> Written:
    """Write a new file, and bring it to disk. Raises: OSError, and what the chunks raise; part of it is left then."""
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        for chunk in chunks:
            digest.update(chunk)
            left = memoryview(chunk)
            size += len(left)
            while left:
                left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(size, digest.hexdigest())


def open_to_read(path: Path) -> int:
    """A descriptor of a file, not of what a link or a pipe leads to. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "it is no file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read(path: Path, most_bytes: int) -> bytes:
    """All of a small file. Raises: OSError; ValueError for one that has more bytes."""
    descriptor = open_to_read(path)
    with open(descriptor, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    return data


def replace(path: Path, data: bytes) -> None:
    """Write a small file in the place of one that may be there: it is the old one or the new one, at any moment.

    Raises: OSError.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(beside, [data])
        os.replace(beside, path)
    except BaseException:
        sweep(beside)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring the names in a folder to disk, or what is in a file. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(left: Path) -> None:
    """Remove a file or a folder that is of no use, as far as that can be."""
    if is_folder(left):
        shutil.rmtree(left, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(left)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one thread of all processes has at a time; it is let go with the process. Raises: OSError."""
    lock = take_lock(path, waits=True)
    assert lock is not None
    try:
        yield
    finally:
        os.close(lock)


def take_lock(path: Path, *, waits: bool) -> int | None:
    """A descriptor that holds a lock until it is closed; None where somebody else has it. Raises: OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def tighten(top: Path) -> None:
    """Take away what others may do with what is there, from a time when they might. Links are not followed."""
    for folder, folders, names in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):
            tighten_one(path)


def tighten_one(path: Path | str, *, is_link: bool = False) -> None:
    """The same for one folder or file; a link is followed where somebody has set it up."""
    with contextlib.suppress(FileNotFoundError):
        try:
            mode = os.stat(path, follow_symlinks=is_link).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) or not mode & 0o077:
                return
            flags = 0 if is_link else os.O_NOFOLLOW
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
            try:
                os.fchmod(descriptor, stat.S_IMODE(mode) & PRIVATE_FOLDER)
            finally:
                os.close(descriptor)
        except PermissionError as error:
            log.warning(
                "others may read it: its mode cannot be changed", extra={"path": str(path), "cause": str(error)}
            )


@contextlib.contextmanager
def telling_of_the_disk(what: str) -> Iterator[None]:
    """What the system says of the disk, as what callers are told. Raises: Exhausted, StorageFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted(
                f"{what}: the disk of the server is full; forget names that are not needed, or retry later",
                reason="DISK_FULL",
            ) from error
        # Where the data directory is, is nobody's business but the log's.
        log.error("the disk fails", extra={"what": what, "cause": str(error)})
        raise StorageFailed(f"{what}: the disk of the server fails: {error.strerror or error}") from error


# ---- manifests -------------------------------------------------------------------------------------------------------


def digest_of(manifest: dict[str, Any]) -> str:
    """The digest of what a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is written, with its own digest."""
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    return (json.dumps({**manifest, "sha256": digest_of(manifest)}, indent=2) + "\n").encode()
