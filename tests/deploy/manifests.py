"""The manifests in deploy/, and what Kubernetes would say of them."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import yaml

from tests.support.serving import ROOT

# `preStop` that sleeps is of 1.30.
VERSIONS = ["1.30", "1.37"]
FILES = sorted((ROOT / "deploy").rglob("*.yaml"))

Manifest = dict[str, Any]


def of(folder: str) -> list[Manifest]:
    """All manifests of a folder."""
    return [
        manifest
        for path in FILES
        if path.parent.name == folder
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def one(folder: str, kind: str, name: str = "tensor-compute") -> Manifest:
    """The one manifest of a folder of this kind and name."""
    (found,) = [each for each in of(folder) if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def validate(manifest: Manifest, version: str) -> None:
    """Refuse what Kubernetes would refuse, and fields that it does not know."""
    kubernetes_validate.validate(manifest, version, strict=True)


def check_pod(pod: Manifest) -> None:
    """A pod is fenced in, and is the user of the image, which is ours."""
    spec = pod["spec"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\1$", dockerfile, re.M)
    (home,) = re.findall(r"^WORKDIR (/var\S+)", dockerfile, re.M)
    (image,) = re.findall(r"^IMAGE_NAME := (\S+)", makefile, re.M)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert {spec["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].partition(":")[0] == image
        assert {"/tmp", home} <= {mount["mountPath"] for mount in container["volumeMounts"]}


def check_labels(folder: str, labels: dict[str, str]) -> None:
    """Services, budgets and policies select the pods that have these labels."""
    for manifest in of(folder):
        spec = manifest["spec"]
        chosen = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        }.get(manifest["kind"])
        assert chosen is None or chosen(spec).items() <= labels.items(), manifest["kind"]


def environment(container: Manifest) -> dict[str, str]:
    """The variables of a container that are said by value."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def admitted(folder: str) -> set[int]:
    """The ports that clients are let in to."""
    rules = one(folder, "NetworkPolicy")["spec"]["ingress"]
    return {
        port
        for rule in rules
        if "tensor-compute/client" in str(rule["from"])
        for entry in rule["ports"]
        for port in range(entry["port"], entry.get("endPort", entry["port"]) + 1)
    }


def ports_of(advertised: str) -> range:
    """The ports that `--advertise` gives to engines."""
    found = re.search(r":(\d+)-(\d+)", advertised)
    assert found, advertised
    return range(int(found[1]), int(found[2]) + 1)
