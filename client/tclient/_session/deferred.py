"""Deferred errors: what went wrong on the server and has to reach the caller later, and torch's warnings.

An error of a pure call waits for whoever reads its result; a failed effect is raised by the next thread that waits,
once; what nobody was told of is warned about at the end. Knows the contract's errors; does not know how they come.
"""

from __future__ import annotations

import sys
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, Protocol

from tclient._codec.operations import TABLE
from tclient._exceptions import BY_TYPE, TensorError, attribute, fresh, make_error
from tclient._session.calls import Call
from tensorcompute.v1 import tensor_pb2 as pb

# Root errors that are remembered, so that a late dependant can name the line.
_LIMIT = 10_000
_TOLD_AT_THE_END = 10

Root = tuple[int, int]  # batch, index of the call that failed first
_Found = tuple[pb.Error, Call]


class _Opened(Protocol):
    @property
    def server_version(self) -> str: ...
    @property
    def torch_version(self) -> str: ...


def _has_failed(call: Call) -> bool:
    result = call.result
    return isinstance(result, pb.Result) and result.WhichOneof("outcome") == "error"


class DeferredErrors:
    """The errors and warnings of one session."""

    def __init__(self, address: str, opened: _Opened) -> None:
        self._address = address
        self._opened = opened
        # Failed effects that nobody has been told of.
        self._failed_effects: OrderedDict[Root, _Found] = OrderedDict()
        # The oldest give way to those that come while nobody waits.
        self._warnings: deque[tuple[pb.Warning, Call]] = deque(maxlen=_LIMIT)
        # Errors of pure calls that nobody has read.
        self._unread: OrderedDict[Root, _Found] = OrderedDict()
        self._sites: OrderedDict[Root, Call] = OrderedDict()
        self._registry: dict[Any, Any] = {}
        # True when the next thread that waits has something to be told.
        self.noteworthy = False

    def tell(self) -> None:
        """Relays the warnings that came, and raises the first failed effect that nobody has been told of."""
        self.noteworthy = False
        self._relay_warnings()
        if self._failed_effects:
            self.noteworthy = True
            self._raise_failed_effect()

    def note(self, seq: int, result: pb.Result, call: Call) -> None:
        """Takes in an error of a batch (the reader's thread)."""
        error = result.error
        root = (error.batch_seq, error.call_index)
        if root == (seq, result.call_index):
            self._sites[root] = call
            if not result.lost_effect:
                self._unread[root] = (error, call)
            for memory in (self._sites, self._unread):
                if len(memory) > _LIMIT:
                    memory.popitem(last=False)
        if result.lost_effect and (len(self._failed_effects) < _LIMIT or root in self._failed_effects):
            self._failed_effects[root] = (error, self._sites.get(root, call))
        self.noteworthy = True

    def take_over(self, errors: Iterable[pb.Error]) -> None:
        """Effects that failed before this process had the session, and that nobody was told of."""
        for error in errors:
            # It was issued elsewhere: there is no line to tell.
            call = Call()
            call.operation = TABLE.get(error.operation, TABLE["get_default_dtype"])
            call.code = call.failure = call.result = None
            self._failed_effects[error.batch_seq, error.call_index] = (error, call)
            self.noteworthy = True

    def note_warning(self, warning: pb.Warning, call: Call) -> None:
        """Takes in a warning of a call (the reader's thread)."""
        self._warnings.append((warning, call))
        self.noteworthy = True

    def has_warning(self, call: Call) -> bool:
        """Whether a call has given a warning that nobody was told of."""
        return any(of is call for _, of in list(self._warnings))

    def _raise_failed_effect(self) -> None:
        """Raises the oldest failed effect that nobody has been told of."""
        try:
            root, (error, call) = self._failed_effects.popitem(last=False)
        except KeyError:
            return
        self._unread.pop(root, None)
        raise self._make(error, call)

    def exception(self, error: pb.Error, call: Call) -> TensorError:
        """The exception for an error that is read now."""
        root = (error.batch_seq, error.call_index)
        self._unread.pop(root, None)
        self._failed_effects.pop(root, None)
        return self._make(error, self._sites.get(root, call))

    def _make(self, error: pb.Error, call: Call) -> TensorError:
        operation = error.operation or call.operation.name
        message = error.message
        if call.failure is not None:
            # Something else was sent in its place, for what needs its result.
            refusal = fresh(call.failure)
            return attribute(refusal, operation=operation, reason=refusal.reason, site=call.site())
        if error.reason == "UNKNOWN_OPERATION":
            message = (
                f"the server at {self._address} (version {self._opened.server_version}, "
                f"torch {self._opened.torch_version}) does not have the operation `{operation}` that this client has; "
                "upgrade the older side"
            )
        return make_error(
            *(error.type, message),
            operation=operation,
            reason=error.reason,
            site=call.site(),
            details=error.details,
        )

    def _relay_warnings(self) -> None:
        """Gives torch's warnings as Python warnings of the caller's line, in the thread that waits."""
        while True:
            try:
                warning, call = self._warnings.popleft()
            except IndexError:
                return
            category = _CATEGORIES.get(warning.category, UserWarning)
            filename, line = call.site() or ("<tclient>", 1)
            try:
                warnings.warn_explicit(warning.message, category, filename, line, registry=self._registry)
            except Warning as raised:
                # Of a call that failed, what it failed of is raised; the warning is printed, as by torch.
                if not _has_failed(call):
                    raise
                print(f"{category.__name__}: {raised}", file=sys.stderr)

    def forget(self) -> None:
        """After a fork: they are the parent's to tell."""
        self._failed_effects.clear()
        self._unread.clear()
        self._warnings.clear()

    def warn_of_unread(self) -> None:
        """Warns of errors that nobody has seen."""
        lost = [*self._failed_effects.values(), *self._unread.values()]
        self._failed_effects.clear()
        self._unread.clear()
        for error, call in lost[:_TOLD_AT_THE_END]:
            site = call.site()
            where = f" (issued at {site[0]}:{site[1]})" if site else ""
            kind = BY_TYPE.get(error.type, TensorError).__name__
            text = f"`{error.operation}` failed{where} and nobody read its error: {kind}: {error.message}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        if len(lost) > _TOLD_AT_THE_END:
            text = f"{len(lost) - _TOLD_AT_THE_END} more operations failed and nobody read their errors"
            warnings.warn(text, RuntimeWarning, stacklevel=4)


_CATEGORIES: dict[str, type[Warning]] = {
    kind.__name__: kind
    for kind in (UserWarning, DeprecationWarning, FutureWarning, RuntimeWarning, PendingDeprecationWarning)
}
