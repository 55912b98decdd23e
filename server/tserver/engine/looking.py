"""What people are shown of tensors: a list of all that a session holds, and a sample of one.

Bounded, however much there is, and nothing that is looked at is changed by it: no version, no graph, no random state.
Statistics are made of the sample elsewhere, so that the engine's thread only copies.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import streams
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.object_store import ObjectStore, Parts, Staged
from tserver.engine.transfers import Arrival, bring
from tserver.engine.values import bytes_of, device_name

MOST_LISTED = 200_000
"""Of a session with more tensors, these are listed."""

_PIECE = 256
_MOST_SAMPLED = 1 << 18
# Rows and columns of a picture, and points of a line.
_PICTURE_SIDE = 128
_LINE = 512
# No multiple of what rows are often wide: a sample is to be of all columns.
_STEP = 3


class Line(NamedTuple):
    """One tensor in a list."""

    # The id, and the path where it is a part of a result.
    name: tuple[int, ...]
    # The name that it was given; empty where it has none.
    given: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    device: str
    requires_grad: bool


class Listing(NamedTuple):
    """The tensors of a session at one moment."""

    # Changes whenever what is held may have.
    version: int
    lines: list[Line]
    is_whole: bool


class Looked(Staged):
    """A tensor, and elements of it in double precision: `sampled` of all of it, and behind these a picture."""

    __slots__ = ("facts", "picture", "sampled")

    def __init__(
        self, facts: dict[str, Any], sampled: int, picture: tuple[int, ...], data: Any, arrival: Arrival | None
    ) -> None:
        count = sampled + (math.prod(picture) if picture else 0)
        super().__init__(DTYPE_CODES[torch.float64], [count], data, arrival=arrival)
        self.facts, self.sampled, self.picture = facts, sampled, picture


def listing(store: ObjectStore) -> Generator[None, None, Listing]:
    """What a session holds, gone through in pieces."""
    version = store.version
    lines: list[Line] = []
    ids = yield from store.ids()
    for position, call_id in enumerate(ids):
        if position % _PIECE == 0:
            yield
        for path, tensor in _tensors(store.objects.get(call_id)):
            if len(lines) == MOST_LISTED:
                return Listing(version, lines, is_whole=False)
            lines.append(_line(store, (call_id, *path), tensor))
    return Listing(version, lines, is_whole=True)


def look(store: ObjectStore, name: tuple[int, ...], at: int) -> Looked:
    """A tensor; of one with more than two dimensions the picture is its matrix number `at`, as they lie in torch.

    Raises: UnknownId, CallFailed, InvalidArgument.
    """
    tensor = store.tensor(pb.Ref(id=name[0], path=name[1:]))
    line = _line(store, name, tensor)
    facts: dict[str, Any] = {
        "name": line.given,
        "dtype": line.dtype,
        "shape": list(line.shape),
        "size_bytes": line.size_bytes,
        "device": line.device,
        "requires_grad": line.requires_grad,
        "elements": tensor.numel(),
        "matrices": math.prod(tensor.shape[:-2]) if tensor.dim() > 2 else 1,
        "layout": str(tensor.layout).removeprefix("torch."),
        "is_complex": tensor.is_complex(),
    }
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return Looked(facts, 0, (), b"", None)
    facts["stride"] = list(tensor.stride())
    with torch.no_grad():
        # Elements of conjugates and the like are resolved in what is copied: the whole may be large.
        found = tensor.detach()
        sample = _numbers(_thinned(found))
        picture = _numbers(_picture(found, at))
        both = torch.cat([sample.reshape(-1), picture.reshape(-1)])
        shape = tuple(picture.shape)
        if streams.runs_apart(both):
            arrival = bring(both)
            return Looked(facts, sample.numel(), shape, arrival.host.view(torch.uint8).numpy(), arrival)
        return Looked(facts, sample.numel(), shape, bytes_of(both), None)


def _tensors(found: Any) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    if isinstance(found, torch.Tensor):
        yield (), found
    elif isinstance(found, Parts):
        for path, item in found.by_path.items():
            if isinstance(item, torch.Tensor):
                yield path, item


def _line(store: ObjectStore, name: tuple[int, ...], tensor: torch.Tensor) -> Line:
    return Line(
        name,
        store.named.get(id(tensor), ""),
        _dtype_name(tensor.dtype),
        tuple(tensor.shape),
        tensor.numel() * tensor.itemsize,
        device_name(tensor.device),
        tensor.requires_grad,
    )


_DTYPE_NAMES: dict[torch.dtype, str] = {}


def _dtype_name(dtype: torch.dtype) -> str:
    found = _DTYPE_NAMES.get(dtype)
    if found is None:
        found = _DTYPE_NAMES[dtype] = str(dtype).removeprefix("torch.")
    return found


def _thinned(tensor: torch.Tensor) -> torch.Tensor:
    """Elements at even distances, where there are very many: a view."""
    while tensor.numel() > _MOST_SAMPLED:
        longest = max(range(tensor.dim()), key=lambda dim: tensor.shape[dim])
        # Not by aten's own slicing with a step beyond the end, which leaves the first element alone.
        tensor = tensor[(slice(None),) * longest + (slice(None, None, min(_STEP, tensor.shape[longest])),)]
    return tensor


def _picture(tensor: torch.Tensor, at: int) -> torch.Tensor:
    """A matrix of a tensor, or its line, coarse enough to be drawn: a view."""
    if tensor.dim() < 2:
        line = tensor.reshape(-1)
        return line[:: -(-line.shape[0] // _LINE)]
    for size in reversed(tensor.shape[:-2]):
        at, index = divmod(at, size)
        tensor = tensor.select(-3, index)
    rows, columns = (-(-size // _PICTURE_SIDE) for size in tensor.shape)
    return tensor[::rows, ::columns]


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as numbers that are compared: of complex ones, their magnitudes."""
    return (tensor.abs() if tensor.is_complex() else tensor).to(torch.float64)
