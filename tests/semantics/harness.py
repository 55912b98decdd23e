"""Programs that run with torch and with tclient, and what is compared of them.

Adds to the transcript of tests/document: the strides of tensors, many small actions each of which may fail, and what a
program shows of the aliasing of its tensors. Knows nothing about the server.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.document.transcript import Notes, Rows, Transcript, oracle

Program = Callable[[Any, "Watch"], None]


class Watch(Transcript):
    """A transcript that also notes how tensors lie in memory."""

    def tries(self, *actions: Callable[..., Any]) -> None:
        """Note what each action gives, or the exception that it raises, at once or when its result is read."""
        for action in actions:
            try:
                described = self._describe(action())
            except Exception as error:  # the class is what is compared
                self._note_error(error)
                self._drain()
            else:
                try:
                    self._settle(None)
                except Exception as error:
                    self._note_error(error)
                else:
                    self.notes.append(described)

    def refuses(self, *actions: Callable[..., Any]) -> None:
        """Note only the class of each action's exception: what a client refuses by itself, it words by itself."""
        before = len(self.notes)
        self.tries(*actions)
        self.notes[before:] = [note[:2] if note[0] == "fails" else note for note in self.notes[before:]]

    def _note_error(self, error: Exception) -> None:
        builtin = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
        linear = isinstance(error, self._module.linalg.LinAlgError)
        self.notes.append(("fails", "LinAlgError" if linear else builtin, str(error)))

    def _drain(self) -> None:
        """An effect that failed behind another failure is not the next action's."""
        try:
            self._settle(None)
        except Exception:
            return

    def _describe(self, value: Any) -> Any:
        if isinstance(value, self._module.Tensor):
            return (*super()._describe(value), value.stride(), value.is_complex() and value.is_conj())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return (type(value).__name__, value._fields, [self._describe(item) for item in value])
        if isinstance(value, tuple) and hasattr(value, "n_fields"):
            kind: Any = type(value)
            return (kind.__name__, kind.__match_args__, [self._describe(item) for item in value])
        if isinstance(value, dict):
            return ("dict", {name: self._describe(item) for name, item in value.items()})
        return super()._describe(value)


def transcribe(program: Program, module: Any) -> Notes:
    """Run a program and return what it noted."""
    watch = Watch(module)
    with warnings.catch_warnings():
        # torch gives some warnings once a process; tests of warnings ask for them.
        warnings.simplefilter("ignore")
        program(module, watch)
    assert watch.notes, "the program noted nothing"
    return watch.notes


def assert_same(program: Program, tc: ModuleType, *, synchronous: bool) -> None:
    """Run a program with torch and with tclient and compare what they noted, note by note."""
    with oracle(str(tc.empty(0).device)) as local:
        expected = transcribe(program, local)
    with tc.synchronous(synchronous):
        got = transcribe(program, tc)
    assert len(got) == len(expected)
    differences = [
        f"note {number}\n  torch   {theirs}\n  tclient {mine}"
        for number, (mine, theirs) in enumerate(zip(got, expected, strict=True))
        if mine != theirs
    ]
    assert not differences, "\n".join([f"{program.__name__}: tclient is not torch", *differences])


__all__ = ["Program", "Rows", "Watch", "assert_same", "transcribe"]
