"""The compose file agrees with the server and the image: what it mounts and publishes is what the server uses.

Docker is not needed: the server is started as the container would start it, with its folders and ports mapped.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import yaml

from tests.support.listeners import listener
from tests.support.serving import ROOT, ServerProcess
from tserver.cli import serve
from tserver.config import Config

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
SERVERS = {name: each for name, each in COMPOSE["services"].items() if each["image"].startswith("tensor-compute")}
# Who would wait for a health check that costs as much as this does nothing else.
HEALTH_TIMEOUT_S = 5.0


def interpolated(text: str, **given: str) -> str:
    """What compose makes of `${NAME:-default}`."""
    return re.sub(r"\$\{(\w+):-(\w+)\}", lambda found: given.get(found[1], found[2]), text)


def settings(service: dict[str, Any], **given: str) -> dict[str, str]:
    """The server's variables in a container: those of the image, and those of the compose file."""
    image = dict(re.findall(r"(TSERVER_\w+)=(\S+)", DOCKERFILE))
    return image | {name: interpolated(value, **given) for name, value in service["environment"].items()}


def config_of(service: dict[str, Any], **given: str) -> Config:
    """What the server makes of its command and those."""
    taken: dict[str, Any] = {}
    command = copy.copy(serve)
    command.callback = taken.update
    arguments = service["command"]
    assert arguments[0] == "serve"
    result = click.testing.CliRunner().invoke(command, arguments[1:], env=settings(service, **given))
    assert result.exit_code == 0, result.output
    return Config(**{field.name: taken[field.name] for field in fields(Config)})


def published(service: dict[str, Any], **given: str) -> dict[int, int]:
    """The ports in the container, and where each is on the host; all on loopback."""
    found = {}
    for text in service["ports"]:
        host, outer, inner = interpolated(text, **given).split(":")
        assert host == "127.0.0.1"
        found[int(inner)] = int(outer)
    return found


@pytest.fixture(params=SERVERS)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each that is a server of ours."""
    return dict(SERVERS[request.param])


def test_every_variable_is_a_setting(service: dict[str, Any]) -> None:
    known = {f"TSERVER_{field.name.upper()}" for field in fields(Config)}
    assert settings(service).keys() <= known


def test_the_ports_that_are_published_are_those_that_the_server_listens_on(service: dict[str, Any]) -> None:
    listeners = config_of(service).listeners()
    assert len(listeners) == 5
    assert {address.rpartition(":")[0] for address in listeners.values()} == {"0.0.0.0"}
    assert {int(address.rpartition(":")[2]) for address in listeners.values()} == set(published(service))


def test_clients_reach_the_data_endpoint_by_the_port_that_the_server_tells_them(service: dict[str, Any]) -> None:
    for given in ({}, {"TSERVER_DATA_PORT": "6000", "TSERVER_PORT": "6001"}):
        port = int(config_of(service, **given).data_listen.rpartition(":")[2])
        assert published(service, **given)[port] == port


def test_all_that_lasts_is_on_the_volume_and_all_else_cannot_be_written(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    (volume,) = service["volumes"]
    name, _, path = volume.partition(":")
    assert name in COMPOSE["volumes"]
    (home,) = re.findall(r"^VOLUME \[\"(.*)\"\]", DOCKERFILE, re.MULTILINE)
    assert path == home
    config = config_of(service)
    places = [getattr(config, field.name) for field in fields(Config) if field.name.endswith("_dir")]
    assert [place for place in places if place] == [config.data_dir]
    assert Path(home) in Path(config.data_dir).parents
    assert service["tmpfs"] == ["/tmp"]


def test_the_image_checks_health_and_compose_leaves_it_that(service: dict[str, Any]) -> None:
    assert "healthcheck" not in service
    assert 'CMD ["healthy"]' in DOCKERFILE
    assert "COPY --chmod=755 docker/healthy.sh /usr/local/bin/healthy" in DOCKERFILE
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "!docker/healthy.sh" in ignored


def is_healthy(http: str) -> bool:
    done = subprocess.run(
        ["bash", str(ROOT / "docker" / "healthy.sh")],
        env={"PATH": os.environ["PATH"], "TSERVER_HTTP_LISTEN": http},
        capture_output=True,
        timeout=HEALTH_TIMEOUT_S,
        check=False,
    )
    return done.returncode == 0


def test_models_survive_the_container_and_the_health_check_knows_whether_it_runs(tmp_path: Path) -> None:
    import tclient

    service = SERVERS["cpu"]
    home = service["volumes"][0].partition(":")[2]
    mapped = {name: value.replace(home, str(tmp_path / "volume")) for name, value in settings(service).items()}
    mapped = {name: re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", value) for name, value in mapped.items()}
    (tmp_path / "volume").mkdir()
    rows = np.ones((1, 4), np.float32)
    outputs = []
    for life in range(2):
        with ServerProcess(*service["command"][1:], env=mapped) as server, tclient.connect(server.address):
            http = listener(server, "http")
            assert is_healthy(http)
            if life == 0:
                tclient.models.create("digits", tclient.nn.MLP([4, 3]))
            outputs.append(tclient.models.get("digits")(rows).tolist())
            assert {"oip", "metrics"} <= {line.partition(" ")[0] for line in server.stdout}
    assert outputs[0] == outputs[1]
    assert not is_healthy(http)
    shutil.rmtree(tmp_path / "volume")
