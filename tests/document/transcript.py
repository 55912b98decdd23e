"""One program, run with torch and with tclient, must leave the same transcript.

A program is a function of a module (`torch` itself, or `tclient`) and a transcript in which it notes what it sees. What
is noted of a tensor is its bytes, dtype, shape, device and printed text; of an exception its class and text; of a
warning its class and text. Knows nothing about the server: the caller hands over a connected `tclient`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

# The second argument is a Transcript, or a kind of it that notes more.
Program = Callable[[Any, Any], None]
Notes = list[Any]


class Transcript:
    """What one run of a program saw, in order, in plain Python values that compare with ==."""

    def __init__(self, module: Any) -> None:
        self.notes: Notes = []
        self._module = module

    def show(self, *values: Any) -> None:
        """Note values: tensors with everything a user can see of them."""
        self.notes.extend(self._describe(value) for value in values)

    def form(self, *tensors: Any) -> None:
        """Note only dtype, shape and device, where the elements are not defined (`empty`)."""
        self.notes.extend((str(x.dtype), tuple(x.shape), str(x.device)) for x in tensors)

    def fails(self, action: Callable[[], Any]) -> None:
        """Note the exception of an action. A call to a server may fail after it was issued, so the result is read."""
        try:
            self._settle(action())
        except Exception as error:  # the class is what is compared
            builtin = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
            self.notes.append(("fails", builtin, str(error)))
        else:
            self.notes.append(("succeeds",))

    def prints(self, *values: Any) -> None:
        """Note what `print` writes."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            print(*values)
        self.notes.append(("prints", out.getvalue()))

    def warns(self, action: Callable[[], Any]) -> None:
        """Note the warnings that an action gives, then its result."""
        before = torch.is_warn_always_enabled()
        # torch gives some warnings once a process: whichever test comes first would have this one's.
        torch.set_warn_always(True)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                warnings.simplefilter("ignore", ResourceWarning)  # sockets of other tests
                value = action()
                self._settle(value)
        finally:
            torch.set_warn_always(before)
        self.notes.append(("warns", [(w.category.__name__, _first_line(str(w.message))) for w in caught]))
        self.show(value)

    def _settle(self, value: Any) -> None:
        if isinstance(value, self._module.Tensor):
            value.tolist()
        elif isinstance(value, tuple | list):
            for item in value:
                self._settle(item)
        synchronize = getattr(self._module, "synchronize", None)
        if synchronize is not None:
            synchronize()

    def _describe(self, value: Any) -> Any:
        module = self._module
        if isinstance(value, module.Tensor):
            return (
                "tensor",
                str(value.dtype),
                tuple(value.shape),
                str(value.device),
                value.requires_grad,
                _elements(module, value),
                repr(value),
                str(value),
            )
        if isinstance(value, module.Size):
            return ("size", tuple(value), repr(value), value.numel())
        if isinstance(value, module.dtype):
            return ("dtype", repr(value), value.itemsize, value.is_floating_point, value.is_signed)
        if isinstance(value, module.device):
            return ("device", repr(value), str(value), value.type, value.index)
        if isinstance(value, np.ndarray):
            return ("ndarray", str(value.dtype), value.shape, value.tobytes())
        if isinstance(value, tuple | list):
            return (type(value).__name__, [self._describe(item) for item in value])
        # repr tells 0.0 from -0.0 and makes nan equal to itself.
        return (type(value).__name__, repr(value))


def _elements(module: Any, value: Any) -> bytes | str:
    value = value.detach().to("cpu")
    if value.dtype == module.bfloat16:  # numpy has none
        value = value.float()
    data: bytes = value.resolve_conj().numpy().tobytes()
    return data


def _first_line(text: str) -> str:
    # torch appends the place in its own source, "(Triggered internally at …)": not something a program relies on.
    return text.split(" (Triggered internally", maxsplit=1)[0]


class Rows:
    """The programs of one file; each belongs to a row of the document and carries its name in the test's id."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}

    def row(self, name: str) -> Callable[[Program], Program]:
        """Register a program: `@rows.row("T3")` above `def item_of_many` makes the id T3-item-of-many."""

        def register(program: Program) -> Program:
            identifier = f"{name}-{program.__name__.replace('_', '-')}"
            assert identifier not in self._programs, identifier
            self._programs[identifier] = program
            return program

        return register

    def parametrize(self) -> pytest.MarkDecorator:
        """Each program twice: pipelined as users run it, and in the synchronous mode."""
        return pytest.mark.parametrize(
            ("program", "synchronous"),
            [
                pytest.param(program, synchronous, id=f"{identifier}-{'synchronous' if synchronous else 'pipelined'}")
                for identifier, program in self._programs.items()
                for synchronous in (False, True)
            ],
        )


@contextlib.contextmanager
def oracle(device: str) -> Iterator[Any]:
    """Torch as it is on a machine whose tensors live on `device` unless told otherwise."""
    state = torch.get_rng_state()
    try:
        if not device.startswith("cuda"):
            yield torch
            return
        # A documented difference: `numpy()` brings CUDA tensors over, where torch refuses.
        local_numpy = torch.Tensor.numpy
        with pytest.MonkeyPatch.context() as patch, torch.device(device):
            patch.setattr(torch.Tensor, "numpy", lambda self, **options: local_numpy(self.cpu(), **options))
            yield torch
    finally:
        torch.set_rng_state(state)
        torch.set_default_dtype(torch.float32)


def transcribe(program: Program, module: Any) -> Notes:
    """Run a program and return what it noted."""
    transcript = Transcript(module)
    with warnings.catch_warnings():
        # torch gives some warnings once a process, so only those that a program asks for (`warns`) are compared.
        warnings.simplefilter("ignore")
        program(module, transcript)
    assert transcript.notes, "the program noted nothing"
    return transcript.notes


def assert_same(program: Program, tc: Any, *, synchronous: bool) -> None:
    """Run a program with torch and with tclient and compare the transcripts, note by note."""
    with oracle(str(tc.empty(0).device)) as local:
        expected = transcribe(program, local)
    with tc.synchronous(synchronous):
        got = transcribe(program, tc)
    assert len(got) == len(expected)
    for number, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        assert mine == theirs, f"note {number} of {program.__name__}: tclient (left) is not torch (right)"
