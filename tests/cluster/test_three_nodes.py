"""Three nodes under load, of which one is killed and one is drained. Takes minutes: `make test-cluster`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
import torch

import tclient
from tensorcompute.v1 import model_service_pb2 as ms
from tests.cluster.ray_cluster import RayCluster, ray_cluster
from tests.models.networks import create, forward, relu_mlp
from tests.support.raw import Raw
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
NETWORK = relu_mlp([6, 5, 3])
ROWS = torch.linspace(-1, 1, 12).reshape(2, 6)


class Asker(threading.Thread):
    """A client without a session, which has a model run again and again."""

    def __init__(self, front: str) -> None:
        super().__init__(daemon=True)
        self.front = front
        self.answers = 0
        self.failures: list[BaseException] = []
        self.is_stopping = False

    def run(self) -> None:
        raw = Raw(self.front)
        wanted = NETWORK(ROWS)
        while not self.is_stopping:
            try:
                torch.testing.assert_close(forward(raw, "net", ROWS), wanted)
                self.answers += 1
            except (grpc.RpcError, AssertionError) as error:
                self.failures.append(error)
        raw.close()


@contextlib.contextmanager
def asking(front: str) -> Iterator[Asker]:
    """Somebody asks all the while."""
    asker = Asker(front)
    asker.start()
    wait_until(lambda: asker.answers > 20, TIMEOUT_S, "the model answers")
    try:
        yield asker
        answers = asker.answers
        wait_until(lambda: asker.answers > answers + 20, TIMEOUT_S, "the model still answers")
    finally:
        asker.is_stopping = True
        asker.join(TIMEOUT_S)


def keep_model(front: str) -> None:
    """Have a model on all engines."""
    raw = Raw(front)
    create(raw, "net", NETWORK)
    wait_until(lambda: len(replicas_of(raw)) == NODES, TIMEOUT_S, "the model is on all engines", 0.2)
    raw.close()


def replicas_of(raw: Raw) -> list[str]:
    """Where it serves."""
    replicas = raw.ask("DescribeMlp", name="net").mlp.replicas
    return [replica.engine for replica in replicas if replica.state == ms.MLP_STATE_READY]


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
    try:
        yield workers
    finally:
        for worker in workers:
            worker.is_stopping = True
        for worker in workers:
            worker.join(TIMEOUT_S)


def engines(cluster: RayCluster) -> dict[str, dict[str, str]]:
    """Those that serve, by their runs."""
    return {engine["boot_id"]: engine for engine in cluster.status()["engines"]}


def await_spread(fronts: list[str], boots: set[str]) -> None:
    """Wait until sessions come to all engines, of which a front hears within a second or two."""
    for front in fronts:
        with contextlib.ExitStack() as opened:
            found: set[str] = set()

            def open_one(front: str = front, opened: contextlib.ExitStack = opened, found: set[str] = found) -> bool:
                found.add(opened.enter_context(tclient.Session.open(front)).opened.boot_id)
                return found == boots

            wait_until(open_one, TIMEOUT_S, "sessions come to all engines", 0.2)


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
    fronts = cluster.up(NODES)
    assert len(fronts) == NODES
    there = engines(cluster)
    by_node = Counter(engine["node"] for engine in there.values())
    assert len(by_node) == NODES, "an engine on each node"
    told = cluster.status()
    # The head holds Ray's own memory. Of the others the one is killed that does not keep the models.
    head, *others_there = [node.node_id for node in cluster.nodes]
    victim, drained = sorted(others_there, key=lambda node: node == told["leader"])
    # Who calls an address that is gone needs another one.
    home = [told["fronts"][head], told["fronts"][drained]]
    keep_model(home[0])
    await_spread(home, set(there))
    with asking(home[0]) as asker, working(home, 9) as workers:
        await_steps(workers)
        assert {worker.boot_id for worker in workers} == there.keys()
        cluster.kill_node(victim)
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
        with working(home, 4) as more:
            await_steps(more)
            assert {worker.boot_id for worker in more} <= {worker.boot_id for worker in others}
        result = cluster.run("drain", drained)
        assert "is drained: 1 engines have ended" in result.output
        on_it = [worker for worker in others if there[worker.boot_id]["node"] == drained]
        others = [worker for worker in others if worker not in on_it]
        wait_until(lambda: all(worker.failure for worker in on_it), TIMEOUT_S, "its sessions are told")
        assert {str(worker.failure).count("its host is drained") for worker in on_it} == {1}
        await_steps(others)
        assert [worker.failure for worker in others] == [None] * len(others)
        assert cluster.status()["fronts"].keys() == {head}
    assert asker.failures == []


def test_nobody_notices_when_the_directory_begins_anew(cluster: RayCluster) -> None:
    fronts = cluster.up(NODES)
    there, leader = engines(cluster), cluster.status()["leader"]
    keep_model(fronts[0])
    with asking(fronts[0]) as asker, working(fronts, 6) as workers:
        await_steps(workers)
        from ray.exceptions import RayError

        cluster.kill_actor("directory", comes_again=True)

        def knows_all() -> bool:
            with contextlib.suppress(RayError):
                return engines(cluster) == there and cluster.status()["leader"] == leader
            return False

        wait_until(knows_all, TIMEOUT_S, "it knows all again", 0.2)
        await_steps(workers)
        assert [worker.failure for worker in workers] == [None] * len(workers)
    assert asker.failures == []


def test_when_the_front_that_keeps_the_models_goes_another_one_does(cluster: RayCluster) -> None:
    cluster.up(NODES)
    told = cluster.status()
    keep_model(told["fronts"][told["leader"]])
    elsewhere = next(front for node, front in told["fronts"].items() if node != told["leader"])
    with asking(elsewhere) as asker:
        cluster.kill_actor(f"front-{told['leader']}")
        wait_until(lambda: cluster.status()["leader"] != told["leader"], TIMEOUT_S, "another front keeps them", 0.2)
    # What was under way there, and nothing else.
    assert len(asker.failures) <= 1
    raw = Raw(elsewhere)
    assert len(replicas_of(raw)) == NODES
    raw.close()
