"""Models on disk: a safetensors file and a JSON manifest each, written whole or not at all, and checked when read.

    DATA_DIR/models/NAME/VERSION/model.safetensors
    DATA_DIR/models/NAME/VERSION/manifest.json
    DATA_DIR/models/@OWNER/NAME/VERSION/…           of a model that is its owner's alone: OWNER/NAME

Folders and files are this user's alone. What does not pass the checks is renamed to VERSION.corrupt and never read
again. Every method blocks on the disk and may be called from any thread, but not twice at a time for one model. What
the bytes mean is the engine's business.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.wire.safetensors import load_json
from tserver.errors import AlreadyExists, InvalidArgument, ModelNotReady, ServerError
from tserver.models.batching import BatchingConfig
from tserver.models.names import bare, owner_in
from tserver.storage import files
from tserver.storage.directory import MODELS, DataDirectory

log = logging.getLogger("tserver.models")

FORMAT = "tensorcompute-model"
FORMAT_VERSION = 1
_MANIFEST, _WEIGHTS = "manifest.json", "model.safetensors"
_MOST_MANIFEST_BYTES = 64 << 20
_TEMPORARY, _TRASH, _CORRUPT = ".new-", ".old-", ".corrupt"
# Begins a folder of the models of one owner. No name of a model begins so, and none of an owner has a slash.
_OF_OWNER = "@"
# What the system says of files that are not as a model's are. All else that it says is of the disk or of itself.
_DAMAGED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO))


@dataclass(frozen=True, slots=True)
class Kept:
    """A model as it was on disk: what its manifest says, and its weights as a file."""

    manifest: dict[str, Any]
    data: bytes
    batching: BatchingConfig
    # On how many engines it is to be, where there are several.
    replicas: int
    # Who may change it, where it is public.
    owner: str


def own_bytes(directory: Path, principal: str) -> int:
    """The bytes of the models in a data directory that are a principal's alone."""
    # As names in the registry begin, see Identity.namespace.
    home = directory / MODELS / (_OF_OWNER + quote(principal, safe=""))
    total = 0
    for folder, _, names in os.walk(home):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


class Disk:
    """The models in one directory, which belongs to one server at a time."""

    def __init__(self, directory: Path) -> None:
        """Take hold of the directory. Raises: OSError, InvalidArgument if another server has it."""
        self._held = DataDirectory(directory)
        self._root = directory / MODELS
        # Refuses so many bytes more of a principal's own.
        self.check: Callable[[str, int], None] = lambda principal, size_bytes: None
        for left in (*self._root.glob("*/.*"), *self._root.glob(f"{_OF_OWNER}*/*/.*")):
            # A server that ended in the middle of it left this behind.
            if left.name.startswith((_TEMPORARY, _TRASH)):
                files.sweep(left)

    def close(self) -> None:
        """Let go of the directory."""
        self._held.close()

    def names(self) -> Iterator[tuple[str, int]]:
        """The name and version of all models there are, in order."""
        for home in filter(files.is_folder, sorted(self._root.iterdir())):
            if home.name.startswith(_OF_OWNER):
                owner = home.name.removeprefix(_OF_OWNER)
                for own in _folders(home):
                    yield from ((f"{owner}/{own.name}", version) for version in _versions(own))
            else:
                yield from ((home.name, version) for version in _versions(home))

    def write(
        self,
        name: str,
        version: int,
        described: dict[str, Any],
        data: bytes,
        batching: BatchingConfig,
        replicas: int,
        owner: str = "",
    ) -> None:
        """Write a model: what is described of it, and its weights. When this returns it is on disk; when it does not,
        there is nothing.

        Raises: OSError, Exhausted, AlreadyExists where there is something else in its place.
        """
        if private := owner_in(name):
            self.check(private, len(data))
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": name,
            "version": version,
            **described,
            **_settings(batching, replicas),
            **({"owner": owner} if owner else {}),
            "weights": {"file": _WEIGHTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        }
        home = self._home(name)
        if home.parent != self._root:
            files.make_folder(home.parent)
        files.make_folder(home)
        temporary = home / (_TEMPORARY + secrets.token_hex(8))
        files.make_folder(temporary)
        try:
            files.write(temporary / _WEIGHTS, [data])
            files.write(temporary / _MANIFEST, [files.seal(manifest)])
            files.sync(temporary)
            _claim(temporary, home / str(version))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for folder in (home, home.parent, self._root):
            files.sync(folder)

    def update(self, name: str, version: int, batching: BatchingConfig, replicas: int) -> None:
        """Change the settings on record. Raises: OSError, ModelNotReady if the manifest is damaged."""
        folder = self._folder(name, version)
        with self._judging(folder, name, version):
            manifest = self._manifest(folder, name, version)
        manifest.pop("replicas", None)
        manifest |= _settings(batching, replicas)
        # Beside the folder, where what is left of a server that ended in the middle of it is swept away.
        temporary = folder.with_name(_TEMPORARY + secrets.token_hex(8))
        try:
            files.write(temporary, [files.seal(manifest)])
            temporary.replace(folder / _MANIFEST)
        except BaseException:
            files.sweep(temporary)
            raise
        files.sync(folder)
        files.sync(folder.parent)

    def bytes_of(self, name: str, version: int) -> Kept:
        """A model from disk. One that is damaged is set aside first. Raises: ModelNotReady saying what is wrong."""
        folder = self._folder(name, version)
        with self._judging(folder, name, version):
            return self._kept(folder, name, version)

    def settings_of(self, name: str, version: int) -> tuple[BatchingConfig, int, str, int]:
        """How it is batched, on how many engines it is to be, whose it is, and its bytes. Raises: as `bytes_of`."""
        folder = self._folder(name, version)
        with self._judging(folder, name, version):
            manifest = self._manifest(folder, name, version)
            return *_read_settings(manifest), int(manifest["weights"]["bytes"])

    def look(self, name: str, version: int, *, whole: bool = False) -> dict[str, Any]:
        """What the manifest of a model says; with `whole` its weights are read too. What is damaged stays where it is.

        Raises: whatever is found to be wrong.
        """
        folder = self._folder(name, version)
        return self._kept(folder, name, version).manifest if whole else self._manifest(folder, name, version)

    def condemn(self, name: str, version: int, error: ServerError) -> ModelNotReady:
        """Set a model aside that whoever was to run it found damaged; what is to be told of that."""
        try:
            with self._judging(self._folder(name, version), name, version):
                raise error
        except ModelNotReady as told:
            return told

    @contextlib.contextmanager
    def _judging(self, folder: Path, name: str, version: int) -> Iterator[None]:
        """Set a model aside where something in it is wrong. Raises: ModelNotReady instead of what was raised."""
        what = f"version {version} of {bare(name)!r}"
        try:
            yield
        except Exception as error:
            if self.is_out_of_memory(error):
                raise
            cause = error.message if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno not in _DAMAGED:
                # The disk or the system fails, which says nothing of the model: the next try may find it sound.
                log.error("a model on disk cannot be read", extra={"model": name, "version": version, "cause": cause})
                raise ModelNotReady(
                    f"{what} cannot be read: {cause}; mend that, then load it", reason="MODEL_UNREADABLE"
                ) from error
            aside = self._set_aside(folder)
            log.error(
                "a model on disk is damaged; it is not served",
                extra={"model": name, "version": version, "cause": cause, "set_aside": str(aside)},
            )
            raise ModelNotReady(
                f"{what} is damaged on disk and was set aside: {cause}; create it again, or bring back a copy",
                reason="MODEL_CORRUPT",
            ) from error

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that memory ran out, which is no fault of what was read."""
        return isinstance(error, MemoryError)

    def delete(self, name: str, version: int) -> None:
        """Remove a model from disk, if it is there. Raises: OSError."""
        home = self._home(name)
        trash = home / (_TRASH + secrets.token_hex(8))
        with contextlib.suppress(FileNotFoundError):
            (home / str(version)).rename(trash)
            files.sync(home)
            shutil.rmtree(trash, ignore_errors=True)
        # Fails where other versions, or what was set aside, are left in it.
        with contextlib.suppress(OSError):
            home.rmdir()

    def _home(self, name: str) -> Path:
        """The folder of all versions of a name."""
        owner = name.rpartition("/")[0]
        return self._root / (_OF_OWNER + owner) / bare(name) if owner else self._root / name

    def _folder(self, name: str, version: int) -> Path:
        return self._home(name) / str(version)

    def _kept(self, folder: Path, name: str, version: int) -> Kept:
        manifest = self._manifest(folder, name, version)
        told = manifest["weights"]
        path = folder / _WEIGHTS
        size = os.lstat(path).st_size
        if size != told["bytes"]:
            raise InvalidArgument(f"{_WEIGHTS} has {size} bytes, but the manifest says {told['bytes']}")
        data = files.read(path, size)
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise InvalidArgument(f"{_WEIGHTS} does not have the sha256 that the manifest says")
        return Kept(manifest, data, *_read_settings(manifest))

    def _manifest(self, folder: Path, name: str, version: int) -> dict[str, Any]:
        if not files.is_folder(folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder.name)
        manifest = load_json(files.read(folder / _MANIFEST, _MOST_MANIFEST_BYTES))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InvalidArgument(f"{_MANIFEST} is not the manifest of a model")
        if manifest.get("format_version") != FORMAT_VERSION:
            raise InvalidArgument(
                f"{_MANIFEST} has format_version {manifest.get('format_version')}; this server reads {FORMAT_VERSION}, "
                "a server of the version that wrote it reads it too"
            )
        said = manifest.pop("sha256", None)
        if said != files.digest_of(manifest):
            raise InvalidArgument(f"{_MANIFEST} does not have the sha256 that it says of itself")
        if (manifest["name"], manifest["version"]) != (name, version):
            raise InvalidArgument(f"{_MANIFEST} is of version {manifest['version']} of {manifest['name']!r}")
        return manifest

    def _set_aside(self, folder: Path) -> Path | None:
        for number in range(1000):
            aside = folder.with_name(folder.name + _CORRUPT + (f"-{number}" if number else ""))
            if aside.exists():
                continue
            try:
                folder.rename(aside)
            except OSError:
                return None
            return aside
        return None


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where it cannot be read."""
    try:
        return list(filter(files.is_folder, sorted(folder.iterdir())))
    except OSError as error:
        log.error("a folder of models cannot be read", extra={"model": folder.name, "cause": str(error)})
        return []


def _versions(home: Path) -> list[int]:
    """The versions in the folder of a name."""
    return sorted(int(entry.name) for entry in _folders(home) if _is_version(entry.name))


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name)) and int(name) > 0


def _settings(batching: BatchingConfig, replicas: int) -> dict[str, Any]:
    told = json_format.MessageToDict(batching.message(), preserving_proto_field_name=True)
    return {"batching": told, **({"replicas": replicas} if replicas else {})}


def _read_settings(manifest: dict[str, Any]) -> tuple[BatchingConfig, int, str]:
    batching = BatchingConfig.read(json_format.ParseDict(manifest["batching"], ms.BatchingConfig()))
    replicas = manifest.get("replicas", 0)
    owner = manifest.get("owner", "")
    return (
        batching,
        replicas if isinstance(replicas, int) and 0 <= replicas < 1 << 32 else 0,
        owner if isinstance(owner, str) else "",
    )


def _claim(temporary: Path, target: Path) -> None:
    """Give a folder that is written its place. Raises: AlreadyExists where that is taken, OSError."""
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        # Something that this server could not serve when it started; the log says why.
        raise AlreadyExists(
            f"{target.name} of {target.parent.name!r} is on disk, but is not served; load it, or give another version"
        ) from None
