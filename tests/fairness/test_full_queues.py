"""A forward pass that finds the queue of its model full is asked for again within its time, whatever road it takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tclient
from tclient import ServerBusy
from tests.support.roads import ROADS, take
from tests.support.serving import HasAddress, wait_until

ROWS = np.ones((1, 3), np.float32)
FULL_AT_ONE: dict[str, Any] = {"max_queue_delay_us": 60_000_000, "default_queue_policy": {"max_queue_size": 1}}


@pytest.fixture(params=ROADS)
def held(request: pytest.FixtureRequest, server: HasAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model that has room for one request, which it holds until it is configured anew."""
    take(request.param, monkeypatch)
    with tclient.connect(server.address):
        made = tclient.models.create(f"full-{request.param}", tclient.nn.MLP([3, 2]), **FULL_AT_ONE)
        yield made
        made.delete()


@pytest.fixture
def first(held: Any) -> Iterator[Future[Any]]:
    """The request that it holds."""
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(held, ROWS)
        wait_until(lambda: held.statistics().waiting == 1, 10.0, "the queue is full")
        yield begun
        held.configure(max_queue_delay_us=0)
        begun.result(20.0)


def test_it_is_run_when_there_is_room(held: Any, first: Future[Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(held, ROWS)
        wait_until(lambda: held.statistics().rejected > 1, 10.0, "it was refused more than once")
        held.configure(max_queue_delay_us=0)
        np.testing.assert_array_equal(second.result(20.0), first.result(20.0))


def test_when_its_time_is_up_it_is_told_what_was_tried(held: Any, first: Future[Any]) -> None:
    with pytest.raises(ServerBusy, match=r"asked \d+ times"):
        held(ROWS, timeout_s=0.6)
    assert held.statistics().rejected > 1
    assert not first.done()
