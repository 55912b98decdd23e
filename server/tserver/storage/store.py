"""Files under names, by principal: a folder for each name, with a manifest that says which files are in it.

    DATA_DIR/names/PRINCIPAL/NAME/manifest.json
    DATA_DIR/names/PRINCIPAL/NAME/tensors-GENERATION.safetensors

A name is what its manifest says, from the one rename that puts it there: a server that ends at any moment leaves what
was there before, or what is there after. Files are written beside, in a folder that begins with ".new-", and moved in
when they are on disk; what no manifest names is swept away at the next start. Several processes of one house may keep,
read and forget at the same time: a lock for each principal is held while names change, and not while bytes are written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorcompute.wire.safetensors import load_json
from tserver.errors import AlreadyExists, NotFound, StorageFailed
from tserver.storage import files, paths
from tserver.storage.directory import NAMES
from tserver.storage.quota import Use, check_names

log = logging.getLogger("tserver.storage")

FORMAT = "tensorcompute-kept"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
DAMAGED = "damaged"
_TEMPORARY = ".new-"
_LOCK = ".lock"
_MOST_MANIFEST_BYTES = 64 << 20
# How a file is called in what is kept, and how on disk.
_FILE = re.compile(r"([a-z0-9_]{1,40})\.([a-z0-9]{1,20})")
_ON_DISK = re.compile(r"[a-z0-9_]{1,40}-[0-9a-f]{16}\.[a-z0-9]{1,20}")
# Of what is read at one go.
_PIECE_BYTES = 4 << 20
# A name that is replaced again and again while it is opened.
_TRIES = 10

CheckDisk = Callable[[str, Use, Use], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept under a name."""

    name: str
    kind: str
    # What its files take together.
    size_bytes: int
    # When, in seconds since 1970.
    kept_unix_s: float
    # How many tensors are in it.
    tensors: int
    # What else who kept it has said of it: whatever JSON holds.
    about: dict[str, Any] = field(default_factory=dict)
    token: str = ""


class Reading:
    """The files of one name, open: they stay as they were, whatever becomes of the name."""

    def __init__(self, kept: Kept, opened: Mapping[str, tuple[int, int, str]]) -> None:
        """By its name, of each file a descriptor, its bytes and its digest."""
        self.kept = kept
        self._opened = opened

    def size_of(self, file: str) -> int:
        """Its bytes. Raises: StorageFailed where there is no such file."""
        return self._file(file)[1]

    def head(self, file: str, count: int) -> bytes:
        """So many bytes of the beginning of a file, or all; nobody has compared them yet. Raises: StorageFailed."""
        return os.pread(self._file(file)[0], count, 0)

    def chunks(self, file: str) -> Iterator[bytes]:
        """All of a file, in pieces. Raises: StorageFailed behind the last one, if it is not what was written."""
        descriptor, size, said = self._file(file)
        digest = hashlib.sha256()
        position = 0
        while position < size:
            piece = os.pread(descriptor, min(_PIECE_BYTES, size - position), position)
            if not piece:
                raise self.damaged(f"{file} has {position} bytes, but {size} were written")
            digest.update(piece)
            position += len(piece)
            yield piece
        if digest.hexdigest() != said:
            raise self.damaged(f"{file} does not have the sha256 that was written down")

    def read_into(self, file: str, head: int, targets: Sequence[memoryview]) -> None:
        """Fill memory with a file from behind its first bytes on, one piece of memory after the other.

        Raises: StorageFailed if the file is not what was written.
        """
        size = self.size_of(file)
        if head + sum(map(len, targets)) != size:
            raise self.damaged(f"{file} has {size} bytes, which are not those that its header tells of")
        waiting = (each for each in targets if len(each))
        target = memoryview(b"")
        for chunk in self.chunks(file):
            left = memoryview(chunk)[head:]
            head = max(0, head - len(chunk))
            while left:
                target = target or next(waiting)
                count = min(len(left), len(target))
                target[:count] = left[:count]
                left, target = left[count:], target[count:]

    def damaged(self, cause: str) -> StorageFailed:
        """What is told of one that is not what was written."""
        return _damaged(self.kept.name, cause)

    def _file(self, file: str) -> tuple[int, int, str]:
        try:
            return self._opened[file]
        except KeyError:
            raise self.damaged(f"it has no {file}") from None


class Store:
    """What is kept under names in a data directory."""

    def __init__(self, directory: Path, *, check: CheckDisk = check_names) -> None:
        """The directory is held by this server or by its house (DataDirectory). What a process that has ended left
        behind is removed. `check` refuses what is too much. Raises: OSError.
        """
        self._root = directory / NAMES
        self._check = check
        directory.mkdir(mode=files.PRIVATE_FOLDER, parents=True, exist_ok=True)
        files.make_folder(self._root)
        for home in self._homes():
            with files.locked(home / _LOCK):
                self._sweep(home)

    # --- what callers do ---

    def write(
        self,
        principal: str,
        name: str,
        contents: Mapping[str, Iterable[bytes | memoryview]],
        *,
        size_bytes: int,
        kind: str = "",
        tensors: int = 0,
        about: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        token: str = "",
    ) -> Kept:
        """Keep files under a name; when this returns they are on disk. They are about `size_bytes` together.

        Raises: InvalidArgument for what is no name, AlreadyExists, Exhausted, StorageFailed; and what the contents
        raise. The name has what it had before then.
        """
        paths.check_name(name)
        assert all(_FILE.fullmatch(file) for file in contents)
        with files.telling_of_the_disk(f"keep {name!r}"):
            home = self._home(principal)
            folder = home / paths.folder_of(name)
            with files.locked(home / _LOCK):
                if done := self._is_done(folder, name, token, overwrite=overwrite):
                    return done
                self._check_room(principal, folder, size_bytes)
                temporary, mark = _begin(home)
            try:
                written = {file: files.write(temporary / file, chunks) for file, chunks in contents.items()}
                size = sum(each.size_bytes for each in written.values())
                kept = Kept(name, kind, size, time.time(), tensors, dict(about or {}), token)
                with files.locked(home / _LOCK):
                    if done := self._is_done(folder, name, token, overwrite=overwrite):
                        return done
                    self._check_room(principal, folder, size)
                    self._put(home, folder, temporary, kept, written)
                return kept
            finally:
                files.sweep(temporary)
                os.close(mark)

    @contextlib.contextmanager
    def reading(self, principal: str, name: str) -> Iterator[Reading]:
        """What is kept under a name, open. Raises: InvalidArgument, NotFound, StorageFailed."""
        paths.check_name(name)
        home = self._home_of(principal)
        with contextlib.ExitStack() as stack:
            with files.telling_of_the_disk(f"recall {name!r}"):
                found = self._open(home, name, stack) if home is not None else None
            if found is None:
                raise _unknown(name)
            yield found

    def names(self, principal: str) -> list[Kept]:
        """What a principal keeps, by name. What cannot be read is of the kind "damaged". Raises: StorageFailed."""
        found = []
        with files.telling_of_the_disk("names"):
            home = self._home_of(principal)
            for folder in _folders(home) if home is not None else ():
                if (name := paths.name_of(folder.name)) is None:
                    continue
                try:
                    read = self._read(folder, name)
                except StorageFailed:
                    found.append(Kept(name, DAMAGED, _size_of(folder), 0.0, 0))
                    continue
                if read is not None:
                    found.append(read[0])
        return sorted(found, key=lambda kept: kept.name)

    def forget(self, principal: str, name: str) -> None:
        """Let go of a name. Raises: InvalidArgument, NotFound, StorageFailed."""
        paths.check_name(name)
        with files.telling_of_the_disk(f"forget {name!r}"):
            home = self._home_of(principal)
            if home is None:
                raise _unknown(name)
            folder = home / paths.folder_of(name)
            with files.locked(home / _LOCK):
                try:
                    os.unlink(folder / MANIFEST)
                except (FileNotFoundError, NotADirectoryError):
                    raise _unknown(name) from None
                files.sync(folder)
                files.sweep(folder)

    def used(self, principal: str) -> Use:
        """What a principal has on disk."""
        return _use_in(self._root / paths.folder_of_principal(principal))

    # --- changing names, with the lock held ---

    def _is_done(self, folder: Path, name: str, token: str, *, overwrite: bool) -> Kept | None:
        """What is there already of the same request. Raises: AlreadyExists."""
        try:
            read = self._read(folder, name)
        except StorageFailed:
            if not overwrite:
                raise
            return None
        if read is None:
            return None
        kept = read[0]
        if token and token == kept.token:
            return kept
        if not overwrite:
            raise AlreadyExists(f"the name {name!r} is taken; overwrite it, forget it first, or choose another name")
        return None

    def _check_room(self, principal: str, folder: Path, size_bytes: int) -> None:
        """Raises: Exhausted."""
        used = self.used(principal)
        replaced = Use(_size_of(folder), 1) if (folder / MANIFEST).exists() else Use()
        used = Use(used.size_bytes - replaced.size_bytes, used.names - replaced.names)
        self._check(principal, used, Use(size_bytes, 1 - replaced.names))
        there = os.statvfs(self._root)
        if size_bytes > there.f_bavail * there.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, home: Path, folder: Path, temporary: Path, kept: Kept, written: Mapping[str, files.Written]) -> None:
        """Give files that are on disk their name."""
        generation = secrets.token_hex(8)
        told: dict[str, dict[str, Any]] = {}
        for file, each in written.items():
            stem, _, suffix = file.partition(".")
            on_disk = f"{stem}-{generation}.{suffix}"
            told[file] = {"file": on_disk, "bytes": each.size_bytes, "sha256": each.sha256}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": kept.name,
            "kind": kept.kind,
            "kept_unix_s": kept.kept_unix_s,
            "tensors": kept.tensors,
            "token": kept.token,
            "about": kept.about,
            "files": told,
        }
        try:
            files.write(temporary / MANIFEST, [files.seal(manifest)])
            files.make_folder(folder)
            files.sync(home)
            for file in written:
                os.rename(temporary / file, folder / told[file]["file"])
            files.sync(folder)
            os.rename(temporary / MANIFEST, folder / MANIFEST)
            files.sync(folder)
        finally:
            # What was there before, or what was to be there and is not.
            self._tidy(folder)

    def _tidy(self, folder: Path) -> None:
        """Remove what the manifest of a name does not name; all of it where there is none."""
        if not files.is_folder(folder):
            return
        if not (folder / MANIFEST).exists():
            files.sweep(folder)
            return
        try:
            told = self._manifest(folder)["files"]
            named = {MANIFEST, *(each["file"] for each in told.values())}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # Somebody may be able to mend it.
            return
        for left in os.listdir(folder):
            if left not in named:
                files.sweep(folder / left)

    def _sweep(self, home: Path) -> None:
        """Remove what processes have left behind that have ended."""
        for left in home.glob(_TEMPORARY + "*"):
            try:
                mark = files.take_lock(left / _LOCK, waits=False)
            except FileNotFoundError:
                continue  # who wrote there has just removed it
            if mark is not None:
                files.sweep(left)
                os.close(mark)
        for folder in _folders(home):
            self._tidy(folder)

    # --- reading ---

    def _open(self, home: Path, name: str, stack: contextlib.ExitStack) -> Reading | None:
        """Its files, closed with the stack; None where it is not there."""
        folder = home / paths.folder_of(name)
        for tries_left in reversed(range(_TRIES)):
            read = self._read(folder, name)
            if read is None:
                return None
            kept, told = read
            opened = {}
            try:
                for file, (on_disk, size, said) in told.items():
                    descriptor = files.open_to_read(folder / on_disk)
                    stack.callback(os.close, descriptor)
                    opened[file] = descriptor, size, said
            except FileNotFoundError:
                # It was replaced just now; or something is wrong with it.
                if tries_left and self._read(folder, name) != read:
                    continue
                raise _damaged(name, "a file of it is not there") from None
            for file, (descriptor, size, _) in opened.items():
                if os.fstat(descriptor).st_size != size:
                    raise _damaged(name, f"{file} has {os.fstat(descriptor).st_size} bytes, but {size} were written")
            return Reading(kept, opened)
        raise _damaged(name, "it changes all the time")

    def _read(self, folder: Path, name: str) -> tuple[Kept, dict[str, tuple[str, int, str]]] | None:
        """What a manifest says; None where there is none. Raises: OSError, StorageFailed."""
        if not files.is_folder(folder):
            return None
        try:
            manifest = self._manifest(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise _damaged(name, f"its {MANIFEST} is no file") from error
            raise
        except ValueError as error:
            raise _damaged(name, f"its {MANIFEST} cannot be read: {error}") from error
        if manifest.get("format") != FORMAT:
            raise _damaged(name, f"its {MANIFEST} is none of a name")
        version = manifest.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise StorageFailed(
                f"{name!r} was kept by a newer server, in format {str(version)[:20]}; this one reads up to "
                f"{FORMAT_VERSION}. Recall it with a server of that version",
                reason="NEWER_FORMAT",
            )
        said = manifest.pop("sha256", None)
        if said != files.digest_of(manifest):
            raise _damaged(name, f"its {MANIFEST} does not have the sha256 that it says of itself")
        try:
            told = {
                file: (_on_disk(each["file"]), int(each["bytes"]), str(each["sha256"]))
                for file, each in manifest["files"].items()
            }
            size = sum(each[1] for each in told.values())
            kept = Kept(
                *(str(manifest["name"]), str(manifest["kind"]), size),
                *(float(manifest["kept_unix_s"]), int(manifest["tensors"])),
                *(dict(manifest["about"]), str(manifest["token"])),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(name, f"its {MANIFEST} lacks something: {error}") from error
        if kept.name != name:
            raise _damaged(name, f"its {MANIFEST} is of {kept.name[:60]!r}")
        return kept, told

    def _manifest(self, folder: Path) -> dict[str, Any]:
        """Raises: OSError, ValueError."""
        manifest = load_json(files.read(folder / MANIFEST, _MOST_MANIFEST_BYTES))
        if not isinstance(manifest, dict):
            raise ValueError("it is no object of JSON")
        return manifest

    # --- where it is ---

    def _home(self, principal: str) -> Path:
        """The folder of a principal, which is made if it is not there. Raises: OSError."""
        home = self._root / paths.folder_of_principal(principal)
        if not files.is_folder(home):
            files.make_folder(home)
            files.sync(self._root)
        return home

    def _home_of(self, principal: str) -> Path | None:
        """The folder of a principal, if there is one."""
        home = self._root / paths.folder_of_principal(principal)
        return home if files.is_folder(home) else None

    def _homes(self) -> Iterator[Path]:
        return _folders(self._root)


def _begin(home: Path) -> tuple[Path, int]:
    """A folder to write in, and the lock by which it is seen that somebody does."""
    temporary = home / (_TEMPORARY + secrets.token_hex(8))
    files.make_folder(temporary)
    try:
        mark = files.take_lock(temporary / _LOCK, waits=True)
    except BaseException:
        files.sweep(temporary)
        raise
    assert mark is not None
    return temporary, mark


def _folders(parent: Path) -> Iterator[Path]:
    with os.scandir(parent) as entries:
        found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return iter(sorted(path for path in found if not path.name.startswith(".")))


def use_of(directory: Path, principal: str) -> Use:
    """What a principal has under names in a data directory."""
    return _use_in(directory / NAMES / paths.folder_of_principal(principal))


def _use_in(home: Path) -> Use:
    """What is in the folder of a principal."""
    if not files.is_folder(home):
        return Use()
    folders = [folder for folder in _folders(home) if (folder / MANIFEST).exists()]
    return Use(sum(map(_size_of, folders)), len(folders))


def _size_of(folder: Path) -> int:
    """The bytes of the files in a folder, but for its manifest."""
    if not files.is_folder(folder):
        return 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.name != MANIFEST)
    return 0


def _on_disk(file: Any) -> str:
    """The name of a file beside its manifest. Raises: ValueError."""
    if not isinstance(file, str) or _ON_DISK.fullmatch(file) is None:
        raise ValueError(f"{str(file)[:60]!r} is no file of a name")
    return file


def _unknown(name: str) -> NotFound:
    return NotFound(f"nothing is kept under the name {name!r}; names() tells what there is")


def _damaged(name: str, cause: str) -> StorageFailed:
    log.error("what is kept is damaged", extra={"kept": name, "cause": cause})
    return StorageFailed(
        f"{name!r} is damaged on the disk of the server: {cause}; bring back a copy of it, or keep it anew",
        reason="DAMAGED",
    )
