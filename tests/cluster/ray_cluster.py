"""A Ray cluster on this machine, on loopback alone, and `tserver cluster` in this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click.testing

from tests.support.serving import server_environment
from tserver.cli import main

# Ray asks for the machine's own address elsewhere, reports its use to its makers, and takes its time until it calls a
# node dead.
_RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# It reads them once, when it is imported.
os.environ |= _RAY
_SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
_NODE = {"include_dashboard": False, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}


class RayCluster:
    """Nodes, which are processes here, and what is up on them."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "num_cpus": 1, "_system_config": _SOON})
        self.nodes: list[Any] = [self._cluster.head_node]
        self.nodes += [self._cluster.add_node(num_cpus=1, **_NODE) for _ in range(nodes - 1)]
        self.address: str = self._cluster.address

    def run(self, command: str, *options: str) -> click.testing.Result:
        """Run a command of `tserver cluster`."""
        return click.testing.CliRunner().invoke(main, ["cluster", command, "--ray-address", self.address, *options])

    def up(self, engines: int, *options: str) -> list[str]:
        """Have engines; where the fronts listen."""
        result = self.run(
            "up", "--listen", "127.0.0.1:0", "--engines", str(engines), "--drain-s", "2", "--start-s", "100", *options
        )
        assert result.exit_code == 0, result.output
        return [line.removeprefix("listening on ") for line in result.output.splitlines()]

    def status(self) -> dict[str, Any]:
        """What the directory knows."""
        import ray

        from tserver.cluster.spec import DIRECTORY, NAMESPACE

        told: dict[str, Any] = ray.get(ray.get_actor(DIRECTORY, NAMESPACE).status.remote())
        return told

    def kill_node(self, node: str) -> None:
        """End a node at once, and all that runs on it."""
        (found,) = [each for each in self.nodes if each.node_id == node]
        self._cluster.remove_node(found, allow_graceful=False)

    def kill_actor(self, name: str, *, comes_again: bool = False) -> None:
        """End an actor, and its child with it."""
        import ray

        from tserver.cluster.spec import NAMESPACE

        ray.kill(ray.get_actor(name, NAMESPACE), no_restart=not comes_again)

    def shutdown(self) -> None:
        """End Ray here."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """A cluster of so many nodes, each with one CPU."""
    before = dict(os.environ)
    # For the processes of Ray.
    os.environ |= {**_RAY, "PYTHONPATH": server_environment()["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    try:
        cluster = RayCluster(nodes)
        try:
            yield cluster
        finally:
            cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ |= before
