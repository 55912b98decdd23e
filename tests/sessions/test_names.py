"""Tensors with names: the session keeps them, and whoever has the session finds them by those."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

import tclient
from tclient import Session, nn
from tclient._transport.channel import TENSOR_SERVICE
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tests.support.raw import RawSession
from tests.support.serving import HasAddress, ServerProcess, server_environment
from tests.support.values import Kept


@pytest.fixture
def session(server: HasAddress) -> Iterator[Session]:
    with tclient.connect(server.address) as session:
        yield session


def attached(session: Session) -> Session:
    """The same session in another process, as far as anybody can tell."""
    return tclient.attach(session.detach())


def test_without_a_name_it_is_what_torch_says(tc: ModuleType) -> None:
    local: Any = torch.ones(2)
    assert tc.ones(2).name is local.name is None


def test_a_named_tensor_is_kept_and_found(session: Session) -> None:
    x = tclient.arange(4.0)
    x.name = "weights"
    assert x.name == "weights"
    del x
    found = session.tensors()
    assert list(found) == ["weights"]
    assert found["weights"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert found["weights"].name == "weights"
    assert found.others == ()


def test_what_is_found_is_the_very_tensor(session: Session) -> None:
    x = tclient.ones(3, requires_grad=True)
    x.name = "x"
    y = session.tensors()["x"]
    assert y.requires_grad
    assert y.is_leaf
    (y * 2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0, 2.0]
    with tclient.no_grad():
        y += 1
    assert x.tolist() == [2.0, 2.0, 2.0]


def test_a_name_is_of_one_tensor_and_a_tensor_has_one_name(session: Session) -> None:
    x, y = tclient.zeros(1), tclient.ones(1)
    x.name = "a"
    y.name = "a"
    assert [each.name for each in (x, y)] == [None, "a"]
    y.name = "b"
    x.name = "c"
    assert {key: each.item() for key, each in session.tensors().items()} == {"b": 1.0, "c": 0.0}
    y.name = None
    assert list(session.tensors()) == ["c"]
    del y
    x.name = None
    del x
    tclient.synchronize()
    assert session.tensors() == {}


def test_names_take_their_place_among_the_calls(session: Session) -> None:
    x = tclient.zeros(2)
    for step in range(3):
        x = x + 1
        x.name = "last"
        assert tclient.ones(step + 1).sum().item() == step + 1
    assert session.tensors()["last"].tolist() == [3.0, 3.0]


def test_memory_goes_when_neither_a_name_nor_anybody_holds_it(session: Session, server: HasAddress) -> None:
    def held_bytes() -> int:
        session.synchronize()
        tclient.zeros(()).item()  # what was dropped goes with a call
        request = rpc.ListTensorsRequest(context=rpc.SessionContext(session=session.secret))
        told: rpc.ListTensorsResponse = session.channel.call(
            TENSOR_SERVICE + "ListTensors", request, rpc.ListTensorsResponse
        )
        return told.total_bytes

    x = tclient.zeros(100_000)
    x.name = "x"
    assert held_bytes() >= 400_000
    del x
    assert held_bytes() >= 400_000
    y = tclient.zeros(1)
    y.name = "x"
    assert held_bytes() < 400_000


@pytest.mark.parametrize(
    ("wanted", "error"),
    [(7, TypeError), (b"x", TypeError), ("", ValueError), ("x" * 2000, ValueError)],
    ids=["a number", "bytes", "nothing", "too long"],
)
def test_other_names_are_refused(session: Session, wanted: object, error: type[Exception]) -> None:
    x = tclient.ones(1)

    def give() -> None:
        x.name = wanted  # type: ignore[assignment]
        tclient.synchronize()

    with pytest.raises(error, match="name of a tensor"):
        give()
    assert x.name is None


def test_the_name_of_what_failed_is_told_of(session: Session) -> None:
    x = tclient.ones(2, 3) @ tclient.ones(2, 3)
    x.name = "product"
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tclient.synchronize()
    assert session.tensors() == {}


def test_every_parameter_and_buffer_of_a_module_gets_a_name(session: Session) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    session.name(model, "model")
    wanted = {f"model.{key}": each.tolist() for key, each in model.state_dict().items()}
    del model
    second = attached(session)
    found = second.tensors()
    assert {key: each.tolist() for key, each in found.items()} == wanted
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    other.load_state_dict({key.removeprefix("model."): each for key, each in found.items()})
    assert other[0].weight.tolist() == wanted["model.0.weight"]
    second.close()


def test_what_somebody_left_without_a_name_can_be_taken_or_freed(session: Session) -> None:
    x, y = tclient.arange(6.0).reshape(2, 3), tclient.ones(5, dtype=tclient.int64)
    z = tclient.arange(9.0).split(3)
    z[1].name = "named"
    numbers = x._ref.id, y._ref.id
    second = attached(session)
    found = second.tensors()
    left = {each.id: each for each in found.others}
    held = left[numbers[0]]
    assert (held.shape, held.dtype, held.size_bytes) == ((2, 3), tclient.float32, 24)
    assert second.secret.hex() not in repr(held)
    parts = [each for each in found.others if each.path]
    assert sorted(each.path for each in parts) == [(0,), (2,)]
    assert [each.take().tolist() for each in parts] == [[0.0, 1.0, 2.0], [6.0, 7.0, 8.0]]
    taken = held.take()
    assert taken.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    left[numbers[1]].free()
    assert tclient.ones(1).item() == 1.0
    assert {each.id for each in second.tensors().others}.isdisjoint(numbers)
    second.close()


def test_names_are_listed_to_other_languages(server: HasAddress) -> None:
    with RawSession(server.address) as raw:
        x = raw.make("ones", [2])
        raw.run(raw.call(0, "tc.name", x, "weights")).clean()
        page = raw.ask("ListTensors")
        assert [each.name for each in page.names] == ["weights"]
        number = page.names[0].tensor.id
        assert [each.same_as.id for each in page.tensors if each.id.id == x.id] == [number]
        assert raw.get(Kept(number)).tolist() == [1.0, 1.0]
        # Freed by its id, it has no name any more.
        raw.ask("FreeTensors", tensors=[page.names[0].tensor])
        assert raw.run(raw.call(0, "tc.names")).value() == []
        raw.run(raw.call(0, "tc.name", x, "again")).clean()
        assert raw.run(raw.call(0, "tc.name_of", x)).value() == "again"


FIRST = """
import sys
import tclient as torch
from tclient import nn

session = torch.connect(sys.argv[1])
torch.manual_seed(0)
model = nn.Linear(3, 1)
optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
session.name(model, "model")
x = torch.arange(12.0).reshape(4, 3) / 10
x.name = "x"
session.credentials().save(sys.argv[2])
for step in range(5):
    optimiser.zero_grad()
    model(x).square().mean().backward()
    optimiser.step()
torch.synchronize()
print("ready", flush=True)
sys.stdin.readline()
try:
    print(model.weight.tolist(), flush=True)
except torch.SessionTakenOver as error:
    print("taken over", flush=True)
# It ends without a word to the server.
import os
os._exit(0)
"""


@pytest.mark.parametrize("is_alive", [True, False], ids=["is alive", "has ended"])
def test_another_process_goes_on_where_the_first_one_was(
    server: ServerProcess, tmp_path: object, is_alive: bool
) -> None:
    path = f"{tmp_path}/session"
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST, server.address, path],
        env=server_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "ready\n"
        if not is_alive:
            first.kill()
            first.wait(20)
        with tclient.attach(path) as session:
            found = session.tensors()
            assert list(found) == ["model.weight", "model.bias", "x"]
            weight, bias = found["model.weight"], found["model.bias"]
            optimiser = tclient.optim.SGD([weight, bias], lr=0.1)
            for _ in range(5):
                optimiser.zero_grad()
                nn.functional.linear(found["x"], weight, bias).square().mean().backward()
                optimiser.step()
            assert torch.allclose(torch.tensor(weight.tolist()), _trained(10))
            if is_alive:
                first.stdin.write("\n")
                first.stdin.flush()
                assert first.stdout.readline() == "taken over\n"
                assert first.wait(20) == 0
            assert torch.allclose(torch.tensor(weight.tolist()), _trained(10))
    finally:
        first.kill()
        first.wait(20)
        first.stdin.close()
        first.stdout.close()


def _trained(steps: int) -> torch.Tensor:
    """The same by torch alone."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.arange(12.0).reshape(4, 3) / 10
    for _ in range(steps):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    return model.weight.detach()
