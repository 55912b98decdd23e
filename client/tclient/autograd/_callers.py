"""The caller's own code in graphs of a session: functions with a backward of their own, and hooks.

The server has something that stands for it in the graph, under a key. Where a backward pass meets that, the pass is
suspended, and its answer says where: the code runs here, with ordinary calls, and what it gives resumes the pass. Knows
calls; does not know what a function or a hook is.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from tclient._codec.operations import Operation
from tclient._exceptions import TensorError
from tclient._issue import call_builtin, dispatch, operation_named
from tclient._session.modes import set_grad_enabled
from tclient._session.session import Session

Told = dict[str, Any]
# What runs where a pass is suspended: it is given what the server tells, and returns what resumes the pass.
Code = Callable[[Told], Any]

# After so many functions without a backward the server is asked which of them are gone.
_MANY = 256


class Callers:
    """The code of one session, by its keys."""

    def __init__(self) -> None:
        self.code: dict[int, Code] = {}
        self._next_key = itertools.count(1).__next__
        self._since_told = 0

    def add(self, code: Code) -> int:
        """The key of a piece of code; it is kept until the server says that the graph is gone."""
        key = self._next_key()
        self.code[key] = code
        return key

    def forget(self, keys: list[int]) -> None:
        """The server has nothing under these keys any more."""
        self._since_told = 0
        for key in keys:
            self.code.pop(key, None)

    def count(self, session: Session) -> None:
        """Another one is there, and nobody may ever run a backward."""
        self._since_told += 1
        if self._since_told >= _MANY:
            with session.use():
                self.forget(call_builtin("tc.gone"))

    def run(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """A backward, in pieces if it meets code of ours.

        Raises: what torch raises; what the code raises, itself.
        """
        if not self.code:
            return dispatch(operation, args, kwargs)
        told = dispatch(_BEGIN, (operation.name, list(args), kwargs or {}), None)
        while "pass" in told:
            self.forget(told["gone"])
            try:
                with set_grad_enabled(told["grad_enabled"]):
                    answer = self.code[told["key"]](told)
            except BaseException:
                with contextlib.suppress(TensorError):
                    dispatch(_ABORT, (told["pass"],), None)
                raise
            told = dispatch(_RESUME, (told["pass"], answer), None)
        self.forget(told["gone"])
        return told["result"]


_BEGIN = operation_named("tc.pass_begin")
_RESUME = operation_named("tc.pass_resume")
_ABORT = operation_named("tc.pass_abort")


def callers_of(session: Session) -> Callers:
    """The code of a session."""
    if session.callers is None:
        session.callers = Callers()
    found: Callers = session.callers
    return found


class RemovableHandle:
    """Takes a hook away again; also when a with-block ends."""

    def __init__(self, session: Session, key: int) -> None:
        self._session = session
        self.id = key

    def remove(self) -> None:
        """Takes the hook away; a second time does nothing."""
        if callers_of(self._session).code.pop(self.id, None) is not None and self._session.dead is None:
            with self._session.use():
                call_builtin("tc.unhook", self.id)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register(target: Any, kind: str, hook: Callable[..., Any], code: Code) -> RemovableHandle:
    """Have code run where a gradient or a node of the graph is met; torch's texts quote the name of the hook."""
    session: Session = target._ref.session
    key = callers_of(session).add(code)
    call_builtin("tc.hook", target, kind, key, str(getattr(hook, "__name__", type(hook).__name__))[:200])
    return RemovableHandle(session, key)
