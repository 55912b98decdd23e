"""save and load: tensors of the session as safetensors files of this machine; load reads torch's files, too.

Tensors, and dicts, lists and tuples of them with numbers and texts between: a tensor, a state_dict(), or a whole
checkpoint. Other programs read such a file as a flat list of tensors with names like "model.0.weight". A file holds
data only; nothing in it is ever run. Knows tensors and how they travel; the format itself is in
tensorcompute.wire.safetensors.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tclient import _functions
from tclient._by_value import tensor_of
from tclient._codec.dtypes import DTYPES, dtype
from tclient._codec.wire import FREE
from tclient._exceptions import ServerFailed, TensorTypeError, TensorValueError
from tclient._issue import catch_up, prepare
from tclient._session.session import Session
from tclient._tensor import _READ, Tensor, _fetch
from tclient._transfer.progress import bar
from tensorcompute.wire.safetensors import CODES, LENGTH_BYTES, Damaged, Entry, header_of, length_of_header, parse

__all__ = ["load", "save"]

File = str | os.PathLike[str] | BinaryIO

# Where a file keeps what its list of tensors does not tell: dicts within dicts, lists, numbers.
_STRUCTURE = "tclient.structure"
_MAX_DEPTH = 64
# The name of a tensor that was saved alone.
_ALONE = "tensor"
# Reads under way at once: the server holds a copy of what is read.
_AHEAD_BYTES = 16 << 20


def save(obj: Any, f: File) -> None:
    """Write tensors to a safetensors file, which is there whole or not at all.

    Args:
        obj: a tensor, or a dict, list or tuple of them: `model.state_dict()`, or
            `{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}`. Numbers, texts and None
            may stand between; tensors within dicts get names such as "model.0.weight".
        f: a path, or a file that is open for writing bytes.

    Every tensor is written whole: two that share memory, as views do, are two when they are loaded.

    Raises: TypeError for anything else, and for the dtypes that the format lacks (complex128, complex32); ValueError
    for two tensors of one name.

    Example:
        >>> torch.save(model.state_dict(), "model.safetensors")
        >>> model.load_state_dict(torch.load("model.safetensors"))
    """
    tensors: dict[str, Tensor] = {}
    structure = _outline(obj, (), tensors)
    catch_up(tensors.values())
    metadata = {"format": "pt"}
    if not (isinstance(obj, Mapping) and list(obj) == list(tensors)):  # a plain list of tensors says all there is
        metadata[_STRUCTURE] = json.dumps(structure, separators=(",", ":"))
    header, entries = header_of(
        [(name, _dtype_name(name, tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()], metadata
    )
    if not isinstance(f, str | os.PathLike):
        _write(f, header, entries, tensors, "save")
        return
    target = Path(f)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            _write(file, header, entries, tensors, target.name)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load(f: File, map_location: Any = None, *, weights_only: bool | None = None, mmap: bool | None = None) -> Any:
    """Read what `save` or torch.save wrote, or the tensors of any other safetensors file, as a dict by name.

    Of torch's files, data is read as with weights_only=True: tensors, parameters, numbers, texts and containers of
    them, without running anything; tensors that shared memory share it again. What a file holds decides, not its name:
    `save` writes safetensors into "model.pt", too.

    Args:
        f: a path, or a file that is open for reading bytes.
        map_location: the device of the tensors; without it, where the server puts new tensors.
        weights_only, mmap: as torch's, and without effect: a file is data only, and is always mapped.

    Raises: ValueError for files that are damaged or of another format, or that ask for anything but data, naming what;
    OSError.
    """
    if map_location is not None and (callable(map_location) or isinstance(map_location, Mapping)):
        raise TensorTypeError(
            "load: map_location is a device here, such as 'cpu'; the files of save do not name devices to map from"
        )
    where = _functions.get_default_device() if map_location is None else map_location
    if not isinstance(f, str | os.PathLike):
        return _read(memoryview(f.read()), "the file", where)
    path = Path(f)
    with path.open("rb") as file:
        return _read(memoryview(_mapped(file, path)), str(path), where)


def _mapped(file: BinaryIO, path: Path) -> mmap.mmap:
    if not path.stat().st_size:
        raise TensorValueError(f"load: {path} is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


# ---- what is around the tensors --------------------------------------------------------------------------------------


def _outline(obj: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """The object in JSON, with names in the place of tensors; these are gathered by name."""
    if len(path) > _MAX_DEPTH:
        raise TensorValueError(f"save: the object is nested deeper than {_MAX_DEPTH} levels, or contains itself")
    if isinstance(obj, Tensor):
        name = ".".join(path) if path else _ALONE
        if name in tensors or name == "__metadata__":
            raise TensorValueError(f"save: more than one thing would be called {name!r} in the file; rename a key")
        tensors[name] = obj
        return {"tensor": name}
    if isinstance(obj, Mapping):
        for key in obj:
            if type(key) not in (str, int):
                raise TensorTypeError(f"save: {_at(path)} is a dict with the key {key!r}; keys are texts or integers")
        return {"dict": [[key, _outline(value, (*path, str(key)), tensors)] for key, value in obj.items()]}
    if isinstance(obj, list | tuple):
        items = [_outline(value, (*path, str(index)), tensors) for index, value in enumerate(obj)]
        return {"tuple" if isinstance(obj, tuple) else "list": items}
    if obj is None or type(obj) in (bool, int, float, str):
        return {"value": obj}
    raise TensorTypeError(
        f"save: {_at(path)} is a {type(obj).__name__}; a file holds tensors, numbers and texts, and dicts, lists and "
        f"tuples of them. {_remedy(obj)}"
    )


def _remedy(obj: Any) -> str:
    if hasattr(obj, "state_dict"):
        return "Save its state_dict()"
    if isinstance(obj, np.ndarray | np.generic):
        return "Make it a tensor: tclient.from_numpy(array), or a number: array.item()"
    return "Nothing is pickled: save what it is made of"


def _at(path: tuple[str, ...]) -> str:
    return repr(".".join(path)) if path else "the object"


def _rebuilt(said: Any, tensors: dict[str, Tensor]) -> Any:
    """What the outline describes. Raises KeyError, TypeError or ValueError if it is not an outline of these tensors."""
    ((kind, content),) = said.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _rebuilt(value, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        items = [_rebuilt(value, tensors) for value in content]
        return tuple(items) if kind == "tuple" else items
    if kind == "value" and not isinstance(content, list | dict):
        return content
    raise ValueError(kind)


# ---- the elements ----------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, header: bytes, entries: list[Entry], tensors: dict[str, Tensor], name: str) -> None:
    file.write(header)
    total = sum(entry.stop - entry.start for entry in entries)
    with bar(name, total) as shown, closing(_elements([tensors[entry.name] for entry in entries])) as elements:
        for entry, data in zip(entries, elements, strict=True):
            if memoryview(data).nbytes != entry.stop - entry.start:
                raise ServerFailed(f"save: {entry.name!r} came with {memoryview(data).nbytes} bytes")
            file.write(data)
            shown.update(entry.stop - entry.start)


def _elements(tensors: list[Tensor]) -> Generator[Any, None, None]:
    """The bytes of the tensors in turn; the next ones are asked for before one is waited for."""
    asked: deque[tuple[Session, Any, bytes, int]] = deque()
    under_way = 0
    waiting = iter(tensors)
    tensor = next(waiting, None)
    try:
        while tensor is not None or asked:
            while tensor is not None and (not asked or under_way < _AHEAD_BYTES):
                asked.append((tensor._ref.session, *prepare(_READ, tensor._ref), tensor.nbytes))
                under_way += tensor.nbytes
                tensor = next(waiting, None)
            session, call, id_bytes, size = asked[0]
            value = session.wait(call)
            inline = value is not None and value.HasField("data")
            data = value.data.data if value is not None and inline else _fetch(value, session, id_bytes)[2]
            asked.popleft()
            under_way -= size
            yield data
    finally:
        # What was asked for and is not wanted any more must not stay on the server.
        for session, _, id_bytes, _ in asked:
            session.queue.drops.append(FREE + id_bytes)


def _read(content: memoryview, source: str, where: Any) -> Any:
    if bytes(content[:4]) == b"PK\x03\x04" or bytes(content[:1]) == b"\x80":
        return _read_torch(content, source, where)
    try:
        begin = LENGTH_BYTES + length_of_header(content[:LENGTH_BYTES], len(content))
        entries, metadata = parse(content[LENGTH_BYTES:begin], len(content))
    except Damaged as error:
        raise TensorValueError(f"load: {source} is no safetensors file, or is damaged: {error}") from None
    tensors: dict[str, Tensor] = {}
    with bar(Path(source).name, sum(entry.stop - entry.start for entry in entries)) as shown:
        for entry in entries:
            data = np.frombuffer(content[entry.start : entry.stop], np.uint8)
            if entry.dtype == "bool" and data.size and data.max() > 1:
                raise TensorValueError(f"load: {source} is damaged: {entry.name!r} has bools that are neither 0 nor 1")
            tensors[entry.name] = tensor_of(DTYPES[entry.dtype], entry.shape, data, where)
            shown.update(data.size)
    if _STRUCTURE not in metadata:
        return tensors
    try:
        return _rebuilt(json.loads(metadata[_STRUCTURE]), tensors)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise TensorValueError(f"load: {source} is damaged: {_STRUCTURE} does not describe its tensors") from None


def _read_torch(content: memoryview, source: str, where: Any) -> Any:
    # Here, as it brings all of nn with it, which a program that only imports tclient should not wait for.
    from tclient._torch_files import Refused, read_torch_file

    with bar(Path(source).name, len(content)) as shown:

        def make(element: dtype, shape: tuple[int, ...], data: np.ndarray[Any, Any]) -> Tensor:
            made = tensor_of(element, shape, data, where)
            shown.update(data.size)
            return made

        try:
            return read_torch_file(content, make)
        except Refused as error:
            raise TensorValueError(f"load: {source} is a file of torch.save that is not read: {error}") from None


def _dtype_name(name: str, element: dtype) -> str:
    found = str(element).removeprefix("torch.")
    if found not in CODES:
        remedy = "save torch.view_as_real(x)" if element.is_complex else "convert the tensor to a dtype that it has"
        raise TensorTypeError(f"save: {name!r} is {element}, which safetensors files cannot hold; {remedy}")
    return found
