"""save and load: objects with their tensors as safetensors files of this machine; load reads torch's files, too.

Other programs read such a file as a flat list of tensors with names like "model.0.weight"; what is around them stands
in JSON beside (_outline.py). A file holds data only: classes are named, and found by import where the program allows
that.
Knows tensors and how they travel; the format itself is in tensorcompute.wire.safetensors.
"""

from __future__ import annotations

import json
import mmap as memory_map
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from errno import ENOENT
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tclient import _functions, _locations
from tclient._by_value import tensor_of
from tclient._codec.dtypes import DTYPES, dtype
from tclient._exceptions import ServerFailed, TensorValueError
from tclient._issue import prepare
from tclient._safe_globals import (
    Finder,
    WeightsOnly,
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    refused,
    safe_globals,
)
from tclient._session.session import Session
from tclient._sharded import is_index, shards_of
from tclient._tensor import _READ, Tensor, _fetch
from tclient._transfer.progress import bar
from tensorcompute.wire.safetensors import LENGTH_BYTES, Damaged, Entry, header_of, length_of_header, load_json, parse

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save"]

File = str | os.PathLike[str] | BinaryIO
# As torch names the kinds of arguments; for annotations.
FILE_LIKE = File
MAP_LOCATION = Callable[[Any, str], Any] | str | dict[str, str] | None

# Where a file keeps what its list of tensors does not tell; and where earlier versions kept it.
OBJECTS = "tclient.objects"
_STRUCTURE = "tclient.structure"
# Reads under way at once: the server holds a copy of what is read.
_AHEAD_BYTES = 16 << 20


def save(
    obj: Any,
    f: File,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Write an object with its tensors to a safetensors file, which is there whole or not at all.

    Args:
        obj: a tensor, `model.state_dict()`, `{"model": model.state_dict(), "epoch": 3}`, a whole module: whatever is
            made of data. Tensors get names such as "model.0.weight". Of a class its name is written, and the state of
            the object. Tensors that share memory share it again when they are loaded.
        f: a path, or a file that is open for writing bytes.

    What else torch takes is taken, and changes nothing: nothing is pickled.

    Raises: TypeError for what is no data, such as a lock or a file; RuntimeError if the folder does not exist.

    Example:
        >>> torch.save(model.state_dict(), "model.safetensors")
        >>> model.load_state_dict(torch.load("model.safetensors"))
    """
    from tclient._outline import Writer
    from tclient._stored import Shelf

    if not isinstance(f, str | os.PathLike) and not hasattr(f, "write"):
        raise AttributeError("expected 'f' to be string, path, or a file-like object with a 'write' attribute")
    target = Path(f) if isinstance(f, str | os.PathLike) else None
    if target is not None and not target.parent.is_dir():
        raise RuntimeError(f"Parent directory {target.parent} does not exist.")
    shelf = Shelf()
    writer = Writer(shelf.node)
    root = writer.value(obj)
    shelf.place()
    metadata = metadata_of(obj, root, writer.nodes, list(shelf.entries))
    header, entries = header_of([(name, *entry[:2]) for name, entry in shelf.entries.items()], metadata)
    sources = {name: entry[2] for name, entry in shelf.entries.items()}
    if target is None:
        _write(f, header, entries, sources, "save")  # type: ignore[arg-type]
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            _write(file, header, entries, sources, target.name)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def metadata_of(obj: Any, root: Any, nodes: list[Any], names: list[str]) -> dict[str, str]:
    """What a file says beside its list of tensors, of these names, of an object of these nodes."""
    metadata = {"format": "pt"}
    if not _says_all(obj, nodes, names):
        metadata[OBJECTS] = json.dumps({"root": root, "nodes": nodes}, separators=(",", ":"))
    return metadata


def _says_all(obj: Any, nodes: list[Any], names: list[str]) -> bool:
    """Whether a list of tensors by name says all there is."""
    return type(obj) is dict and list(obj) == names and all(node[0] == "dict" or node[2] == {} for node in nodes)


def load(
    f: File,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Read what `save` or torch.save wrote, or the tensors of any other safetensors file, as a dict by name.

    What a file holds decides, not its name: `save` writes safetensors into "model.pt", too. No pickle is run: of
    torch's files, data is read. Tensors that shared memory share it again.

    A state dict that lies in several files is read by its index, such as "model.safetensors.index.json".

    Args:
        f: a path, or a file that is open for reading bytes; of an index, its path.
        map_location: the device of the tensors; or a dict, or a function (storage, location), that tells where those go
            that were elsewhere. Without it, they go where the server puts new tensors.
        weights_only: whether classes that the file names are refused, unless the program allows them by
            `add_safe_globals`; otherwise they are imported. As in torch, True if it is not given.
        mmap: as torch's; a file that has a path is always mapped.

    Raises: UnpicklingError, in torch's words, for a class that is refused; ValueError for files that are damaged or of
    another format; OutOfMemoryError; OSError.

    Example:
        >>> model.load_state_dict(torch.load("bert-base-uncased/model.safetensors"))
    """
    if mmap and not isinstance(f, str | os.PathLike):
        raise ValueError("f must be a file path in order to use the mmap argument")
    safe = weights_only if weights_only is not None else pickle_module is None
    reading = _Reading(_locations.mapping(map_location, _functions.get_default_device), safe)
    if not isinstance(f, str | os.PathLike):
        if not hasattr(f, "read"):
            raise AttributeError(
                f"'{type(f).__name__}' object has no attribute 'seek'. You can only torch.load from a file that is "
                "seekable. Please pre-load the data into a buffer like io.BytesIO and try to load from it instead."
            )
        return reading.read(memoryview(f.read()), "the file")
    path = Path(f)
    content = _mapped(path)
    return reading.read_shards(content, path) if is_index(content) else reading.read(content, str(path))


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise TensorValueError(f"load: {path} is empty")
        return memoryview(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ))


# ---- the elements ----------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, header: bytes, entries: list[Entry], sources: Mapping[str, Any], name: str) -> None:
    file.write(header)
    total = sum(entry.stop - entry.start for entry in entries)
    tensors = [sources[entry.name] for entry in entries if isinstance(sources[entry.name], Tensor)]
    with bar(name, total) as shown, closing(_elements(tensors)) as elements:
        for entry in entries:
            source = sources[entry.name]
            data = next(elements) if isinstance(source, Tensor) else source.data.cast("B") if source.size else b""
            if memoryview(data).nbytes != entry.stop - entry.start:
                raise ServerFailed(f"save: {entry.name!r} came with {memoryview(data).nbytes} bytes")
            file.write(data)
            shown.update(entry.stop - entry.start)


def _elements(tensors: list[Tensor]) -> Generator[Any, None, None]:
    """The bytes of the tensors in turn; the next ones are asked for before one is waited for."""
    asked: deque[tuple[Session, Any, int, int]] = deque()
    under_way = 0
    waiting = iter(tensors)
    tensor = next(waiting, None)
    try:
        while tensor is not None or asked:
            while tensor is not None and (not asked or under_way < _AHEAD_BYTES):
                asked.append((tensor._ref.session, *prepare(_READ, tensor._ref), tensor.nbytes))
                under_way += tensor.nbytes
                tensor = next(waiting, None)
            session, call, number, size = asked[0]
            value = session.wait(call)
            inline = value is not None and value.HasField("data")
            data = value.data.data if value is not None and inline else _fetch(value, session, number)[2]
            asked.popleft()
            under_way -= size
            yield data
    finally:
        # What was asked for and is not wanted any more must not stay on the server.
        for session, _, number, _ in asked:
            session.queue.drops.append(number)


class _Reading:
    """Reads one file."""

    def __init__(self, place: Callable[[str], Any], weights_only: bool) -> None:
        self._place, self._weights_only = place, weights_only

    def read(self, content: memoryview, source: str) -> Any:
        """The object of the file."""
        # The first bytes are a length in a safetensors file, and may be any; its header comes next.
        if bytes(content[8:9]) != b"{" and (bytes(content[:4]) == b"PK\x03\x04" or bytes(content[:1]) == b"\x80"):
            return self._read_torch(content, source)
        try:
            begin = LENGTH_BYTES + length_of_header(content[:LENGTH_BYTES], len(content))
            entries, metadata = parse(content[LENGTH_BYTES:begin], len(content))
        except Damaged as error:
            raise TensorValueError(f"load: {source} is no safetensors file, or is damaged: {error}") from None
        by_name = {entry.name: entry for entry in entries}
        with bar(Path(source).name, sum(entry.stop - entry.start for entry in entries)) as shown:

            def data(name: str) -> np.ndarray[Any, Any]:
                entry = by_name[name]
                found = np.frombuffer(content[entry.start : entry.stop], np.uint8)
                if entry.dtype == "bool" and found.size and found.max() > 1:
                    raise Damaged(f"{name!r} has bools that are neither 0 nor 1")
                shown.update(found.size)
                return found

            def tensor(name: str, location: str = "cpu") -> Tensor:
                entry = by_name[name]
                return tensor_of(DTYPES[entry.dtype], entry.shape, data(name), self._place(location))

            try:
                return self._around(metadata, by_name, tensor, data)
            except Damaged as error:
                raise TensorValueError(f"load: {source} is damaged: {error}") from None

    def read_shards(self, content: memoryview, index: Path) -> dict[str, Tensor]:
        """The tensors that an index names, each from the file that it names for it."""
        found: dict[str, Tensor] = {}
        try:
            shards = shards_of(content, index.parent)
            for shard, names in shards.items():
                if not shard.is_file():  # a pipe would be waited for
                    raise FileNotFoundError(ENOENT, f"No such file, which {index.name} names", str(shard))
                of_shard = self.read(_mapped(shard), str(shard))
                for name in names:
                    tensor = of_shard.get(name) if isinstance(of_shard, dict) else None
                    if not isinstance(tensor, Tensor):
                        raise Damaged(f"{shard.name!r} has no tensor {name[:100]!r}")
                    found[name] = tensor
        except Damaged as error:
            raise TensorValueError(f"load: {index} is no index of a state dict, or does not fit: {error}") from None
        return found

    def _around(
        self,
        metadata: dict[str, str],
        entries: dict[str, Entry],
        tensor: Callable[..., Tensor],
        data: Callable[[str], np.ndarray[Any, Any]],
    ) -> Any:
        """The object that is around the tensors."""
        if OBJECTS not in metadata:
            tensors = {name: tensor(name) for name in entries}
            if _STRUCTURE not in metadata:
                return tensors
            from tclient._outline import nested

            return _described(_STRUCTURE, lambda: nested(load_json(metadata[_STRUCTURE]), tensors))
        from tclient._outline import Reader
        from tclient._stored import Contents

        def read() -> Any:
            said = json.loads(metadata[OBJECTS])
            contents = Contents(tensor, data)
            contents.reader = Reader(said["nodes"], Finder(weights_only=self._weights_only), contents.makers())
            return contents.reader.value(said["root"])

        # Of classes of the program's own, the errors are theirs.
        return _described(OBJECTS, read) if self._weights_only else read()

    def _read_torch(self, content: memoryview, source: str) -> Any:
        # Here, as it brings all of nn with it, which a program that only imports tclient should not wait for.
        from tclient._torch_files import NotAllowed, Refused, read_torch_file

        with bar(Path(source).name, len(content)) as shown:

            def make(element: dtype, shape: tuple[int, ...], data: np.ndarray[Any, Any], location: str) -> Tensor:
                made = tensor_of(element, shape, data, self._place(location))
                shown.update(data.size)
                return made

            try:
                return read_torch_file(content, make)
            except NotAllowed as error:
                raise refused(error.name) from None
            except Refused as error:
                raise TensorValueError(f"load: {source} is a file of torch.save that is not read: {error}") from None


def _described(where: str, read: Callable[[], Any]) -> Any:
    """What is read, of a file that may say anything."""
    try:
        return read()
    except (WeightsOnly, Damaged):
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise Damaged(f"{where} does not describe its tensors") from None
