"""What a principal's sessions hold together, and what it keeps: no more than it may, and less when it lets go."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import torch

import tclient as tc
from tclient import Session
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.serving import wait_until
from tests.support.values import tensor_data
from tests.trust.principals import Server, serving_principals
from tserver.errors import Exhausted
from tserver.front.principal_metrics import MOST, families
from tserver.limits.account import Account
from tserver.limits.file import Limits

BYTES, TENSORS, MODELS, DISK = 1_000_000, 200, 2, 500_000
FILE = f"""
[default]
device_bytes = {BYTES}
tensors = {TENSORS}
models = {MODELS}
disk_bytes = {DISK}

[principal."free"]
device_bytes = 0
tensors = 0
"""
# A tensor of so many elements is nearly half of what there is.
MANY = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("limits") / "limits.toml"
    path.write_text(FILE)
    with serving_principals(tmp_path_factory.mktemp("data"), limits=str(path)) as server:
        yield server


@pytest.fixture
def opened(server: Server) -> Iterator[Callable[[str], Session]]:
    """Opens sessions of principals."""
    made: list[Session] = []

    def open_one(name: str) -> Session:
        made.append(Session.open("127.0.0.1:1", transport=server.raw(name).channel, lane=False))
        return made[-1]

    yield open_one
    for session in made:
        session.close()


def use(server: Server, name: str) -> dict[str, tuple[float, float]]:
    """The limits of a principal, and what it uses of them."""
    gc.collect()
    return {each.name: (each.limit, each.used) for each in server.raw(name).ask("GetServerInfo").own_limits}


def held(server: Server, name: str) -> tuple[float, float]:
    """Bytes and tensors."""
    told = use(server, name)
    return told["device_bytes"][1], told["tensors"][1]


def goes_to(server: Server, name: str, what: tuple[float, float]) -> None:
    """Wait until a principal holds so much: what a client drops, the server hears of a little later."""
    wait_until(lambda: held(server, name) == what, 10.0, f"{what}")


def test_all_sessions_of_a_principal_hold_no_more_than_it_may(server: Server, opened: Any) -> None:
    one, two, other = opened("ann"), opened("ann"), opened("bob")
    with one.use():
        x = tc.ones(MANY)
        tc.synchronize()
    with two.use():
        y = tc.ones(MANY)
        tc.synchronize()
        assert held(server, "ann") == (2 * 4 * MANY, 2)
        with pytest.raises(tc.MemoryLimitReached, match="free tensors, or close sessions") as refusal:
            (y + 1).sum().item()
        told = refusal.value
        assert (told.name, told.limit, told.used, told.asked) == ("device_bytes", BYTES, 8 * MANY, 4 * MANY)
        assert isinstance(told, tc.OutOfMemoryError)
        # What takes no more goes on.
        y.add_(1)
        assert y.sum().item() == 2 * MANY
    with other.use():
        assert (tc.ones(MANY) + 1).sum().item() == 2 * MANY
    with one.use():
        del x
        goes_to(server, "ann", (4 * MANY, 1))
    with two.use():
        # Nobody has told of what the other session has let go.
        assert (y + 1).sum().item() == 3 * MANY


def test_a_principal_has_no_more_tensors_than_it_may(server: Server, opened: Any) -> None:
    with opened("tim").use():
        kept = [tc.ones(99) for _ in range(TENSORS)]
        tc.synchronize()
        with pytest.raises(tc.MemoryLimitReached, match="tensors: you use 200, 99 more asked for"):
            kept[0].unbind()[0].item()
        del kept[100:]
        parts = kept[0].unbind()
        tc.synchronize()
        assert held(server, "tim")[1] == 199
        del kept, parts
        goes_to(server, "tim", (0, 0))


def test_an_upload_counts_from_its_beginning(server: Server) -> None:
    raw = server.raw("uma")
    with raw.open_session() as session:
        data = bytes(4 * MANY)
        for number in (1, 2):
            session.upload(_header(session, number), [data])
        assert held(server, "uma") == (8 * MANY, 0)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="device_bytes") as told:
            session.upload(_header(session, 3), [])
        assert (told.metadata["used"], told.metadata["asked"]) == (str(8 * MANY), str(4 * MANY))
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="device_bytes"):
            session.create(zeros={}, shape=[MANY])
    goes_to(server, "uma", (0, 0))


def _header(session: RawSession, number: int) -> ts.UploadHeader:
    return ts.UploadHeader(context=session.context(), id=number, dtype=pb.D_TYPE_FLOAT32, shape=[MANY])


def closed(session: Session, other: Session) -> None:
    """All of a session goes."""
    with session.use():
        x = tc.ones(MANY // 2, requires_grad=True)
        (x * 2).sum().backward()
        tc.synchronize()
    session.close()


def moved(session: Session, other: Session) -> None:
    """It goes to another session, and from there to nowhere."""
    with session.use():
        x = tc.ones(MANY)
        tc.synchronize()
        y = tc.move(x, other)
        del x
        tc.synchronize()
    with other.use():
        assert y.sum().item() == MANY
        del y
        tc.synchronize()


def cast(session: Session, other: Session) -> None:
    """It is taken as another type."""
    with session.use():
        x = tc.ones(MANY)
        y = x.to(tc.float16)
        z = x.cpu()
        tc.synchronize()
        del x, y, z
        tc.synchronize()


def shared(session: Session, other: Session) -> None:
    """It is shared with another session, which keeps it longer."""
    with session.use():
        x = tc.ones(MANY)
        y = tc.share(x, with_session=other)
    with other.use():
        assert y.sum().item() == MANY
    session.close()
    with other.use():
        z = tc.ones(MANY)
        z.sum().item()
        with pytest.raises(tc.MemoryLimitReached):
            tc.ones(MANY).sum().item()
        del y, z
        tc.synchronize()


@pytest.mark.parametrize("go", [closed, moved, cast, shared], ids=lambda each: each.__name__)
def test_what_a_principal_lets_go_it_gets_back(
    go: Callable[[Session, Session], None], server: Server, opened: Any, request: pytest.FixtureRequest
) -> None:
    name = f"eve {go.__name__}".replace(" ", "-")
    go(opened(name), opened(name))
    goes_to(server, name, (0, 0))


def mlp(raw: Any, name: str, rows: int = 100) -> Any:
    """Make a model."""
    weight = ms.Operand(data=tensor_data(torch.ones(rows, 100)))
    return raw.ask("CreateMlp", name=name, layers=[ms.LayerSpec(in_features=100, out_features=rows, weight=weight)])


def test_a_principal_registers_no_more_models_than_it_may(server: Server) -> None:
    ann, bob = server.raw("mia"), server.raw("moe")
    mlp(ann, "one")
    mlp(ann, "two")
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="delete models first") as told:
        mlp(ann, "three")
    assert {**told.metadata, "reason": told.reason}.items() >= {("name", "models"), ("used", "2"), ("limit", "2")}
    assert told.retry_after_s is None
    mlp(bob, "three")
    ann.ask("DeleteMlp", name="one")
    mlp(ann, "three")
    assert use(server, "mia")["models"] == (2, 2)


def test_a_principal_keeps_no_more_on_disk_than_it_may(server: Server, opened: Any) -> None:
    ann, session = server.raw("kim"), opened("kim")
    mlp(ann, "one")
    used = use(server, "kim")["disk_bytes"][1]
    assert 40_000 < used < 60_000
    with session.use():
        tc.keep("x", tc.ones(MANY))
        with pytest.raises(tc.UseLimitReached, match="forget names, or delete models") as refusal:
            tc.keep("y", tc.ones(MANY))
        assert (refusal.value.name, refusal.value.limit) == ("disk_bytes", DISK)
        with pytest.raises(tc.UseLimitReached, match="disk_bytes"):
            session.checkpoint("all")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LIMIT", naming="disk_bytes"):
            mlp(ann, "two", rows=1000)
        tc.forget("x")
    ann.ask("DeleteMlp", name="one")
    assert use(server, "kim")["disk_bytes"] == (DISK, 0)


def test_metrics_tell_of_each_principal_and_of_no_more_than_a_hundred() -> None:
    accounts = [Account(f"p{number}", Limits(models=1)) for number in range(MOST + 5)]
    for each in accounts:
        each.total_calls, each.total_s = 2, 0.5
        with pytest.raises(Exhausted):
            each.check("models", 1)
    sessions = {each.principal: 1 for each in accounts}
    found = {family.name: family.samples for family in families(accounts, sessions, {"p1": (7, 3), "p104": (1, 1)})}
    calls = {each.labels["principal"]: each.value for each in found["tensorcompute_principal_calls"]}
    assert len(calls) == MOST + 1
    assert (calls["p0"], calls["other"]) == (2, 10)
    held = {each.labels["principal"]: each.value for each in found["tensorcompute_principal_device_bytes"]}
    assert held == {"p1": 7, "other": 1}
    refused_ = {tuple(each.labels.values()): each.value for each in found["tensorcompute_principal_refusals"]}
    assert refused_["other", "models"] == 5
