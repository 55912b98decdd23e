"""The manifests of a house on one node are valid, and agree with the server, the image and each other."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import click.testing
import kubernetes_validate
import pytest

from tests.deploy.manifests import (
    VERSIONS,
    Manifest,
    admitted,
    check_labels,
    check_pod,
    environment,
    of,
    one,
    ports_of,
    validate,
)
from tserver import supervisor
from tserver.cli import serve
from tserver.config import Config


@pytest.fixture
def pod() -> Manifest:
    """The house's pod."""
    return dict(one("kubernetes", "StatefulSet")["spec"]["template"])


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    """The server's container in it."""
    (only,) = pod["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", of("kubernetes"), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_valid_and_has_no_unknown_field(manifest: Manifest, version: str) -> None:
    validate(manifest, version)


def test_the_validator_refuses_a_field_that_is_misspelt() -> None:
    wrong = one("kubernetes", "StatefulSet")
    container = wrong["spec"]["template"]["spec"]["containers"][0]
    container["readinessProb"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProb"):
        validate(wrong, VERSIONS[0])


def test_the_pod_is_fenced_in_and_is_the_user_of_the_image(pod: Manifest) -> None:
    check_pod(pod)


def test_the_settings_are_options_that_the_server_takes(container: Manifest) -> None:
    settings = {name: value for name, value in environment(container).items() if name.startswith("TSERVER_")}
    assert {name.removeprefix("TSERVER_").lower() for name in settings} <= {field.name for field in fields(Config)}
    assert container["args"][0] == "serve"
    taken: dict[str, Any] = {}
    command = copy.copy(serve)
    command.callback = taken.update
    result = click.testing.CliRunner().invoke(command, container["args"][1:], env=settings)
    assert result.exit_code == 0, result.output
    assert taken.pop("print_config") is False
    assert Config(**taken).is_house
    data = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data")
    assert taken["data_dir"].startswith(data + "/")


def test_the_ports_agree(container: Manifest) -> None:
    settings = environment(container)
    port = int(settings["TSERVER_LISTEN"].rpartition(":")[2])
    metrics = int(settings["TSERVER_METRICS_LISTEN"].rpartition(":")[2])
    assert {entry["name"]: entry["containerPort"] for entry in container["ports"]} == {"grpc": port, "metrics": metrics}
    assert {container[name]["grpc"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")} == {port}
    engines = ports_of(settings["TSERVER_ADVERTISE"])
    assert len(engines) == 2 * container["resources"]["limits"]["nvidia.com/gpu"]
    assert admitted("kubernetes") == {port, *engines}
    for name in ("tensor-compute", "tensor-compute-front"):
        assert [entry["port"] for entry in one("kubernetes", "Service", name)["spec"]["ports"]] == [port]


def test_the_name_that_engines_are_told_under_is_that_of_the_pod(container: Manifest) -> None:
    service = one("kubernetes", "Service")
    assert service["spec"]["clusterIP"] == "None"
    name = service["metadata"]["name"]
    assert one("kubernetes", "StatefulSet")["spec"]["serviceName"] == name
    assert environment(container)["TSERVER_ADVERTISE"].startswith(f"$(POD_NAME).{name}.$(POD_NAMESPACE).svc:")
    # Kubernetes puts in only what stands before.
    names = [entry["name"] for entry in container["env"]]
    assert max(names.index("POD_NAME"), names.index("POD_NAMESPACE")) < names.index("TSERVER_ADVERTISE")


def test_the_pod_gets_the_time_that_its_drain_takes(pod: Manifest, container: Manifest) -> None:
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = float(environment(container)["TSERVER_DRAIN_S"])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= before + drain_s + supervisor.GRACE_S


def test_what_selects_pods_selects_these(pod: Manifest) -> None:
    check_labels("kubernetes", pod["metadata"]["labels"])
