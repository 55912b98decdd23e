"""The line of a model: who is taken, in which order and when. Without torch and without a server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import DeadlineExceeded, Exhausted, InvalidArgument
from tserver.models import requests
from tserver.models.batching import BatchingConfig, QueuePolicy
from tserver.models.requests import Request, RequestQueue

LONG_US = 60_000_000


def line(*rows: int, **settings: Any) -> tuple[RequestQueue, list[Request]]:
    """A line with requests of so many rows each."""
    queue = RequestQueue(BatchingConfig(**settings))
    requests = [Request(count, (), (), count) for count in rows]
    for request in requests:
        queue.put(request)
    return queue, requests


def sizes(queue: RequestQueue) -> list[list[int]]:
    """The rows of all batches until the line is empty or holds back."""
    batches = []
    while batch := queue.take().batch:
        batches.append([request.rows for request in batch])
    return batches


def test_without_a_delay_a_batch_is_whatever_waits() -> None:
    queue, _ = line(1, 2, 3)
    assert sizes(queue) == [[1, 2, 3]]


def test_a_batch_has_no_more_rows_than_max_batch_size() -> None:
    queue, _ = line(3, 3, 3, 1, max_batch_size=7)
    assert sizes(queue) == [[3, 3], [3, 1]]


def test_a_request_with_more_rows_than_a_batch_runs_alone() -> None:
    queue, _ = line(1, 9, 1, max_batch_size=4)
    assert sizes(queue) == [[1], [9], [1]]


def test_a_request_that_is_larger_than_what_may_wait_is_taken_when_nothing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "_MAX_WAITING_BYTES", 100)
    queue, _ = line(101)
    with pytest.raises(Exhausted, match="retry later"):
        queue.put(Request(1, (), (), 1))
    assert sizes(queue) == [[101]]
    queue.put(Request(1, (), (), 1))


def test_requests_are_held_back_for_the_delay_and_no_longer() -> None:
    queue, (first, _) = line(1, 1, max_queue_delay_us=LONG_US)
    taken = queue.take()
    assert taken.batch == []
    assert taken.look_again_at == pytest.approx(first.arrived + LONG_US / 1e6)
    first.arrived -= LONG_US / 1e6
    assert sizes(queue) == [[1, 1]]


def test_nothing_is_held_back_where_nobody_can_join() -> None:
    queue, _ = line(1, 1, max_queue_delay_us=LONG_US)
    assert [request.rows for request in queue.take(holds_back=False).batch] == [1, 1]


def test_a_full_batch_is_not_held_back() -> None:
    queue, _ = line(1, 1, 1, max_queue_delay_us=LONG_US, max_batch_size=2)
    assert sizes(queue) == [[1, 1]]
    assert len(queue) == 1


def test_a_preferred_size_is_not_held_back_and_leaves_the_others() -> None:
    queue, _ = line(*[1] * 7, max_queue_delay_us=LONG_US, preferred_batch_size=(2, 4))
    assert sizes(queue) == [[1] * 4, [1] * 2]
    assert len(queue) == 1


def test_without_a_delay_no_preferred_size_is_waited_for() -> None:
    queue, _ = line(1, 1, 1, preferred_batch_size=(8,))
    assert sizes(queue) == [[1, 1, 1]]


def test_the_highest_priority_goes_first_and_each_keeps_its_order() -> None:
    queue = RequestQueue(BatchingConfig(priority_levels=3, default_priority_level=2, max_batch_size=1))
    given = [(0, 10), (3, 11), (1, 12), (2, 13), (1, 14), (99, 15)]
    for priority, name in given:
        queue.put(Request(1, (name,), (), 0, priority=priority))
    taken = [queue.take().batch[0].inputs[0] for _ in given]
    assert taken == [12, 14, 10, 13, 15, 11]


def test_a_full_line_refuses_and_takes_again_when_one_has_left() -> None:
    policy = QueuePolicy(max_queue_size=2)
    queue, (first, _) = line(1, 1, default_queue_policy=policy)
    with pytest.raises(Exhausted, match="2 requests wait") as told:
        queue.put(Request(1, (), (), 1))
    assert told.value.reason == "QUEUE_FULL"
    assert queue.remove(first)
    queue.put(Request(1, (), (), 1))


def test_inputs_that_wait_are_bounded_in_bytes() -> None:
    queue, _ = line()
    large = memoryview(bytearray(200 << 20))
    queue.put(Request(1, (), (), len(large)))
    with pytest.raises(Exhausted, match="bytes wait"):
        queue.put(Request(1, (), (), len(large)))
    assert len(queue.take().batch) == 1
    queue.put(Request(1, (), (), len(large)))


def test_a_request_leaves_the_line_once() -> None:
    queue, (request,) = line(1)
    assert queue.remove(request)
    assert not queue.remove(request)
    assert sizes(queue) == []


def test_a_request_behind_its_deadline_is_not_run() -> None:
    queue, (late, other) = line(1, 1)
    late.deadline = time.monotonic() - 1
    taken = queue.take()
    assert taken.batch == [other]
    assert taken.expired == [late]
    assert isinstance(late.error, DeadlineExceeded)
    assert late.error.reason == "DEADLINE_EXCEEDED"


def test_a_held_back_line_is_looked_at_again_when_a_time_is_up() -> None:
    queue, (request,) = line(1, max_queue_delay_us=LONG_US)
    request.deadline = request.arrived + 1
    assert queue.take().look_again_at == pytest.approx(request.arrived + 1)


def test_a_timeout_rejects() -> None:
    policy = QueuePolicy(default_timeout_us=1)
    queue, (late,) = line(1, default_queue_policy=policy)
    late.timeout_at = time.monotonic() - 1
    assert queue.take().expired == [late]
    assert late.error is not None
    assert late.error.reason == "QUEUE_TIMEOUT"


def test_a_timeout_that_delays_puts_a_request_behind_the_others_of_its_priority() -> None:
    policy = QueuePolicy(timeout_action="DELAY", default_timeout_us=LONG_US)
    queue, (late, other) = line(1, 1, default_queue_policy=policy)
    late.timeout_at = time.monotonic() - 1
    assert queue.take().batch == [other, late]


@pytest.mark.parametrize(
    ("policy", "wanted_us", "allowed_us"),
    [
        pytest.param(QueuePolicy(default_timeout_us=100), 50, 100, id="not allowed to say so"),
        pytest.param(QueuePolicy(default_timeout_us=100, allow_timeout_override=True), 50, 50, id="shorter"),
        pytest.param(QueuePolicy(default_timeout_us=100, allow_timeout_override=True), 500, 100, id="longer"),
        pytest.param(QueuePolicy(default_timeout_us=100, allow_timeout_override=True), 0, 100, id="not said"),
        pytest.param(QueuePolicy(allow_timeout_override=True), 500, 500, id="no default"),
    ],
)
def test_a_request_may_shorten_its_time_where_the_policy_lets_it(
    policy: QueuePolicy, wanted_us: int, allowed_us: int
) -> None:
    assert policy.timeout_us(wanted_us) == allowed_us


def test_new_settings_keep_who_waits() -> None:
    queue, _ = line(1, 1, 1, max_queue_delay_us=LONG_US)
    assert sizes(queue) == []
    queue.configure(BatchingConfig(max_batch_size=2))
    assert sizes(queue) == [[1, 1], [1]]


BAD: dict[str, tuple[ms.BatchingConfig, str]] = {
    "no rows": (ms.BatchingConfig(max_batch_size=0), "max_batch_size is 0"),
    "a preferred size of none": (ms.BatchingConfig(preferred_batch_size=[0]), "preferred_batch_size 0"),
    "a preferred size too large": (ms.BatchingConfig(max_batch_size=4, preferred_batch_size=[5]), "size 5"),
    "a delay of an hour": (ms.BatchingConfig(max_queue_delay_us=3_600_000_000), "3600000000"),
    "no default priority": (ms.BatchingConfig(priority_levels=3), "default_priority_level is 0"),
    "too many priorities": (ms.BatchingConfig(priority_levels=10**6, default_priority_level=1), "1000000"),
    "a policy of no priority": (ms.BatchingConfig(priority_queue_policy={4: ms.QueuePolicy()}), "level 4"),
    "an order of priorities": (
        ms.BatchingConfig(preserve_ordering=True, priority_levels=2, default_priority_level=1),
        "preserve_ordering",
    ),
    "an order of delayed ones": (
        ms.BatchingConfig(
            preserve_ordering=True, default_queue_policy=ms.QueuePolicy(timeout_action=ms.TIMEOUT_ACTION_DELAY)
        ),
        "preserve_ordering",
    ),
}


@pytest.mark.parametrize(("message", "naming"), BAD.values(), ids=BAD)
def test_settings_that_cannot_be_are_refused(message: ms.BatchingConfig, naming: str) -> None:
    with pytest.raises(InvalidArgument, match=naming):
        BatchingConfig.read(message)


def test_settings_come_through_a_message_as_they_were() -> None:
    config = BatchingConfig(
        max_batch_size=32,
        preferred_batch_size=(4, 8),
        max_queue_delay_us=100,
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy("DELAY", 5, True, 7),
        priority_queue_policy={1: QueuePolicy(max_queue_size=0)},
    )
    assert BatchingConfig.read(config.message()) == config
