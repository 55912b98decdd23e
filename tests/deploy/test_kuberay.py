"""The manifests of a cluster of Ray have what KubeRay knows, and agree with the server, the image and each other."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version

import pytest

from tests.deploy.manifests import (
    VERSIONS,
    Manifest,
    admitted,
    check_labels,
    check_pod,
    of,
    one,
    ports_of,
    validate,
)
from tserver import supervisor

# The fields of https://github.com/ray-project/kuberay/blob/master/ray-operator/apis/ray/v1/raycluster_types.go that are
# used here, and whether each must be there.
CLUSTER = {"rayVersion": False, "headGroupSpec": True, "workerGroupSpecs": False}
HEAD = {"rayStartParams": True, "template": True}
WORKERS = {**HEAD, "groupName": True, "replicas": False, "minReplicas": True, "maxReplicas": True}


@pytest.fixture
def cluster() -> Manifest:
    """The cluster."""
    return one("kuberay", "RayCluster")


@pytest.fixture
def pods(cluster: Manifest) -> list[Manifest]:
    """The head's pod, and a worker's."""
    spec = cluster["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "manifest", [each for each in of("kuberay") if each["kind"] != "RayCluster"], ids=lambda each: str(each["kind"])
)
def test_a_manifest_is_valid_and_has_no_unknown_field(manifest: Manifest, version: str) -> None:
    validate(manifest, version)


def test_the_cluster_has_the_fields_that_kuberay_knows(cluster: Manifest) -> None:
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    groups = [(spec, CLUSTER), (spec["headGroupSpec"], HEAD), *((group, WORKERS) for group in spec["workerGroupSpecs"])]
    for group, known in groups:
        assert group.keys() <= known.keys()
        assert {name for name, must in known.items() if must} <= group.keys()
        assert all(isinstance(value, str) for value in group.get("rayStartParams", {}).values())


@pytest.mark.parametrize("version", VERSIONS)
def test_its_pods_are_valid(pods: list[Manifest], version: str) -> None:
    for pod in pods:
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **pod}, version)


def test_its_pods_are_fenced_in_and_are_the_user_of_the_image(pods: list[Manifest]) -> None:
    for pod in pods:
        check_pod(pod)


def test_the_version_of_ray_is_the_one_that_the_image_has(cluster: Manifest) -> None:
    assert cluster["spec"]["rayVersion"] == installed_version("ray")


def test_the_ports_agree(pods: list[Manifest]) -> None:
    head, workers = (pod["spec"]["containers"][0] for pod in pods)
    command = head["args"][0]
    found = re.search(r"--listen 0\.0\.0\.0:(\d+)", command)
    assert found
    port = int(found[1])
    engines = ports_of(command)
    assert len(engines) >= 2 * workers["resources"]["limits"]["nvidia.com/gpu"]
    assert admitted("kuberay") == {port, *engines}
    assert workers["startupProbe"]["grpc"]["port"] == workers["readinessProbe"]["grpc"]["port"] == port
    assert [entry["port"] for entry in one("kuberay", "Service")["spec"]["ports"]] == [port]


def test_a_node_gets_the_time_that_its_drain_takes(pods: list[Manifest]) -> None:
    head, workers = (pod["spec"] for pod in pods)
    found = re.search(r"--drain-s (\d+)", head["containers"][0]["args"][0])
    assert found
    assert workers["terminationGracePeriodSeconds"] >= int(found[1]) + 2 * supervisor.GRACE_S
    assert "cluster drain" in str(workers["containers"][0]["lifecycle"]["preStop"])


def test_what_selects_pods_selects_the_workers(cluster: Manifest) -> None:
    # KubeRay gives them these.
    check_labels("kuberay", {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": "worker"})
