"""What a person is told who has no Ray, another Ray, no cluster, or wishes what cannot be."""

from __future__ import annotations

import builtins
import platform
import socket
from typing import Any

import click.testing
import pytest

from tserver.cli import main
from tserver.cluster.connection import ClusterError, connect, mismatch
from tserver.cluster.ports import Ports
from tserver.cluster.spec import Spec
from tserver.config import Config

# Ray's own words, as version 2.60 has them.
ANOTHER_RAY = """Version mismatch: The cluster was started with:
    Ray: 2.51.0
    Python: 3.11.7
This process on Ray Cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClusterError, match=r"pip install 'tclient\[cluster\]'"):
        connect("auto", "anything")


def test_another_version_of_ray_is_named_with_the_remedy() -> None:
    text = mismatch(ANOTHER_RAY, "2.60.0")
    here = platform.python_version()
    assert text.startswith(f"the cluster has Ray 2.51.0 on Python 3.11.7, and here is Ray 2.60.0 on Python {here}")
    assert "pip install ray==2.51.0 here" in text


def test_another_version_of_python_is_named_with_the_remedy() -> None:
    text = mismatch(ANOTHER_RAY.replace("Ray: 2.51.0\n    Python: 3.11.7", "Ray: 2.60.0\n    Python: 3.9.2"), "2.60.0")
    assert "on Python 3.9.2" in text
    assert "use that Python here" in text


def test_other_complaints_of_ray_are_no_mismatch() -> None:
    assert mismatch("it rains", "2.60.0") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--isolation", "session"], "--isolation: the engines of a cluster are shared"),
        (["--oip-listen", "127.0.0.1:1"], "do not speak the Open Inference Protocol"),
        (["--listen", "0.0.0.0:50051"], "there is no TLS"),
        (["--engines-per-gpu", "2", "--devices-per-engine", "2"], "--engines-per-gpu has engines share a GPU"),
    ],
    ids=["isolation", "the Open Inference Protocol", "no TLS", "parts of several GPUs"],
)
def test_settings_that_cannot_be_are_refused_before_ray_is_asked(options: list[str], said: str) -> None:
    result = click.testing.CliRunner().invoke(main, ["cluster", "up", *options])
    assert result.exit_code == 2
    assert said in result.output


def test_engines_listen_where_the_front_does() -> None:
    assert Spec(Config(listen="127.0.0.1:0"), "", "").host("10.1.2.3") == "127.0.0.1"
    assert Spec(Config(listen="0.0.0.0:50051"), "", "").host("10.1.2.3") == "10.1.2.3"
    assert Spec(Config(listen="[::]:50051"), "", "").host("fd00::1") == "[fd00::1]"


def test_engines_that_share_a_gpu_are_given_a_part_of_it_and_name_it_as_one() -> None:
    spec = Spec(Config(), "a key", "", engines_per_gpu=3)
    assert 3 * spec.resources()["num_gpus"] <= 1
    assert [spec.house(str(index), "", "").device for index in range(6)] == ["cuda:0"] * 3 + ["cuda:1"] * 3
    assert Spec(Config(), "a key", "", engines_per_gpu=1).resources()["num_gpus"] == 1
    assert "num_gpus" not in Spec(Config(), "a key", "").resources()


def test_engines_that_hold_several_gpus_are_given_them_and_are_as_many_fewer() -> None:
    spec = Spec(Config(devices_per_engine=2), "a key", "", engines_per_gpu=1)
    assert (spec.resources()["num_gpus"], spec.engines_on(8), spec.engines_on(5)) == (2, 4, 2)
    assert [spec.house(str(index), "", "").device for index in range(3)] == ["cuda:0", "cuda:2", "cuda:4"]
    assert spec.engine_config("127.0.0.1:0", "").devices_per_engine == 2
    assert Spec(Config(devices_per_engine=2), "a key", "").engine_config("127.0.0.1:0", "").devices_per_engine == 1
    assert Spec(Config(), "a key", "", engines_per_gpu=3).engines_on(2) == 6


def test_a_port_of_the_range_is_taken_that_nobody_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        ports = Ports(f"example.org:{first}-{first + 6}", "127.0.0.1", "10.1.2.3")
        ports.choose()
        chosen = int(ports.listen.rpartition(":")[2])
        assert first < chosen < first + 6
        assert ports.endpoint(ports.listen) == f"example.org:{chosen}"
        ports.choose()
        assert ports.listen == f"127.0.0.1:{chosen}"


def test_an_advertised_range_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="lower port first"):
        Ports("example.org:9-3", "127.0.0.1", "10.1.2.3")
