"""A cluster of one node, from up to down, with real Ray. More of it is in test_three_nodes.py."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

import tclient
from tests.cluster.ray_cluster import RayCluster, ray_cluster
from tests.support.serving import wait_until

TIMEOUT_S = 30.0

# Half a minute, where nothing else runs.
pytestmark = pytest.mark.timeout(300)


def boots(cluster: RayCluster) -> set[str]:
    """The runs of engines that serve."""
    return {engine["boot_id"] for engine in cluster.status()["engines"]}


def test_engines_are_had_on_ray_and_one_that_is_killed_comes_again() -> None:
    with ray_cluster(1) as cluster:
        (front,) = cluster.up(2, "--cpus-per-engine", "0.5", "--front-only")
        # Said again, it finds all there.
        assert cluster.up(2, "--cpus-per-engine", "0.5", "--front-only") == [front]
        told = {engine["engine"]: engine for engine in cluster.status()["engines"]}
        assert told.keys() == {"0", "1"}
        shown = cluster.run("status").output
        assert all(engine["endpoint"] in shown for engine in told.values())
        with contextlib.ExitStack() as opened:
            tensors = {}

            def open_one() -> bool:
                session = opened.enter_context(tclient.Session.open(front))
                tensors[session.opened.boot_id] = tclient.ones(3)
                return tensors.keys() == {engine["boot_id"] for engine in told.values()}

            wait_until(open_one, TIMEOUT_S, "both have a session: the front asks them every second", interval_s=0.2)
            os.kill(told["0"]["pid"], signal.SIGKILL)
            wait_until(lambda: boots(cluster) - tensors.keys() != set(), TIMEOUT_S, "the engine is back")
            assert tensors[told["1"]["boot_id"]].sum().item() == 3
            with pytest.raises(tclient.SessionLost, match="SIGKILL"):
                tensors[told["0"]["boot_id"]].sum().item()
        assert "2 engines have ended" in cluster.run("down").output
        assert "no cluster is up" in cluster.run("status").output
