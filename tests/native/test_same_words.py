"""The compiled core against pure Python: the same calls give the same words, results and errors, and are as current.

No server: calls are issued into queues that nobody empties, the same in two sessions, once by way of the core and once
by pure Python.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tclient
from tclient import _native
from tclient._caller import HERE
from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, LAYOUTS
from tclient._codec.operations import TABLE
from tclient._codec.size import size_of
from tclient._issue import dispatch, dispatch_any, make_tensor
from tclient._native import pure
from tclient._session.call_queue import CallQueue
from tclient._session.kinds import Kinds, known
from tclient._session.refs import part
from tensorcompute.wire.packed import INTEGER_LIMIT

pytestmark = pytest.mark.skipif(not _native.COMPILED, reason="the core is not compiled: see hatch_build.py")

# Of each sort one: plain with and without a rule for shapes, in place, of metadata, of gradients, without a result,
# with a flag that writes, several results, by signature, data, properties, an index, a factory.
_SORTS = """Tensor.__add__ Tensor.__rsub__ Tensor.__matmul__ Tensor.relu Tensor.sum Tensor.detach Tensor.clone
    Tensor.add_ Tensor.__iadd__ Tensor.unsqueeze_ Tensor.requires_grad_ Tensor.backward Tensor.data.__set__
    Tensor.data.__get__ nn.functional.relu nn.functional.linear nn.functional.dropout where Tensor.max Tensor.view
    Tensor.new_tensor Tensor.__getitem__ Tensor.item Tensor.topk ones add Tensor.T.__get__ Tensor.lerp"""
OPERATIONS = _SORTS.split()
EDGES = [0, 1, -1, INTEGER_LIMIT - 1, INTEGER_LIMIT, -INTEGER_LIMIT, -INTEGER_LIMIT - 1, 1 << 63, -(1 << 70)]
MODES: dict[str, Callable[[], Any]] = {
    "none": contextlib.nullcontext,
    "no_grad": tclient.no_grad,
    "inference_mode": tclient.inference_mode,
    "autocast": lambda: tclient.autocast("cpu"),
}
# It seems to be the package's own, as all are that issue calls: the caller's line is that of who calls it.
_issue: Any = eval(compile("lambda way, operation, args: way(operation, args, None)", HERE + "names.py", "eval"))  # noqa: S307


class Side:
    """A session of which nothing is sent, and the tensors that a program made in it."""

    def __init__(self, way: Callable[..., Any]) -> None:
        self.way = way
        self.queue = _queue()
        self.relieved = 0
        sending: Any = SimpleNamespace(wake=lambda: None, wake_up=lambda: None, hand_over=self._relieve)
        self.queue.send_with(sending)
        self.queue.attention = False
        self.queue.relief = 6
        self.session = _session(self.queue)
        # The kinds of tensors, in the order of their appearance.
        self.kinds: list[Any] = []
        self.tensors = [self._tensor(2), self._tensor(1), self._tensor(2), self._tensor(2, dtype="int64")]
        self.foreign = make_tensor(part(_session(_queue()), 5, (), None))

    def _relieve(self) -> None:
        self.relieved += 1

    def _tensor(self, dims: int, path: tuple[int, ...] = (), dtype: str = "float32") -> Any:
        ref = part(self.session, self.queue.next_id(), path, None)
        ref.meta = known(size_of([3] * dims), DTYPES[dtype], device("cpu"), LAYOUTS[1])
        ref.epoch = self.queue.epoch
        return make_tensor(ref)

    def _argument(self, given: tuple[str, Any]) -> Any:
        sort, value = given
        if sort == "tensor":
            return self.tensors[value % len(self.tensors)]
        if sort == "part":
            return self._tensor(1, (value,))
        return self.foreign if sort == "foreign" else value

    def step(self, name: str, given: Sequence[tuple[str, Any]], mode: str, learns: bool) -> object:
        """Issue a call; what came of it."""
        args = tuple(map(self._argument, given))
        try:
            with MODES[mode]():
                result = _issue(self.way, TABLE[name], args)
        except Exception as error:
            return type(error), str(error)
        if not isinstance(result, tclient.Tensor):
            return type(result)
        ref = result._ref
        places = [self._place(each._ref.kind) for each in (*self.tensors, result)]
        if learns and ref.kind is not None:
            ref.kind.learn(known(size_of([3, 3]), DTYPES["float32"], device("cpu"), LAYOUTS[1]))
        self.tensors.append(result)
        return type(result), ref.id, ref.path, ref.epoch, ref.since, places, result is args[0]

    def _place(self, kind: Any) -> int | None:
        if kind is not None and not any(kind is each for each in self.kinds):
            self.kinds.append(kind)
        return next((place for place, each in enumerate(self.kinds) if each is kind), None)

    def state(self) -> object:
        """What is in the queue."""
        calls = [
            (call.operation.name, call.words, call.data, call.epoch, call.done, call.result, call.failure, call.site())
            for call in self.queue.pending
        ]
        data, words = _native.contents(self.queue.pending)
        plain = pure.contents(self.queue.pending)
        assert (data, list(words)) == plain
        queue = self.queue
        return calls, queue.epoch, queue.meta_epoch, list(queue.drops), self.relieved


def _queue() -> CallQueue:
    limits = {"max_light": 1 << 20, "max_inline": 1 << 20, "max_message": 1 << 24, "read_timeout_s": None}
    channel = SimpleNamespace(address="nowhere", dead=None, tracing=None, **limits)
    transfers: Any = SimpleNamespace(channel=channel, upload=lambda *given: None)
    return CallQueue(transfers, lambda call: None)


def _session(queue: CallQueue) -> Any:
    def wait(call: Any) -> None:
        raise RuntimeError(f"{call.operation.name} is waited for")

    return SimpleNamespace(
        queue=queue,
        kinds=Kinds(),
        channel=queue._channel,
        transfers=queue._transfers,
        address="nowhere",
        callers=None,
        default_dtype_known=True,
        wait=wait,
        synchronize=lambda: None,
    )


_numbers = st.one_of(st.sampled_from(EDGES), st.integers(), st.floats(), st.booleans(), st.none())
_arguments = st.one_of(
    st.tuples(st.just("tensor"), st.integers(0, 9)),
    st.tuples(st.just("tensor"), st.integers(0, 9)),
    st.tuples(st.just("value"), _numbers),
    st.tuples(st.just("value"), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    st.tuples(st.just("part"), st.integers(0, 3)),
    st.tuples(st.just("foreign"), st.none()),
)
_steps = st.tuples(
    st.sampled_from(OPERATIONS),
    st.tuples(st.just("tensor"), st.integers(0, 9)),
    st.lists(_arguments, max_size=3),
    st.sampled_from(sorted(MODES)),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 12)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, min_size=1, max_size=14))
def test_a_program_is_issued_alike_by_the_core_and_by_pure_python(steps: list[Any]) -> None:
    sides = Side(dispatch), Side(dispatch_any)
    gc.disable()
    try:
        for name, first, rest, mode, learns, kept in steps:
            mine, theirs = (side.step(name, [first, *rest], mode, learns) for side in sides)
            assert mine == theirs
            for side in sides:
                if kept is not None:
                    del side.tensors[kept:]
        mine, theirs = (side.state() for side in sides)
        assert mine == theirs
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", MODES)
def test_each_sort_of_call_is_issued_alike_with_each_sort_of_argument(mode: str) -> None:
    tensor, other, whole_numbers = (("tensor", place) for place in (0, 1, 3))
    odd: list[Any] = [*EDGES, True, None, 0.5, -0.0, float("nan"), float("inf"), (1, 2), "text"]
    rests: list[list[tuple[str, Any]]] = [[], [tensor], [other], [whole_numbers], [tensor, other], [other] * 20]
    rests += [[("value", value)] for value in odd] + [[tensor, ("value", value)] for value in odd]
    rests += [[("part", 1)], [("foreign", None)]]
    for name in OPERATIONS:
        for first in (tensor, whole_numbers):
            for rest in rests:
                sides = Side(dispatch), Side(dispatch_any)
                # Again with another number, on what is known by then, and on the result.
                again = [(sort, value + 1.0 if value.__class__ is float else value) for sort, value in rest]
                for given_ in ([first, *rest], [first, *again], [("tensor", -1), *rest]):
                    mine, theirs = (side.step(name, given_, mode, True) for side in sides)
                    assert (name, given_, mine) == (name, given_, theirs)
                assert sides[0].state() == sides[1].state()


def test_most_of_what_is_plain_does_not_leave_the_core() -> None:
    plain = ["Tensor.__add__", "Tensor.sum", "nn.functional.linear", "Tensor.add_", "Tensor.requires_grad_"]

    def refused(*given: Any) -> None:
        raise AssertionError(f"{given[0]} went the way of pure Python")

    for name in plain:
        side = Side(_native.quick_dispatch(refused))
        count = 1 if name == "Tensor.requires_grad_" else 2
        side.step(name, [("tensor", 0)] * count, "no_grad", False)
        assert [call.operation.name for call in side.queue.pending] == [name]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 1 << 48)),
            st.tuples(st.just("append"), st.tuples(st.integers(0, 99), st.tuples(st.integers(0, 3)))),
            st.tuples(st.just("extend"), st.integers(1, 1500)),
            st.tuples(st.just("extendleft"), st.integers(1, 5)),
            st.tuples(st.just("popleft"), st.integers(1, 1100)),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_what_was_dropped_keeps_its_order(steps: list[tuple[str, Any]], closed: bool) -> None:
    kinds: tuple[Any, ...] = (_native.Drops, pure.Drops)
    mine, theirs = ((kind(maxlen=0) if closed else kind()) for kind in kinds)
    for what, value in steps:
        if what == "popleft":
            for _ in range(min(value, len(theirs))):
                assert mine.popleft() == theirs.popleft()
        elif what == "append":
            mine.append(value)
            theirs.append(value)
        else:
            getattr(mine, what)(range(value))
            getattr(theirs, what)(range(value))
        assert (len(mine), bool(mine)) == (len(theirs), bool(theirs))
    assert list(mine) == list(theirs)
    if not theirs:
        with pytest.raises(IndexError):
            mine.popleft()
