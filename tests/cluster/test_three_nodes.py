"""Three nodes under load, of which one is killed and one is drained. Takes minutes: `make test-cluster`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

import tclient
from tests.cluster.ray_cluster import RayCluster, ray_cluster
from tests.support.serving import wait_until

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("TENSORCOMPUTE_TEST_CLUSTER") != "1",
        reason="three nodes of Ray are started, and take minutes on two cores: `make test-cluster`",
    ),
    pytest.mark.timeout(600),
]
TIMEOUT_S = 90.0
NODES = 3


class Worker(threading.Thread):
    """A client with a session, which counts up on its engine until it fails or is told to stop."""

    def __init__(self, front: str) -> None:
        super().__init__(daemon=True)
        self.session = tclient.Session.open(front)
        self.boot_id = self.session.opened.boot_id
        self.failure: BaseException | None = None
        self.steps = 0
        self.is_stopping = False

    def run(self) -> None:
        try:
            with self.session:
                total = tclient.zeros(4)
                while not self.is_stopping:
                    total = total + 1
                    self.steps += 1
                    assert total.sum().item() == 4 * self.steps
        except BaseException as error:
            self.failure = error


@contextlib.contextmanager
def working(fronts: list[str], count: int) -> Iterator[list[Worker]]:
    """So many clients, at all fronts in turn."""
    workers = [Worker(fronts[index % len(fronts)]) for index in range(count)]
    for worker in workers:
        worker.start()
    yield workers
    for worker in workers:
        worker.is_stopping = True
    for worker in workers:
        worker.join(TIMEOUT_S)


def engines(cluster: RayCluster) -> dict[str, dict[str, str]]:
    """Those that serve, by their runs."""
    return {engine["boot_id"]: engine for engine in cluster.status()["engines"]}


def await_steps(workers: list[Worker]) -> None:
    """Wait until each has done some more."""
    before = [worker.steps for worker in workers]
    wait_until(
        lambda: all(worker.steps > step + 20 or worker.failure for worker, step in zip(workers, before, strict=True)),
        TIMEOUT_S,
        "the clients go on",
    )


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """Three nodes."""
    with ray_cluster(NODES) as cluster:
        yield cluster


def test_a_node_that_is_killed_costs_its_sessions_and_a_node_that_is_drained_tells_them(cluster: RayCluster) -> None:
    fronts = cluster.up(NODES, "--front-only")
    assert len(fronts) == NODES
    there = engines(cluster)
    by_node = Counter(engine["node"] for engine in there.values())
    assert len(by_node) == NODES, "an engine on each node"
    told = cluster.status()["fronts"]
    # At the fronts of the other nodes: who calls an address that is gone needs another one.
    home = [told[node.node_id] for node in cluster.nodes[:2]]
    with working(home, 9) as workers:
        await_steps(workers)
        assert {worker.boot_id for worker in workers} == there.keys()
        victim = cluster.nodes[2].node_id
        cluster.kill_node(2)
        killed_at = time.monotonic()
        on_it = [worker for worker in workers if there[worker.boot_id]["node"] == victim]
        others = [worker for worker in workers if worker not in on_it]
        wait_until(lambda: all(worker.failure for worker in on_it), TIMEOUT_S, "its sessions are told")
        print(f"told within {time.monotonic() - killed_at:.1f} s")
        assert {type(worker.failure) for worker in on_it} == {tclient.SessionLost}
        assert {str(worker.failure).count("its host is gone") for worker in on_it} == {1}
        await_steps(others)
        assert [worker.failure for worker in others] == [None] * len(others)
        # New sessions go to those that are left.
        left = [front for node, front in cluster.status()["fronts"].items() if node != victim]
        with working(left, 4) as more:
            await_steps(more)
            assert {worker.boot_id for worker in more} <= {worker.boot_id for worker in others}
        # Drain another.
        drained = cluster.nodes[1].node_id
        result = cluster.run("drain", drained)
        assert "is drained: 1 engines have ended" in result.output
        on_it = [worker for worker in others if there[worker.boot_id]["node"] == drained]
        others = [worker for worker in others if worker not in on_it]
        wait_until(lambda: all(worker.failure for worker in on_it), TIMEOUT_S, "its sessions are told")
        assert {str(worker.failure).count("its host is drained") for worker in on_it} == {1}
        await_steps(others)
        assert [worker.failure for worker in others] == [None] * len(others)
        assert len(cluster.status()["fronts"]) == 1
