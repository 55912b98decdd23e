"""What a call, a question or an end costs does not grow with what else a session holds.

Costs are counted in calls of functions, Python's and C's: that is exact, and nothing is timed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect
from tserver.engine.apply import apply_operation
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore
from tserver.errors import Exhausted

QUOTA_BYTES = 1 << 20


@contextlib.contextmanager
def counting_calls() -> Iterator[list[int]]:
    """The number of functions called within, in a list of one."""
    count = [0]

    def note(frame: Any, event: str, argument: Any) -> None:
        count[0] += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(None)


def cost(function: Callable[[], object]) -> int:
    """Functions called by a function."""
    with counting_calls() as count:
        function()
    return count[0]


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    """A session without a quota."""
    queue = engine.open_queue()
    yield queue.store
    queue.close()


@pytest.fixture
def bounded(store: ObjectStore) -> ObjectStore:
    """A session with one."""
    store.max_bytes = QUOTA_BYTES
    store.limits_changed()
    return store


def run(store: ObjectStore, name: str, *args: Any, call_id: int = 0, **kwargs: Any) -> Any:
    """Run an operation as a call of the session; its result is held if it has an id."""
    result = apply_operation(store, store.operation(name), list(args), kwargs)
    if call_id:
        store.objects[call_id] = result
        store.version += 1
    return result


def filled(store: ObjectStore, count: int) -> ObjectStore:
    """The session, holding so many tensors of 4 bytes more."""
    first = len(store.objects) + 1
    for call_id in range(first, first + count):
        run(store, "ones", 1, call_id=call_id)
    return store


def repeated(store: ObjectStore, size: int) -> None:
    """Fifty calls whose results are let go."""
    for _ in range(50):
        run(store, "ones", size)


def finished(pieces: Any) -> Any:
    """What a generator returns, and how often it let others go first."""
    yielded = 0
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value, yielded
        yielded += 1


def test_a_call_near_the_quota_costs_the_same_however_many_tensors_are_alive(bounded: ObjectStore) -> None:
    def near() -> int:
        with contextlib.suppress(Exhausted):
            run(bounded, "ones", QUOTA_BYTES // 4)
        return cost(lambda: repeated(bounded, 1000))

    filled(bounded, 10)
    few = near()
    filled(bounded, 3000)
    # Almost all that is left is taken, so that an estimate would have to be made good with every call.
    rest = QUOTA_BYTES - 4 * 3010 - 5000
    run(bounded, "zeros", rest // 4, call_id=5000)
    assert near() <= few * 1.2


def test_the_last_byte_of_the_quota_may_be_taken_and_is_there_again(bounded: ObjectStore) -> None:
    run(bounded, "zeros", QUOTA_BYTES, dtype=torch.uint8, call_id=1)
    for _ in range(3):
        with pytest.raises(Exhausted, match=f"{QUOTA_BYTES + 1} bytes"):
            run(bounded, "zeros", 1, dtype=torch.uint8)
    run(bounded, "Tensor.view", bounded.objects[1], 4, -1, call_id=2)
    bounded.free(pb.Ref(id=1))
    with pytest.raises(Exhausted):
        run(bounded, "zeros", 1, dtype=torch.uint8)
    bounded.free(pb.Ref(id=2))
    run(bounded, "zeros", QUOTA_BYTES, dtype=torch.uint8)


def test_what_a_graph_keeps_counts_until_the_graph_is_gone(bounded: ObjectStore) -> None:
    third = QUOTA_BYTES // 12
    w = run(bounded, "ones", third, requires_grad=True, call_id=1)
    doubled = run(bounded, "Tensor.mul", w, 2.0, call_id=2)
    run(bounded, "Tensor.norm", doubled, call_id=3)
    del doubled
    bounded.objects.pop(2)
    with pytest.raises(Exhausted):
        run(bounded, "zeros", 2 * third)
    bounded.objects.pop(3)
    run(bounded, "zeros", 2 * third)


def test_gradients_count(bounded: ObjectStore) -> None:
    w = run(bounded, "ones", QUOTA_BYTES // 16, requires_grad=True, call_id=1)
    loss = run(bounded, "Tensor.sum", w, call_id=2)
    run(bounded, "Tensor.backward", loss)
    with pytest.raises(Exhausted):
        run(bounded, "zeros", QUOTA_BYTES // 8)
    w.grad = None
    run(bounded, "zeros", QUOTA_BYTES // 16)


def test_a_tensor_that_grows_in_place_counts_as_it_is(bounded: ObjectStore) -> None:
    x = run(bounded, "zeros", 1, call_id=1)
    run(bounded, "Tensor.resize_", x, QUOTA_BYTES // 8)
    with pytest.raises(Exhausted):
        run(bounded, "zeros", QUOTA_BYTES // 4)
    with pytest.raises(Exhausted):
        run(bounded, "Tensor.resize_", x, QUOTA_BYTES)


def test_a_call_costs_the_same_beside_any_number_of_elements_that_wait_to_be_fetched(store: ObjectStore) -> None:
    def with_staged(count: int) -> int:
        held = [inspect.stage(store, torch.ones(4)) for _ in range(count)]
        assert store.watched
        spent = cost(lambda: repeated(store, 4))
        del held
        return spent

    few = with_staged(2)
    assert with_staged(500) <= few * 1.2
    run(store, "ones", 4)
    assert not store.watched, "nothing is lent any more"


def test_all_who_ask_before_it_is_counted_are_one_question(engine: Engine) -> None:
    asked = engine.usage()
    assert engine.usage() is asked
    asked.cancel()
    again = engine.usage()
    assert again is not asked
    engine.start()
    again.result(10.0)
    assert engine.usage() is not again, "what is there from then on is counted anew"
    engine.stop()


def test_what_a_session_holds_is_counted_in_pieces_and_not_again_while_nothing_changes(
    engine: Engine, store: ObjectStore
) -> None:
    filled(store, 2000)
    view = run(store, "Tensor.view", store.objects[1], 1, call_id=9000)
    assert view is not None
    usage, yielded = finished(engine._usage())
    assert (usage.tensors, usage.tensor_bytes["cpu"]) == (2000, 8000)
    assert yielded >= 7
    assert cost(lambda: finished(engine._usage())) < 1000
    store.free(pb.Ref(id=9000))
    store.free(pb.Ref(id=1))
    usage, _ = finished(engine._usage())
    assert (usage.tensors, usage.tensor_bytes["cpu"]) == (1999, 7996)


def test_very_many_tensors_are_not_counted_again_for_every_caller(engine: Engine, store: ObjectStore) -> None:
    one = torch.ones(1)
    store.objects.update(dict.fromkeys(range(1, 30_000), one))
    _, yielded = finished(engine._usage())
    assert yielded > 100
    store.version += 1
    usage, yielded = finished(engine._usage())
    assert (usage.tensors, yielded) == (1, 0)


def test_a_page_of_a_list_costs_the_same_however_many_tensors_there_are(store: ObjectStore) -> None:
    def page(token: str = "") -> ts.ListTensorsResponse:
        request = ts.ListTensorsRequest(page_size=10, page_token=token)
        response, _ = finished(inspect.list_tensors(store, request))
        assert isinstance(response, ts.ListTensorsResponse)
        return response

    filled(store, 100)
    token = page().next_page_token
    few = cost(lambda: page(token))
    filled(store, 3000)
    token = page().next_page_token
    assert cost(lambda: page(token)) <= few * 1.2
    assert [tensor.id.id for tensor in page("1500").tensors] == list(range(1501, 1511))
    assert (page("3095").total_tensors, len(page("3095").tensors), page("3095").next_page_token) == (3100, 5, "")


def test_the_parts_of_a_result_are_listed_one_by_one(store: ObjectStore) -> None:
    from tserver.engine.object_store import Parts

    store.keep(3, Parts(run(store, "Tensor.split", torch.ones(6), 1)))
    store.keep(7, torch.ones(1))
    seen, token = [], ""
    while True:
        page, _ = finished(inspect.list_tensors(store, ts.ListTensorsRequest(page_size=2, page_token=token)))
        seen += [(tensor.id.id, *tensor.id.path) for tensor in page.tensors]
        token = page.next_page_token
        if not token:
            break
    assert seen == [*((3, part) for part in range(6)), (7,)]
    assert page.total_tensors == 7


def test_a_session_ends_in_pieces(store: ObjectStore) -> None:
    filled(store, 2000)
    _, yielded = finished(store.clear())
    assert not store.objects
    assert yielded >= 7
