"""What one session holds: results of calls by id, uploads, and the names and modes it has defined.

The engine's thread alone changes it, but for the uploads, which any thread may begin (where there is no quota), fill
and let go. Any thread may look up an operation by its name. Of elements that are staged for a download, Staged says who
may do what.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.callers_code import CallersCode
from tserver.engine.host_memory import HostMemory
from tserver.engine.ledger import Ledger, Totals
from tserver.engine.lending import REVOKED, ReadOnly, is_counted_elsewhere, is_revoked
from tserver.engine.modes import Mode, ProcessState
from tserver.engine.operations import Operation, Operations
from tserver.engine.passes import PassThreads
from tserver.engine.room import Room
from tserver.engine.transfers import Arrival
from tserver.engine.uploads import Upload, Uploads
from tserver.engine.values import held_as
from tserver.errors import CallFailed, Exhausted, InvalidArgument, UnknownId
from tserver.limits.account import Account

# Ids from here on are made by the server, for callers of the typed RPCs. Below 2^53, so that every language holds them.
FIRST_SERVER_ID = 1 << 48
MAX_DEFINITIONS = 65536
MAX_REPLY_BYTES = 16 << 20
_BETWEEN_HOLDERS = 1 << 20
# Results that are gone through at one go: a fraction of a millisecond.
_PIECE = 256
# Results that may be gone through, for each call, to find memory that no call has returned.
_LOOKS_PER_CALL = 8
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


class Lent(Protocol):
    """Elements that are read in the memory of a tensor of the session."""

    def copy_out(self) -> None:
        """Something is about to write there."""


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
        # the engine by way of SessionQueue.run gets it when it is.
        self.arrival = arrival
        self.lock = threading.Lock()
        # Shares memory and version with the tensor that lends.
        self._lender = lender
        self._version = 0 if lender is None else lender._version

    def copy_out(self) -> None:
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


def _behind(found: Any) -> Iterator[torch.Tensor]:
    """The tensors whose memory something that is held keeps: itself, gradients, what networks and optimisers keep."""
    if isinstance(found, torch.Tensor):
        yield found
        if found.is_leaf and found.grad is not None:
            yield found.grad
    elif isinstance(found, Parts):
        for item in found.by_path.values():
            yield from _behind(item)
    else:
        for tensor in getattr(found, "held_tensors", tuple)():
            yield from _behind(tensor)


class ObjectStore:
    """What one session holds."""

    def __init__(
        self,
        operations: Operations,
        *,
        default_device: torch.device,
        devices_beside: Sequence[torch.device] = (),
        memory: HostMemory,
        max_nesting: int,
        max_inline_bytes: int,
        max_bytes: int,
        room: Room,
        pass_threads: PassThreads,
    ) -> None:
        self.objects: dict[int, Any] = {}
        self.operations: list[Operation] = []
        self.modes: list[Mode | InvalidArgument] = []
        # What the modes were made of.
        self.contexts: list[pb.Context] = []
        self.uploads = Uploads(memory)
        self.state = ProcessState(default_device, devices_beside)
        self.callers_code = CallersCode()
        self.pass_threads = pass_threads
        self.max_nesting = max_nesting
        self.max_inline_bytes = max_inline_bytes
        self.max_bytes = max_bytes
        self.room = room
        # Where new tensors go unless told otherwise; None where that is torch's own default. Of several GPUs it is the
        # one that is current.
        self.default_device = default_device if default_device.type != "cpu" else None
        if devices_beside:
            self.default_device = torch.device(default_device.type)
        # For the quota: what results take, and how many calls there were since all was last looked at.
        self._ledger = Ledger(devices_beside)
        self._unseen_calls = 0
        # Changes whenever what is held may have: what was counted and listed is true for one version.
        self.version = 0
        self._counted: tuple[int, Totals] | None = None
        self._listed: tuple[int, list[int]] = (0, [])
        # Staged elements that are still in the memory of a tensor.
        self._lent: weakref.WeakSet[Lent] = weakref.WeakSet()
        # Whether there has been a view of many more elements than there are, which no kernel may go through (cost.py).
        self.has_giants = False
        # Whether each call must be looked at before it is run: for the quota, for what is lent, for devices, for
        # giants or for sparse tensors.
        self.watched = bool(max_bytes or room.is_full)
        # Whether what results take is counted.
        self.counts = bool(max_bytes)
        # Each tensor counts as one.
        self._tensors = Ledger()
        # Those who read memory of this one; and whether it has ended, so that what is left of it is theirs.
        self.readers: weakref.WeakSet[ObjectStore] = weakref.WeakSet()
        self.is_over = False
        # A Profile, where the session wants to know what its time goes into.
        self.profile: Any = None
        # Whether there may be a sparse tensor, which few kernels may see (sparse.py).
        self.has_sparse = False
        # Refuses to write to what other sessions share with this one; None where nothing is (lending.py).
        self.read_only: ReadOnly | None = None
        # Those who read memory of this one on a device that works by itself.
        self.borrowers: weakref.WeakSet[ObjectStore] = weakref.WeakSet()
        # The ids of tensors that have names, and the names by the identities of the tensors (names.py).
        self.names: dict[str, int] = {}
        self.named: dict[int, str] = {}
        # Whose session it is: memory is shared between those of one principal.
        self.principal = ""
        # What its principal may use; None where that is nobody's.
        self.account: Account | None = None
        # What stands before the names of the models of its own that the session may run; see models/owners.py.
        self.namespace = ""
        # Whether a call has named torch's meta device, whose tensors have no elements (operands.py).
        self.has_meta = False
        self.peak_results = 0
        # Where the next storage is said to be whose address is asked for (storages.py).
        self.next_address = 1 << 32
        # Whether there may be a graph whose backward is to be on new memory that is zeros (new_memory.py).
        self.graphs_on_zeros = False
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
            self.contexts.append(context)
            try:
                self.modes.append(Mode(context))
            except InvalidArgument as error:
                self.modes.append(error)

    def begin_anew(self) -> int:
        """For somebody who knows nothing of who was here before: lists that they know by number begin anew, and uploads
        that nobody will name are let go of. An id from which on none is in use.
        """
        # Others than before: programs count in those.
        self.operations, self.modes, self.contexts = [], [], []
        self.uploads.clear()
        last = max((each for each in self.objects if each < FIRST_SERVER_ID), default=0)
        # With room for what the one before had named, and not made.
        return last + _BETWEEN_HOLDERS

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
        self.version += 1
        if not ref.path:
            return self.objects.pop(ref.id, None) is not None
        found = self.objects.get(ref.id)
        if found.__class__ is not Parts:
            return False
        gone = found.by_path.pop(tuple(ref.path), None) is not None
        if not found.by_path:
            del self.objects[ref.id]
        return gone

    def meet_meta(self) -> None:
        """An argument names the meta device: from now on calls are looked at for where their operands are."""
        self.has_meta = self.watched = True

    def meet_giant(self) -> None:
        """A view of many more elements than there are has come into being: from now on calls are looked at."""
        self.has_giants = self.watched = True

    def meet_sparse(self) -> None:
        """A sparse tensor is to come into being: from now on calls are looked at for what they bring to a kernel."""
        self.has_sparse = self.watched = True

    def meet_borrowed(self) -> None:
        """Another session shares memory with this one: from now on calls are looked at for what they write to."""
        self.read_only = self.read_only or ReadOnly(self)
        self.watched = True

    def take_back(self) -> None:
        """Another principal has taken back what it had shared: no memory of that is held from now on."""
        self.meet_borrowed()
        assert self.read_only is not None
        self.read_only.has_revoked = True
        self.version += 1
        error = pb.Error(type="RuntimeError", message=REVOKED, reason="REVOKED")
        for call_id, found in list(self.objects.items()):
            if isinstance(found, torch.Tensor) and is_revoked(self, found):
                self.objects[call_id] = Failed(error)
            elif isinstance(found, Parts):
                for path, item in list(found.by_path.items()):
                    if isinstance(item, torch.Tensor) and is_revoked(self, item):
                        del found.by_path[path]

    def meet_borrower(self, borrower: ObjectStore) -> None:
        """Another one reads memory of this one, at the same time: from now on what is written waits for that."""
        self.borrowers.add(borrower)
        self.watched = True

    def begin_upload(self, what: str, upload_id: int, dtype: torch.dtype, shape: list[int], size: int) -> Upload:
        """Memory for an upload, counted against the quota from now on. Raises: Exhausted."""
        self.uploads.give_way(upload_id)
        if self.counts:
            self._check_quota(what, size)
            self._tell()
            if self.account is not None:
                self.account.check_memory(more_bytes=size)
        upload = self.uploads.begin(what, upload_id, dtype, shape, size)
        if self.counts:
            self._tell()
        return upload

    def take_upload(self, upload_id: int) -> Upload:
        """A complete upload, which is used up. Raises: UnknownId."""
        return self.uploads.take(upload_id)

    def new_server_id(self) -> int:
        """An id for a caller who makes none; no two sessions share one, so that a mix-up is noticed."""
        return next(_SERVER_IDS)

    def skip_server_ids(self, highest: int) -> None:
        """An earlier process has made ids up to that one."""
        global _SERVER_IDS
        if highest >= (following := next(_SERVER_IDS)):
            _SERVER_IDS = itertools.count(highest + 1)
        else:
            _SERVER_IDS = itertools.count(following)

    def count_restored(self, found: Any) -> None:
        """Count what an earlier process has made."""
        self.version += 1
        self.peak_results = max(self.peak_results, len(self.objects))
        self._count_now(found)

    def keep(self, call_id: int, result: Any) -> None:
        """Hold something that no call of a batch has made."""
        self.objects[call_id] = result
        self.version += 1
        self._count_now(result)

    def tensors(self, after: tuple[int, ...]) -> Iterator[tuple[pb.Ref, torch.Tensor]]:
        """The tensors held whose names (id, and path) come after a name, in the order of their names."""
        version, ids = self._listed
        if version != self.version:
            ids = sorted(self.objects)
            self._listed = self.version, ids
        for call_id in itertools.islice(ids, bisect.bisect_left(ids, after[0]), None):
            found = self.objects.get(call_id)
            if isinstance(found, torch.Tensor):
                if (call_id,) > after:
                    yield pb.Ref(id=call_id), found
            elif isinstance(found, Parts):
                for path, item in found.by_path.items():
                    if isinstance(item, torch.Tensor) and (call_id, *path) > after:
                        yield pb.Ref(id=call_id, path=path), item

    def charge(self, what: str, result: Any, *, elsewhere: bool) -> None:
        """Count the result of a call against the quota. Raises: Exhausted if it takes memory that is too much.

        Where the call may have taken memory `elsewhere` (gradients, the state of an optimiser), that is found by going
        through everything: at once where there is little, and else as often as the calls are worth.
        """
        ledger = self._ledger
        before, held = ledger.totals().copy(), self.held()
        self._count(result)
        self._unseen_calls += 1
        if elsewhere and self._unseen_calls * _LOOKS_PER_CALL >= len(self.objects):
            self._unseen_calls = 0
            self._count_anew()
        for device, size in ledger.totals().items():
            if size > before[device]:
                self._check_quota(what, 0, device)
        if self.account is not None and self.account.counts_memory:
            now = self._tell()
            grown = max(0, now[0] - held[0]), max(0, now[1] - held[1])
            if grown != (0, 0):
                self.account.check_memory(grown)

    def open_account(self, account: Account) -> None:
        """What will be held counts for a principal. From any thread, before there is anything."""
        self.account = account
        self.counts = self.counts or account.counts_memory
        self.watched = self.watched or self.counts

    def limits_changed(self) -> None:
        """See whether what results take is to be counted."""
        account = self.account
        counts = bool(self.max_bytes or (account is not None and account.counts_memory and not self.is_over))
        if counts and not self.counts:
            self.watched = True
            self._count_anew()
        elif account is not None and not counts:
            account.leave(self)
        self.counts = counts
        if counts:
            self._tell()

    def held(self) -> tuple[int, int]:
        """The bytes and the tensors that are held, where they are counted."""
        return sum(self._ledger.totals().values()) + self.uploads.held_bytes, self._tensors.totals()[None]

    def recount(self) -> None:
        """More of what is there may count here than before."""
        if self.counts:
            self._count_anew()
            self._tell()

    def give_away(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors with memory of their own have become another session's."""
        for tensor in tensors if self.counts else ():
            self._ledger.forget(tensor.untyped_storage())
            self._tensors.forget(tensor)
        self._tell()

    def _tell(self) -> tuple[int, int]:
        """Note with the principal what is held."""
        held = self.held()
        if self.counts and self.account is not None:
            self.account.note(self, held)
        return held

    def _count_now(self, found: Any) -> None:
        if self.counts:
            self._count(found)
            self._tell()

    def _count_anew(self) -> None:
        """Count all that is there."""
        for found in self.objects.values():
            self._count(found)

    def _count(self, found: Any) -> None:
        if isinstance(found, Staged):
            self._ledger.add(found, len(found.data))
        elif isinstance(found, (tuple, list, dict)):
            for _, item in leaves(found, ()):
                self._count(item)
        else:
            for tensor in _behind(found):
                self._tensors.add(tensor, 1)
                if not is_counted_elsewhere(self, tensor):
                    self._ledger.add_tensor(tensor)

    def lend(self, lent: Lent) -> None:
        """Have elements kept in the memory of their tensor until something is about to write."""
        self._lent.add(lent)
        self.watched = True

    def before_call(self, *, writes: bool) -> None:
        """Called before a call of a watched store: if it may write, what is lent gets memory of its own first."""
        if writes:
            for lent in list(self._lent):
                lent.copy_out()
            self._lent.clear()
        if not self._lent:
            self.watched = bool(
                self.counts
                or self.has_meta
                or self.has_giants
                or self.has_sparse
                or self.read_only is not None
                or self.borrowers
                or self.room.is_full
            )

    def _check_quota(self, what: str, size: int, device: torch.device | None = None) -> None:
        """Each GPU beside the default one has a quota of its own; all other memory has one together."""
        if not self.max_bytes:
            return
        held = self._ledger.totals()[device] + size
        if device is None:
            held += self.uploads.held_bytes
        if held > self.max_bytes:
            where = "" if device is None else f" on {device}"
            raise Exhausted(
                f"{what}: the session would hold {held} bytes{where}, but may hold {self.max_bytes}; free tensors",
                reason="QUOTA_EXCEEDED",
            )

    @property
    def counted(self) -> Totals:
        """What was held when that was counted last; nothing before that. From any thread."""
        return Totals() if self._counted is None else self._counted[1]

    def count(self) -> Generator[None, None, Totals]:
        """What is held, counted in pieces, and remembered until something changes."""
        if self._counted is not None and self._counted[0] == self.version:
            return self._counted[1]
        version, totals = self.version, Totals()
        ids = yield from self.ids()
        for position, call_id in enumerate(ids):
            if position % _PIECE == 0:
                yield
            found = self.objects.get(call_id)
            if isinstance(found, Staged):
                totals.staged_bytes += len(found.data)
            elif isinstance(found, torch.Tensor):
                totals.tensors += 1
            elif isinstance(found, Parts):
                totals.tensors += sum(isinstance(item, torch.Tensor) for item in found.by_path.values())
            for tensor in _behind(found):
                if not is_counted_elsewhere(self, tensor):
                    totals.add(tensor)
        yield from totals.close()
        self._counted = version, totals
        return totals

    def ids(self) -> Generator[None, None, list[int]]:
        """All ids, gathered in pieces; at one go where they change meanwhile."""
        ids: list[int] = []
        rest = iter(self.objects)
        try:
            while piece := list(itertools.islice(rest, _PIECE * _PIECE)):
                ids += piece
                yield
        except RuntimeError:
            return list(self.objects)
        return ids

    def clear(self) -> Generator[None, None, None]:
        """Let everything go, in pieces."""
        self.version += 1
        self.is_over = True
        while self.objects:
            for _ in range(min(_PIECE, len(self.objects))):
                self.objects.popitem()
            yield
        self.names.clear()
        self.named.clear()
        self.callers_code.clear()
        self.uploads.clear()
        self.operations.clear()
        self.modes.clear()
        self.contexts.clear()
        if self.account is not None:
            self.account.leave(self)
        self.counts = False
        for reader in list(self.readers):
            # What is still there of this one's memory counts for them.
            reader.recount()
            yield
