"""What a client knows of tensors without asking: it must not be older than what was issued, whatever threads do.

The interleavings that matter last for microseconds. Here they are forced: a thread stops at the moment when its call is
put behind the others, and another one asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tclient._session.current import current


class _Held(list[Any]):
    """A queue in which one call, chosen by the name of its operation, is put when it may."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.has_come = threading.Event()
        self.may_go = threading.Event()

    def append(self, call: Any) -> None:
        if call.operation.name == self._name and not self.has_come.is_set():
            self.has_come.set()
            assert self.may_go.wait(20.0)
        super().append(call)


# What is written, what is asked, and the answers before and after.
WRITES: dict[str, tuple[str, Callable[[Any], object], Callable[[Any], object], object, object]] = {
    "a flag": (
        "Tensor.requires_grad_",
        lambda x: x.requires_grad_(),
        lambda x: x.requires_grad,
        False,
        True,
    ),
    "a shape": (
        "Tensor.unsqueeze_",
        lambda x: x.unsqueeze_(0),
        lambda x: tuple(x.shape),
        (3,),
        (1, 3),
    ),
    "a dtype by .data": (
        "Tensor.data.__set__",
        lambda x: setattr(x, "data", x.double()),
        lambda x: str(x.dtype),
        "torch.float32",
        "torch.float64",
    ),
}


@pytest.mark.parametrize(("name", "write", "ask", "before", "after"), WRITES.values(), ids=WRITES)
def test_an_answer_from_before_a_write_is_not_taken_for_one_from_behind_it(
    name: str,
    write: Callable[[Any], object],
    ask: Callable[[Any], object],
    before: object,
    after: object,
    tc: ModuleType,
) -> None:
    x = tc.ones(3)
    assert ask(x) == before
    queue = current().queue
    held = _Held(name)
    with queue._writing:
        held.extend(queue.pending)
    queue.pending = held
    writer = threading.Thread(target=write, args=(x,))
    writer.start()
    assert held.has_come.wait(20.0)
    asked: list[object] = []
    # The server describes it as it was before the write.
    asker = threading.Thread(target=lambda: asked.append(ask(x)))
    asker.start()
    asker.join(20.0)
    assert asked == [before], "the call that writes is not on its way"
    held.may_go.set()
    writer.join(20.0)
    assert ask(x) == after
    tc.synchronize()
    assert ask(x) == after


def test_what_a_program_foretells_is_not_newer_than_its_call(tc: ModuleType) -> None:
    """Results of a recorded function are described before they are answered; a write behind the call outdates that."""
    double = tc.compile(lambda x: x * 2)
    x = tc.ones(3)
    double(x)
    double(x)
    y = double(x)
    y.unsqueeze_(0)
    assert tuple(y.shape) == (1, 3)
