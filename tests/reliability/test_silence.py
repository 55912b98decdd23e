"""Networks that go silent: no call takes much longer than the silence, and each is applied once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

import tclient
from tests.reliability.random_calls import Twice
from tests.support.proxy import Direction, Proxy
from tests.support.roads import ROADS, proxied, take
from tests.support.serving import HasAddress, wait_until

# A long run has 200, and 100,000 calls.
OUTAGES = int(os.environ.get("TSERVER_TEST_OUTAGES", "6"))
# How often an addition has a random call beside it, and how often all that those have made is looked at.
_RANDOM, _CHECKED = 0.3, 0.3
BEYOND_S = float(os.environ.get("TSERVER_TEST_BEYOND_S", "6"))


@pytest.fixture(params=ROADS)
def proxy(request: pytest.FixtureRequest, server: HasAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A network before a server, for a road."""
    take(request.param, monkeypatch)
    with proxied(server.address, request.param) as proxy:
        yield proxy


def test_a_connection_that_is_half_open_is_left_for_another(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        x = tclient.zeros(3)
        assert x.tolist() == [0, 0, 0]
        proxy.forget()
        began = time.monotonic()
        x.add_(1)
        assert x.tolist() == [1, 1, 1]
        assert time.monotonic() - began < BEYOND_S


def test_a_batch_that_runs_for_long_is_waited_for_over_one_connection(proxy: Proxy) -> None:
    with tclient.connect(proxy.address) as session:
        x = tclient.rand(2600, 2600)
        accepted = proxy.accepted
        renewals = session.channel._renewals
        for _ in range(2):
            x = (x @ x) / 1e3
        assert x.shape == (2600, 2600)
        x[0, 0].item()
        assert session.channel._renewals == renewals
        # It is asked how far it is, over connections that are none of the stream's.
        assert proxy.accepted - accepted < 20


def test_a_batch_that_waits_for_another_session_is_waited_for_over_one_connection(proxy: Proxy) -> None:
    # Over a lane the engine reads it itself, once it has a moment.
    with tclient.connect(proxy.address) as session, tclient.Session.open(proxy.address) as other:
        x = tclient.ones(2)
        with other.use():
            y = tclient.rand(5000, 5000)
            z = y @ y
            one = z[0, 0]
            blocked = threading.Thread(target=one.item)
            blocked.start()
            time.sleep(0.2)
        renewals = session.channel._renewals
        assert (x + 1).tolist() == [2, 2]
        blocked.join()
        assert session.channel._renewals == renewals == 0


def test_forward_passes_leave_a_half_open_connection_for_another(proxy: Proxy) -> None:
    with tclient.connect(proxy.address):
        served = tclient.models.create("in-silence", tclient.nn.Sequential(tclient.nn.Linear(4, 2)))
        try:
            rows = tclient.ones(3, 4).numpy()
            expected = served(rows)
            for _ in range(3):
                proxy.forget()
                began = time.monotonic()
                assert served(rows).tolist() == expected.tolist()
                assert time.monotonic() - began < BEYOND_S
        finally:
            served.delete()


@pytest.mark.parametrize(
    ("over", "outage_s"),
    [("data endpoint", 0.0), ("data endpoint", 1.5), ("gRPC", 0.0)],
    ids=["half open", "black hole", "half open, gRPC"],
)
def test_bulk_bytes_with_no_call_beside_them_go_over_to_other_connections(
    server: HasAddress, monkeypatch: pytest.MonkeyPatch, over: str, outage_s: float
) -> None:
    take("lane", monkeypatch)
    data = np.arange(8 << 20, dtype=np.float32)
    with proxied(server.address, "lane") as proxy, tclient.connect(proxy.address) as session:
        session.checksums = over == "gRPC"
        x = tclient.tensor(data)
        assert x[1].item() == 1.0
        for direction in Direction:
            proxy.delay(0.01, direction)
        late: list[float] = []
        for move, direction in ((lambda: tclient.tensor(data), Direction.TO_SERVER), (x.numpy, Direction.TO_CLIENT)):
            moving = threading.Thread(target=move)
            middle = proxy.passed_bytes(direction) + 1e6
            moving.start()
            wait_until(partial(_has_passed, proxy, direction, middle), 10.0, "the first bytes")
            proxy.black_hole(outage_s > 0)
            time.sleep(outage_s)
            proxy.forget()
            proxy.black_hole(False)
            began = time.monotonic()
            moving.join()
            late.append(time.monotonic() - began)
        assert np.array_equal(x.numpy(), data)
    print(f"{over}: there and back {late[0]:.1f} and {late[1]:.1f} s behind the outage")
    # Of gRPC's connections less is known.
    assert max(late) < BEYOND_S + (10.0 if over == "gRPC" else 0.0)


def _has_passed(proxy: Proxy, direction: Direction, size_bytes: float) -> bool:
    return proxy.passed_bytes(direction) > size_bytes


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:This overload of")
def test_every_call_is_applied_once_and_none_takes_longer_than_the_outage(proxy: Proxy) -> None:
    rng = random.Random(7)
    over = threading.Event()
    outages: list[tuple[float, float]] = []

    def break_now_and_then() -> None:
        try:
            for number in range(OUTAGES):
                time.sleep(rng.uniform(0.2, 0.6))
                began = time.monotonic()
                if number % 3 == 0:
                    proxy.cut()
                elif number % 3 == 1:
                    proxy.forget()
                else:
                    proxy.black_hole()
                    time.sleep(rng.uniform(0.1, 3.0))
                    proxy.forget()
                    proxy.black_hole(False)
                outages.append((began, time.monotonic()))
        finally:
            over.set()

    with tclient.connect(proxy.address), torch.random.fork_rng():
        x = tclient.zeros(4, dtype=tclient.int64)
        added = 0
        twice = Twice(7)
        late: list[float] = []
        breaking = threading.Thread(target=break_now_and_then)
        breaking.start()
        while not over.is_set():
            began = time.monotonic()
            for _ in range(rng.randrange(1, 80)):
                x.add_(1)
                added += 1
                if rng.random() < _RANDOM:
                    twice.call()
            assert x[0].item() == added
            if rng.random() < _CHECKED:
                twice.check()
            ended = time.monotonic()
            # From the end of the last outage that it saw, which may have come while it recovered from another.
            until = max((until for since, until in [*outages] if since < ended and until > began), default=began)
            late.append(ended - max(began, until))
        breaking.join()
        x.add_(1)
        assert x.tolist() == [added + 1] * 4
        twice.check()
    made = f"{sum(twice.made.values())} random calls of {len(twice.made)} operations"
    print(f"{added} additions, {made}, {len(outages)} outages, the latest {max(late):.2f} s beyond its outage")
    assert max(late) < BEYOND_S
