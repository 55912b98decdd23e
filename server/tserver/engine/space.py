"""What one session holds: results of calls by id, uploads, and the names and modes it has defined.

Only the engine's thread touches a space, but for its uploads.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.host_memory import HostMemory
from tserver.engine.modes import Mode, ProcessState
from tserver.engine.operations import Operation, Operations
from tserver.engine.transfers import Arrival
from tserver.engine.uploads import Upload, Uploads
from tserver.engine.values import held_as
from tserver.errors import CallFailed, Exhausted, InvalidArgument, UnknownId

# Ids from here on are made by the server, for callers of the typed RPCs. Below 2^53, so that every language holds them.
FIRST_SERVER_ID = 1 << 48
MAX_DEFINITIONS = 65536
MAX_REPLY_BYTES = 16 << 20
_SERVER_IDS = itertools.count(FIRST_SERVER_ID)


class Failed:
    """Stands where the result of a failed call would be."""

    __slots__ = ("error",)

    def __init__(self, error: pb.Error) -> None:
        self.error = error


class Parts:
    """A result with several parts, by path. A part that was let go is gone from it."""

    __slots__ = ("by_path",)

    def __init__(self, result: Any) -> None:
        self.by_path: dict[tuple[int, ...], Any] = dict(leaves(result, ()))


class Staged:
    """The elements of a tensor as they were once, on the host, waiting to be fetched by a download.

    `data` may be lent: the tensor's own memory, until something is about to write to it. So it is read with the lock
    held, and looked up again each time.
    """

    __slots__ = ("__weakref__", "_lender", "_version", "arrival", "data", "dtype", "lock", "shape")
    held_as = "staged"

    def __init__(
        self,
        dtype: pb.DType,
        shape: list[int],
        data: Any,
        lender: torch.Tensor | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        self.dtype, self.shape, self.data = dtype, shape, data
        # Set where the elements come from a device: they are not in `data` before it is over. Whoever gets this from
        # the engine by way of Lane.run gets it when it is.
        self.arrival = arrival
        self.lock = threading.Lock()
        # Shares memory and version with the tensor that lends.
        self._lender = lender
        self._version = 0 if lender is None else lender._version

    def settle(self) -> None:
        """Move lent elements into memory of their own. From any thread."""
        lender = self._lender
        if lender is not None:
            # Both sides only read during the copy; the lock is for those who still read from the old place.
            own = self.data.copy()
            with self.lock:
                if self._lender is lender and lender._version == self._version:
                    self.data, self._lender = own, None

    def intact(self) -> bool:
        """Whether the elements are those of the beginning: a write that nobody announced is noticed here."""
        with self.lock:
            return self._lender is None or self._lender._version == self._version


def leaves(result: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The parts of a result that are held, with their paths."""
    if isinstance(result, (tuple, list)) and not isinstance(result, torch.Size):
        for index, item in enumerate(result):
            yield from leaves(item, (*path, index))
    elif isinstance(result, dict):
        for index, item in enumerate(result.values()):
            yield from leaves(item, (*path, index))
    elif isinstance(result, torch.Tensor) or held_as(result) is not None:
        yield path, result


def _storage_key(tensor: torch.Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _size_of(item: Any) -> int:
    if isinstance(item, torch.Tensor):
        return item.untyped_storage().nbytes()
    return len(item.data) if isinstance(item, Staged) else 0


class Space:
    """The name space of one session."""

    def __init__(
        self,
        operations: Operations,
        *,
        default_device: torch.device,
        memory: HostMemory,
        max_nesting: int,
        max_inline_bytes: int,
        max_bytes: int,
    ) -> None:
        self.objects: dict[int, Any] = {}
        self.operations: list[Operation] = []
        self.modes: list[Mode | InvalidArgument] = []
        self.uploads = Uploads(memory)
        self.state = ProcessState(default_device)
        self.max_nesting = max_nesting
        self.max_inline_bytes = max_inline_bytes
        self.max_bytes = max_bytes
        # Where new tensors go unless told otherwise; None where that is torch's own default.
        self.default_device = default_device if default_device.type != "cpu" else None
        self._room = max_bytes
        # Staged elements that are still in the memory of a tensor.
        self._lent: list[weakref.ref[Staged]] = []
        # Whether each call must be looked at before it is run: for the quota, or for what is lent.
        self.watched = bool(max_bytes)
        self.peak_results = 0
        # What the reply to the batch under way may still take, in bytes.
        self.reply_room = MAX_REPLY_BYTES
        self._all = operations

    def define(self, operations: Iterable[str], contexts: Iterable[pb.Context]) -> None:
        """Append operations and modes to the session's lists. A bad one, or one too many, fails its calls."""
        for name in operations:
            if len(self.operations) < MAX_DEFINITIONS:
                self.operations.append(self._all.get(name))
        for context in contexts:
            if len(self.modes) >= MAX_DEFINITIONS:
                break
            try:
                self.modes.append(Mode(context))
            except InvalidArgument as error:
                self.modes.append(error)

    def mode(self, context: int) -> Mode | None:
        """The modes of a context; None for the default. Raises: InvalidArgument."""
        if not context:
            return None
        if context > len(self.modes):
            raise InvalidArgument(f"context {context} is not defined; the session has defined {len(self.modes)}")
        found = self.modes[context - 1]
        if isinstance(found, InvalidArgument):
            raise found
        return found

    def operation(self, name: str) -> Operation:
        """The operation of that name."""
        return self._all.get(name)

    def whole(self, call_id: int) -> Any:
        """The whole result of a call. Raises UnknownId, or CallFailed if the call failed."""
        try:
            found = self.objects[call_id]
        except KeyError:
            raise UnknownId(f"id {call_id} is not held by this session: no call made it, or it was let go") from None
        if found.__class__ is Failed:
            raise CallFailed(found.error)
        if found.__class__ is Parts:
            raise InvalidArgument(f"id {call_id} has {len(found.by_path)} parts; name one of them by its path")
        return found

    def part(self, ref: pb.Ref) -> Any:
        """A result, or a part of one. Raises UnknownId, or CallFailed if the call failed."""
        if not ref.path:
            return self.whole(ref.id)
        found = self.objects.get(ref.id)
        if found.__class__ is Failed:
            raise CallFailed(found.error)
        path = tuple(ref.path)
        if found.__class__ is not Parts or path not in found.by_path:
            raise UnknownId(
                f"part {list(path)} of id {ref.id} is not held by this session: no call made it, or it was let go"
            )
        return found.by_path[path]

    def tensor(self, ref: pb.Ref) -> torch.Tensor:
        """A tensor. Raises what `part` raises, and InvalidArgument if it is something else."""
        found = self.part(ref)
        if not isinstance(found, torch.Tensor):
            raise InvalidArgument(f"id {ref.id} is not a tensor but a {type(found).__name__}")
        return found

    def free(self, ref: pb.Ref) -> bool:
        """Let a result or a part go; False if it is not held."""
        if not ref.path:
            return self.objects.pop(ref.id, None) is not None
        found = self.objects.get(ref.id)
        if found.__class__ is not Parts:
            return False
        gone = found.by_path.pop(tuple(ref.path), None) is not None
        if not found.by_path:
            del self.objects[ref.id]
        return gone

    def begin_upload(self, what: str, upload_id: int, dtype: torch.dtype, shape: list[int], size: int) -> Upload:
        """Memory for an upload, counted against the quota from now on. Raises: Exhausted."""
        if self.max_bytes:
            self._check_quota(what, size)
        return self.uploads.begin(what, upload_id, dtype, shape, size)

    def take_upload(self, upload_id: int) -> Upload:
        """A complete upload, which is used up. Raises: UnknownId."""
        return self.uploads.take(upload_id)

    def new_server_id(self) -> int:
        """An id for a caller who makes none; no two sessions share one, so that a mix-up is noticed."""
        return next(_SERVER_IDS)

    def tensors(self) -> Iterator[tuple[pb.Ref, torch.Tensor]]:
        """All tensors held, in the order of their ids."""
        for call_id in sorted(self.objects):
            found = self.objects[call_id]
            if isinstance(found, torch.Tensor):
                yield pb.Ref(id=call_id), found
            elif isinstance(found, Parts):
                for path, item in found.by_path.items():
                    if isinstance(item, torch.Tensor):
                        yield pb.Ref(id=call_id, path=path), item

    def charge(self, what: str, result: Any) -> None:
        """Count a new result against the quota. Raises: Exhausted.

        What is left is an estimate that errs on the safe side: views and frees are noticed when all is counted again,
        which happens only when the estimate runs out.
        """
        made = [item for _, item in leaves(result, ())]
        size = sum(map(_size_of, made))
        self._room -= size
        if self._room >= 0:
            return
        known = self.storages()
        new = [item for item in made if not isinstance(item, torch.Tensor) or _storage_key(item) not in known]
        self._check_quota(what, sum(map(_size_of, new)))

    def lend(self, staged: Staged) -> None:
        """Keep staged elements in the memory of their tensor until something is about to write."""
        self._lent.append(weakref.ref(staged))
        self.watched = True

    def settle(self, *, writes: bool) -> None:
        """Called before a call of a watched space: if it may write, what is lent gets memory of its own first."""
        if self._lent:
            held = [staged for staged in (ref() for ref in self._lent) if staged is not None]
            if writes:
                for staged in held:
                    staged.settle()
                held = []
            self._lent = [weakref.ref(staged) for staged in held]
            self.watched = bool(self.max_bytes or held)

    def _check_quota(self, what: str, size: int) -> None:
        held = self.held_bytes() + size
        self._room = self.max_bytes - held
        if self._room < 0:
            raise Exhausted(
                f"{what}: the session would hold {held} bytes, but may hold {self.max_bytes}; free tensors",
                reason="QUOTA_EXCEEDED",
            )

    def held_bytes(self) -> int:
        """The memory of everything held, each storage counted once."""
        staged = sum(len(held.data) for held in self.objects.values() if isinstance(held, Staged))
        return sum(self.storages().values()) + staged + self.uploads.held_bytes()

    def storages(self) -> dict[tuple[torch.device, int], int]:
        """The size of each storage in use, by device and address.

        Those of the tensors held, of their gradients, and of the tensors behind networks and optimisers.
        """
        found: dict[tuple[torch.device, int], int] = {}
        behind = [tensor for held in self.objects.values() for tensor in getattr(held, "held_tensors", tuple)()]
        for tensor in itertools.chain((tensor for _, tensor in self.tensors()), behind):
            gradient = tensor.grad if tensor.is_leaf else None
            for one in (tensor, gradient):
                if one is not None and one.layout is torch.strided:
                    found[_storage_key(one)] = _size_of(one)
        return found

    def clear(self) -> None:
        """Let everything go."""
        self.objects.clear()
        self.uploads.clear()
        self.operations.clear()
        self.modes.clear()
