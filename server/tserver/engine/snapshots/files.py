"""A snapshot as two files of a folder: a safetensors file of its blobs, and a JSON text of all else.

What they should be is remembered by whoever keeps the folder: bytes and digests. In pieces, on the engine's thread; to
bring them to disk is left to threads that may wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensorcompute.wire import safetensors
from tserver.engine.object_store import ObjectStore
from tserver.engine.snapshots.parts import Damaged
from tserver.engine.snapshots.restoring import restore
from tserver.engine.snapshots.taking import take

TEXT, TENSORS = "objects.json", "tensors.safetensors"
# Of what is written or read at one go: some milliseconds.
_PIECE_BYTES = 1 << 20
_MAX_TEXT_BYTES = 1 << 30

Told = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written: of each file its bytes and its digest; and what of the session is not in it."""

    files: Told
    left_out: list[str]


def save(store: ObjectStore, folder: Path) -> Generator[None, None, Saved]:
    """Write what a session holds into a folder. Raises: OSError."""
    taken = take(store)
    header, entries = safetensors.header_of(
        ((str(index), "uint8", (size,)) for index, size in enumerate(taken.sizes)), {"format": "tserver-snapshot"}
    )
    told: Told = {}
    with ExitStack() as stack:
        out = _Out(folder / TENSORS, stack)
        out.write(header)
        for entry in entries:
            blob = taken.blobs[int(entry.name)]
            for begin in range(0, blob.numel(), _PIECE_BYTES):
                piece = blob[begin : begin + _PIECE_BYTES].cpu()
                out.write(piece.numpy().data)
                yield
        told[TENSORS] = out.told()
        out = _Out(folder / TEXT, stack)
        out.write(json.dumps(taken.text, separators=(",", ":")).encode())
        told[TEXT] = out.told()
    return Saved(told, taken.left_out)


def load(store: ObjectStore, folder: Path, told: Told) -> Generator[None, None, None]:
    """Put what was written into an empty store. Raises: OSError, Damaged, and what torch raises."""
    with ExitStack() as stack:
        text = _In(folder / TEXT, told[TEXT], stack)
        if text.size > _MAX_TEXT_BYTES:
            raise Damaged(f"{TEXT} has {text.size} bytes")
        said = text.rest()
        text.check()
        tensors = _In(folder / TENSORS, told[TENSORS], stack)
        length = tensors.take(min(safetensors.LENGTH_BYTES, tensors.size))
        header = tensors.take(safetensors.length_of_header(length, tensors.size))
        entries, _ = safetensors.parse(header, tensors.size)
        entries.sort(key=lambda entry: entry.start)
        if [(entry.name, entry.dtype) for entry in entries] != [(str(index), "uint8") for index in range(len(entries))]:
            raise Damaged(f"{TENSORS} has other blobs than a snapshot")
        sizes = [entry.stop - entry.start for entry in entries]

        def fill(index: int, blob: Tensor) -> Generator[None, None, None]:
            for begin in range(0, blob.numel(), _PIECE_BYTES):
                size = min(_PIECE_BYTES, blob.numel() - begin)
                blob[begin : begin + size].copy_(torch.frombuffer(bytearray(tensors.take(size)), dtype=torch.uint8))
                yield
            if index == len(sizes) - 1:
                # Before anything of it is made use of.
                tensors.check()

        yield from restore(store, _parsed(said), sizes, fill)


def _parsed(text: bytes) -> Any:
    try:
        return safetensors.load_json(text)
    except ValueError as error:
        raise Damaged(f"{TEXT} cannot be read: {error}") from None


class _Out:
    """A new file."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        stack.callback(os.close, self._descriptor)
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        """Behind what was written."""
        left = memoryview(data)
        self._digest.update(left)
        self._size += len(left)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def told(self) -> tuple[int, str]:
        """Its bytes and its digest."""
        return self._size, self._digest.hexdigest()


class _In:
    """A file that is read once through."""

    def __init__(self, path: Path, told: tuple[int, str], stack: ExitStack) -> None:
        self._name, (self.size, self._wanted) = path.name, told
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = stack.enter_context(os.fdopen(descriptor, "rb"))
        found = os.fstat(descriptor)
        if found.st_size != self.size or not stat.S_ISREG(found.st_mode):
            raise Damaged(f"{self._name} has {found.st_size} bytes, and not {self.size}")
        self._digest = hashlib.sha256()

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self._file.read(count)
        if len(data) != count:
            raise Damaged(f"{self._name} ends too soon")
        self._digest.update(data)
        return data

    def rest(self) -> bytes:
        """All of them."""
        return self.take(self.size - self._file.tell())

    def check(self) -> None:
        """Compare what was read with what was written."""
        if self._digest.hexdigest() != self._wanted:
            raise Damaged(f"{self._name} does not have the sha256 that it should have")
