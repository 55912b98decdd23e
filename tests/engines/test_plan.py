"""Which engines a house has: devices, ports, threads, and where a session goes."""

from __future__ import annotations

import pytest

from tserver.config import Config
from tserver.engines.placement import Load, choose, home
from tserver.engines.plan import Plan, by_engine, devices_of
from tserver.errors import Exhausted, InvalidArgument
from tserver.front.house_tensors import _as_the_house_counts

KEY = "k" * 64


@pytest.mark.parametrize(
    ("wish", "gpus", "devices"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cpu", 2, ["cpu"]),
        ("cuda", 2, ["cuda:0"]),
        ("cuda:all", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1, cpu", 2, ["cuda:1", "cpu"]),
    ],
)
def test_devices(wish: str, gpus: int, devices: list[str]) -> None:
    assert devices_of(wish, gpus) == devices


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("cuda:all", "no GPU"),
        ("cuda:2", "shows 1 GPUs"),
        ("cpu,cpu", "twice"),
        ("tpu", "'tpu' is not known"),
        ("", "'' is not known"),
    ],
)
def test_devices_that_cannot_be(wish: str, said: str) -> None:
    gpus = 0 if wish == "cuda:all" else 1
    with pytest.raises(InvalidArgument, match=said):
        devices_of(wish, gpus)


def test_each_engine_is_shown_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.engines.plan._shown", lambda: ["GPU-a", "GPU-b"])
    plan = Plan(Config(device="cuda:all"), KEY)
    assert plan.first == [("0", "cuda:0"), ("1", "cuda:1")]
    launch = plan.launch("1", "cuda:1")
    assert (launch.config.device, launch.gpus, launch.house.device) == ("cuda:0", ("GPU-b",), "cuda:1")


def test_an_engine_may_hold_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.engines.plan._shown", lambda: ["a", "b", "c", "d"])
    plan = Plan(Config(device="cuda:all", devices_per_engine=2), KEY)
    assert plan.first == [("0", "cuda:0"), ("1", "cuda:2")]
    launch = plan.launch("1", "cuda:2")
    assert (launch.config.device, launch.config.devices_per_engine, launch.gpus) == ("cuda:0", 2, ("c", "d"))
    assert launch.house.device == "cuda:2"


@pytest.mark.parametrize(
    ("devices", "count", "held"),
    [
        (["cuda:0", "cuda:1"], 1, {"cuda:0": ["cuda:0"], "cuda:1": ["cuda:1"]}),
        (["cuda:2", "cuda:3", "cpu"], 2, {"cuda:2": ["cuda:2", "cuda:3"], "cpu": ["cpu"]}),
        (["cpu"], 3, {"cpu": ["cpu"]}),
    ],
)
def test_gpus_are_divided_among_engines(devices: list[str], count: int, held: dict[str, list[str]]) -> None:
    assert by_engine(devices, count) == held


@pytest.mark.parametrize("devices", [["cuda:0"], ["cuda:0", "cuda:1", "cuda:2"], ["cuda:0", "cuda:2"]])
def test_gpus_that_cannot_be_divided_are_refused(devices: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="cannot be divided among engines of 2 GPUs"):
        by_engine(devices, 2)


@pytest.mark.parametrize(
    ("device", "first", "name"),
    [
        ("cuda:0", "cuda:3", "cuda:3"),
        ("cuda:1", "cuda:2", "cuda:3"),
        ("cpu", "cuda:2", "cpu"),
        ("cpu", "cpu", "cpu"),
        ("cuda:0", "cpu", "cuda:0"),
    ],
)
def test_a_house_counts_the_gpus_of_its_engines_on(device: str, first: str, name: str) -> None:
    assert _as_the_house_counts(device, first) == name


def test_engines_take_the_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.engines.plan._shown", lambda: ["0", "1"])
    plan = Plan(Config(device="cuda:all", engines=4), KEY)
    assert [device for _, device in plan.first] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert Plan(Config(device="cpu", engines=4), KEY).launch("0", "cpu").config.threads == 2
    assert Plan(Config(device="cpu", engines=4, threads=3), KEY).launch("0", "cpu").config.threads == 3


def test_advertised_ports_are_taken_in_turn_and_given_back() -> None:
    plan = Plan(Config(device="cpu", engines=2, listen="0.0.0.0:50051", advertise="gpu.example:6000-6003"), KEY)
    listens = [plan.launch(engine, "cpu").config for engine in ("0", "1")]
    assert [each.listen for each in listens] == ["0.0.0.0:6000", "0.0.0.0:6002"]
    assert [each.data_listen for each in listens] == ["0.0.0.0:6001", "0.0.0.0:6003"]
    assert plan.endpoint("0.0.0.0:6002") == "gpu.example:6002"
    with pytest.raises(Exhausted, match="ports for 2 engines"):
        plan.launch("2", "cpu")
    plan.release("0")
    assert plan.launch("2", "cpu").config.listen == "0.0.0.0:6000"
    # One that comes again has its place.
    assert plan.launch("1", "cpu").config.listen == "0.0.0.0:6002"


@pytest.mark.parametrize("advertise", ["host:1", "host:2-1", "host:0-5", "host:1-99999", "a b"])
def test_what_cannot_be_advertised(advertise: str) -> None:
    with pytest.raises(InvalidArgument, match="--advertise"):
        Plan(Config(device="cpu", engines=2, advertise=advertise), KEY)


@pytest.mark.parametrize(
    ("config", "bound", "told"),
    [
        (Config(listen="127.0.0.1:50051"), "127.0.0.1:40001", ":40001"),
        (Config(listen="0.0.0.0:50051"), "0.0.0.0:40001", ":40001"),
        (Config(listen="[::1]:50051"), "[::1]:40001", ":40001"),
        (Config(listen="unix:/run/t.sock"), "unix:/run/t.sock.0", "unix:/run/t.sock.0"),
        (Config(listen="0.0.0.0:50051", front_only=True), "0.0.0.0:40001", ""),
    ],
)
def test_what_clients_are_told_of_an_engine(config: Config, bound: str, told: str) -> None:
    assert Plan(config, KEY).endpoint(bound) == told


def test_the_key_is_in_no_name() -> None:
    plan = Plan(Config(device="cpu", engines=2), KEY)
    assert KEY not in plan.front + plan.internal("0") + plan.name


def test_a_session_goes_where_there_is_room_and_little_to_do() -> None:
    full, busy, idle = Load("0", "cpu", 10), Load("1", "cpu", 900, sessions=3), Load("2", "cpu", 1000, sessions=2)
    assert choose([full, busy, idle]) is idle
    idle.placed = 2
    assert choose([full, busy, idle]) is busy
    busy.takes_sessions = idle.takes_sessions = False
    assert choose([full, busy, idle]) is full


def test_a_device_that_is_wished() -> None:
    loads = [Load("0", "cuda:0"), Load("1", "cuda:1"), Load("2", "cpu")]
    assert choose(loads, "cuda:1").engine == "1"
    assert choose(loads, "cuda").device.startswith("cuda")
    with pytest.raises(InvalidArgument, match="no engine has the device 'cuda:7'; there are cpu, cuda:0, cuda:1"):
        choose(loads, "cuda:7")
    loads[2].takes_sessions = False
    with pytest.raises(Exhausted):
        choose(loads, "cpu")
    with pytest.raises(Exhausted):
        choose([])


def test_only_the_principals_of_an_engine_move_when_it_goes() -> None:
    engines = [str(index) for index in range(8)]
    homes = {principal: home(engines, principal) for principal in map(str, range(1000))}
    assert set(homes.values()) == set(engines)
    engines.remove("3")
    for principal, before in homes.items():
        assert (home(engines, principal) == before) == (before != "3")
