"""Tensors on their way from one session to another: handed over or lent within this engine, or laid out to be sent.

What is handed over waits in a parcel, which the giving session holds like any other result: it goes with that session
if nobody takes it. Its name is a secret that the caller makes, and is good once. Until it is taken, the giving session
lends the memory of its tensors, where it can: what it is about to write to is copied first. Knows torch; does not know
how bytes travel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from tserver.engine import lending, streams
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.inspect import stage
from tserver.engine.memory import check_bytes
from tserver.engine.object_store import ObjectStore, Staged
from tserver.engine.values import plain
from tserver.errors import InvalidArgument

T = TypeVar("T")

# A shorter name could be guessed.
_NAME_CHARACTERS = 32

GRANTING = ("tc.grant", "tc.granted", "tc.revoke")
NAMES = ("tc.lay_out", "tc.hand_over", "tc.take_over", "tc.drop_uploads", "tc.lend", "tc.borrow", *GRANTING)
"""The operations. A program cannot run them: they look at other sessions."""


class _Part:
    """One tensor of a parcel: the giving session's, as long as nothing writes to it, or a copy."""

    __slots__ = ("mark", "requires_grad", "tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        self.requires_grad = tensor.requires_grad
        self.tensor = tensor.detach()
        # None of a copy. What is written on a device that works by itself does not wait for those who read elsewhere;
        # inference tensors have no version, by which an unexpected write would be noticed; and what is shared, another
        # session writes to.
        self.version: int | None = None
        if streams.runs_apart(tensor) or tensor.is_inference() or lending.is_lent(tensor):
            self.tensor = _copied(tensor)
        else:
            self.version = self.tensor._version
        self.mark = streams.mark(self.tensor)

    def own(self) -> None:
        """Copy what is lent."""
        if self.version is not None:
            self._check()
            self.tensor, self.version = _copied(self.tensor), None

    def on(self, device: torch.device) -> Tensor:
        """A tensor of its own on a device."""
        tensor = streams.adopt(self.tensor, self.mark)
        if self.version is not None:
            self._check()
            tensor = _copied(tensor, device)
        elif tensor.device != device:
            check_bytes("to", tensor.nbytes, device)
            tensor = tensor.to(device)
        return tensor.requires_grad_(self.requires_grad)

    def _check(self) -> None:
        if self.tensor._version != self.version:
            raise InvalidArgument("a tensor was changed while it was handed over; do it again")


class Parcel:
    """Tensors of one session, for another one."""

    __slots__ = ("__weakref__", "_giver", "_parts")
    held_as = "parcel"

    def __init__(self, giver: ObjectStore, parts: list[_Part]) -> None:
        self._giver = weakref.ref(giver)
        self._parts: list[_Part] | None = parts

    def held_tensors(self) -> Sequence[Tensor]:
        """What is in it."""
        return [part.tensor for part in self._parts or ()]

    def copy_out(self) -> None:
        """The giving session is about to write."""
        with torch.inference_mode(False), torch.no_grad():
            for part in self._parts or ():
                part.own()

    def take(self, device: torch.device) -> list[Tensor]:
        """What is in it, on a device; nothing is left. Raises: InvalidArgument if somebody has it already."""
        if self._parts is None:
            raise InvalidArgument("what was handed over has been taken already")
        taken = [part.on(device) for part in self._parts]
        giver = self._giver()
        if giver is not None:
            giver.give_away(part.tensor for part in self._parts if part.version is None)
        self._parts = None
        return taken


class Loan:
    """Tensors that one session shares with others, which read them where they are.

    With those of its principal; or with those of one other, and then on terms.
    """

    __slots__ = ("__weakref__", "_marks", "borrowers", "lender", "tensors", "terms", "to")
    held_as = "loan"

    def __init__(
        self, lender: ObjectStore, tensors: list[Tensor], to: str = "", terms: lending.Terms | None = None
    ) -> None:
        self.to, self.terms = to, terms
        # Those who have it on these terms.
        self.borrowers: weakref.WeakSet[ObjectStore] = weakref.WeakSet()
        self.lender = weakref.ref(lender)
        self.tensors = [lending.lend(lender, tensor) for tensor in tensors]
        self._marks = [streams.mark(tensor) for tensor in tensors]

    def held_tensors(self) -> Sequence[Tensor]:
        """What is in it."""
        return self.tensors

    def borrow(self) -> list[Tensor]:
        """The same tensors for another session: over the same memory, and otherwise its own."""
        pairs = zip(self.tensors, self._marks, strict=True)
        return [streams.adopt(tensor.detach(), mark) for tensor, mark in pairs]


class Parcels:
    """Those of one engine, and loans, by their names."""

    def __init__(self) -> None:
        self._waiting: weakref.WeakValueDictionary[str, Parcel | Loan] = weakref.WeakValueDictionary()

    def operations(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """What callers may do with them; each is given the session's store."""
        yield "tc.lay_out", lay_out
        yield "tc.drop_uploads", drop_uploads
        yield "tc.hand_over", self._hand_over
        yield "tc.take_over", self._take_over
        yield "tc.lend", self._lend
        yield "tc.borrow", self._borrow
        yield "tc.grant", self._grant
        yield "tc.granted", self._granted
        yield "tc.revoke", self._revoke

    def _hand_over(self, store: ObjectStore, name: Any, tensors: list[Tensor]) -> Parcel:
        """Tensors under a new name. Raises: InvalidArgument, torch.OutOfMemoryError, NotImplementedError."""
        self._check_new(name)
        with torch.inference_mode(False), torch.no_grad():
            parcel = Parcel(store, [_Part(tensor) for tensor in _checked(tensors)])
        self._waiting[name] = parcel
        store.lend(parcel)
        return parcel

    def _take_over(self, store: ObjectStore, name: Any, device: Any = None) -> list[Tensor]:
        """What waits under a name, on a device; without one, where new tensors of the session go."""
        parcel = self._found(name, Parcel)
        place = torch.device(store.default_device or "cpu") if device is None else torch.device(device)
        index: Any = place.index  # None where it says "cuda" alone, whatever its type
        if place.type == "cuda" and index is None:
            place = torch.device("cuda", torch.cuda.current_device())
        with torch.inference_mode(False), torch.no_grad():
            return parcel.take(place)

    def _lend(self, store: ObjectStore, name: Any, tensors: list[Tensor]) -> Loan:
        """Tensors to be shared, under a new name. Raises: InvalidArgument, NotImplementedError."""
        return self._lent(store, name, tensors)

    def _lent(self, store: ObjectStore, name: Any, tensors: list[Tensor], *how: Any) -> Loan:
        self._check_new(name)
        for tensor in _checked(tensors):
            if tensor.is_inference():
                raise InvalidArgument(
                    "a tensor of inference mode is not shared, as nobody sees its changes; clone() it"
                )
            if lending.terms_of(store, tensor) or (how and lending.is_borrowed(store, tensor)):
                raise InvalidArgument("the tensor is shared by another session, which alone may share it; clone() it")
        with torch.inference_mode(False), torch.no_grad():
            loan = Loan(store, tensors, *how)
        self._waiting[name] = loan
        return loan

    def _grant(self, store: ObjectStore, name: Any, tensors: list[Tensor], to: Any, writes: Any = False) -> Loan:
        """The same for one other principal alone, until it is revoked. Raises: InvalidArgument, NotImplementedError."""
        if not isinstance(to, str) or not to:
            raise InvalidArgument("a grant names the principal that may take it")
        loan = self._lent(store, name, tensors, to, lending.Terms(writes=writes is True))
        if writes is True:
            # What reads the elements where they are is not told of what others write.
            store.before_call(writes=True)
        return loan

    def _granted(self, store: ObjectStore, name: Any, index: Any) -> Tensor:
        """One tensor of such a loan. Raises: InvalidArgument."""
        loan = self._found(name, Loan)
        lender, terms = loan.lender(), loan.terms
        if terms is None or terms.is_revoked or lender is None or loan.to != store.principal:
            raise _not_there()
        if not isinstance(index, int) or not 0 <= index < len(loan.tensors):
            raise InvalidArgument(f"the grant is of {len(loan.tensors)} tensors")
        if lender is not store:
            # Before it is looked at: it may have been taken back once.
            lending.grant(store, loan.tensors[index], terms)
            loan.borrowers.add(store)
            lender.readers.add(store)
            store.meet_borrowed()
        with torch.inference_mode(False), torch.no_grad():
            borrowed = loan.borrow()[index]
        if lender is not store and streams.runs_apart(borrowed):
            lender.meet_borrower(store)
            if terms.writes:
                store.meet_borrower(lender)
        return borrowed

    def _revoke(self, store: ObjectStore, name: Any) -> None:
        """End such a loan, and take it from those who have it. Raises: InvalidArgument."""
        loan = self._found(name, Loan)
        if loan.terms is None or loan.lender() is not store:
            raise _not_there()
        loan.terms.is_revoked = True
        for borrower in loan.borrowers:
            borrower.take_back()
        loan.tensors = []
        del self._waiting[name]

    def _borrow(self, store: ObjectStore, name: Any) -> list[Tensor]:
        """What is lent under a name. Raises: InvalidArgument."""
        loan = self._found(name, Loan)
        if loan.terms is not None:
            raise _not_there()
        lender = loan.lender()
        if lender is None or lender.principal != store.principal:
            raise InvalidArgument("memory is shared between the sessions of one principal; move it to others")
        with torch.inference_mode(False), torch.no_grad():
            borrowed = loan.borrow()
        if lender is not store:
            store.meet_borrowed()
            lender.readers.add(store)
            if any(streams.runs_apart(tensor) for tensor in borrowed):
                lender.meet_borrower(store)
        return borrowed

    def _check_new(self, name: Any) -> None:
        if not isinstance(name, str) or len(name) < _NAME_CHARACTERS or name in self._waiting:
            raise InvalidArgument(f"a parcel needs a name of its own, of {_NAME_CHARACTERS} characters at least")

    def _found(self, name: Any, kind: type[T]) -> T:
        found = self._waiting.get(name) if isinstance(name, str) else None
        if not isinstance(found, kind):
            raise _not_there()
        return found


def _not_there() -> InvalidArgument:
    return InvalidArgument("nothing waits under this name: it was never handed over, or its session has ended")


def lay_out(store: ObjectStore, tensors: list[Tensor]) -> tuple[list[list[Any]], list[Staged]]:
    """The elements of tensors as they are now, ready to be sent, in the order in which they lie in memory.

    Of each: the code of its dtype, its shape, its strides (None if row by row), whether it requires gradients; and the
    elements. Raises: InvalidArgument, torch.OutOfMemoryError, NotImplementedError.
    """
    told: list[list[Any]] = []
    elements = []
    with torch.inference_mode(False), torch.no_grad():
        for tensor in _checked(tensors):
            dense = plain(tensor)
            if not _has_no_gaps(dense):
                dense = _copied(dense)
            strides = None if dense.is_contiguous() else list(dense.stride())
            told.append([DTYPE_CODES[dense.dtype], list(dense.shape), strides, tensor.requires_grad])
            flat = dense if strides is None else dense.as_strided((dense.numel(),), (1,))
            elements.append(stage(store, flat))
    return told, elements


def drop_uploads(store: ObjectStore, upload_ids: Any) -> None:
    """Let uploads go that nobody will name, if they are there; what is still on its way to them is let go, too."""
    if not isinstance(upload_ids, (list, tuple)) or not all(isinstance(each, int) for each in upload_ids):
        raise InvalidArgument("uploads are named by a list of numbers")
    store.uploads.forget(list(upload_ids))


def _checked(tensors: Any) -> list[Tensor]:
    """Raises: InvalidArgument for what is no list of tensors, or has no elements in memory that could travel."""
    if not isinstance(tensors, list) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise InvalidArgument("what goes to another session is a list of tensors")
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            raise InvalidArgument(
                f"a {tensor.layout} tensor does not go to another session; call to_dense() first, or send its indices "
                "and values"
            )
        if tensor.is_quantized:
            raise InvalidArgument("a quantized tensor does not go to another session; call dequantize() first")
        if tensor.is_meta:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    return tensors


def _copied(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """A copy in memory of its own, laid out as torch's `to` lays it out."""
    check_bytes("to", tensor.numel() * tensor.itemsize, device or tensor.device)
    return plain(tensor).to(device or tensor.device, copy=True)


def _has_no_gaps(tensor: Tensor) -> bool:
    """Whether the elements fill a piece of memory, each once: then torch keeps the strides of a copy."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
