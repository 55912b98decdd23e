"""A whole session under a name, and another one with all that it held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tclient as tc
from tclient._session import names
from tests.support.serving import ServerProcess


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that has a data directory."""
    with ServerProcess("--data-dir", str(tmp_path_factory.mktemp("data"))) as server:
        yield server.address


def test_another_session_has_what_was_kept_of_the_first(address: str) -> None:
    with tc.connect(address) as first:
        tc.set_default_dtype(tc.float64)
        tc.manual_seed(3)
        w = tc.ones(3, requires_grad=True)
        (w * w).sum().backward()
        w.name = "w"
        part = tc.zeros(6)
        part.name, part[2:4].name = "whole", "part"
        first.checkpoint("monday")
        expected = tc.rand(3).tolist()
        w.grad.zero_()
    with tc.connect(address):
        assert [(each.name, each.kind) for each in tc.names()] == [("monday", "checkpoint")]
    for _ in range(2):
        with tc.resume("monday", address) as session:
            assert tc.rand(3).tolist() == expected
            assert tc.get_default_dtype() is tc.float64
            found = session.tensors()
            assert sorted(found) == ["part", "w", "whole"]
            assert found["w"].requires_grad
            assert found["w"].grad.tolist() == [2.0] * 3
            found["whole"].add_(1)
            assert found["part"].tolist() == [1.0, 1.0]
            assert (tc.ones(2) + 1).tolist() == [2.0, 2.0]


def test_a_session_in_use_is_not_filled(address: str) -> None:
    with tc.connect(address) as session:
        x = tc.ones(2)
        session.checkpoint("used")
        with pytest.raises(ValueError, match="the session is in use"):
            names.resume(session, "used")
        assert x.tolist() == [1.0, 1.0]
        tc.forget("used")


def test_what_is_no_checkpoint_is_not_resumed_and_a_checkpoint_is_not_recalled(address: str) -> None:
    with tc.connect(address) as session:
        tc.keep("tensors", tc.ones(2))
        session.checkpoint("tuesday")
        with pytest.raises(ValueError, match="taken"):
            session.checkpoint("tuesday", overwrite=False)
        session.checkpoint("tuesday")
        with pytest.raises(ValueError, match="is a checkpoint of a session"):
            tc.recall("tuesday")
        with pytest.raises(ValueError, match="is no checkpoint"):
            tc.resume("tensors", address)
        with pytest.raises(KeyError, match="nothing is kept"):
            tc.resume("never", address)
        assert tc.ones(2).tolist() == [1.0, 1.0]
        tc.forget("tuesday")
        tc.forget("tensors")


def test_what_is_not_in_it_is_said(address: str) -> None:
    with tc.connect(address) as session:
        node = (tc.ones(2, requires_grad=True) * 2).grad_fn
        with pytest.warns(UserWarning, match="checkpoint 'nodes' is without id .*: a node of a graph"):
            session.checkpoint("nodes")
        assert node is not None
        tc.forget("nodes")


def test_a_damaged_checkpoint_is_refused_and_others_are_not(tmp_path: Path) -> None:
    with ServerProcess("--data-dir", str(tmp_path)) as server, tc.connect(server.address) as session:
        x = tc.arange(1000)
        x.name = "x"
        session.checkpoint("a")
        session.checkpoint("b")
        (path,) = tmp_path.glob("names/*/a/session-*.safetensors")
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
        with pytest.raises(tc.RequestRefused, match="damaged"):
            tc.resume("a", server.address)
        with tc.resume("b", server.address) as other:
            assert other.tensors()["x"].sum().item() == 499500


def test_a_lost_session_names_its_checkpoint(tmp_path: Path) -> None:
    with ServerProcess("--data-dir", str(tmp_path)) as server:
        session = tc.connect(server.address)
        x = tc.full((2,), 3.0)
        x.name = "x"
        session.checkpoint("last")
        server.terminate()
        with ServerProcess("--data-dir", str(tmp_path), listen=server.address):
            with pytest.raises(tc.SessionLost, match=r"earlier run.*; tclient.resume\('last'\) opens one with all"):
                x.tolist()
            session.close()
            with tc.resume("last", server.address) as resumed:
                assert resumed.tensors()["x"].tolist() == [3.0, 3.0]


def network() -> tc.nn.Sequential:
    """With what draws random numbers in each step."""
    return tc.nn.Sequential(tc.nn.Linear(4, 8), tc.nn.Dropout(0.3), tc.nn.Linear(8, 1))


def trained(model: tc.nn.Module, optimizer: tc.optim.Optimizer, steps: int) -> list[float]:
    """Its losses."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(tc.rand(16, 4)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_training_goes_on_from_a_checkpoint_with_a_model_and_an_optimiser_made_anew(address: str) -> None:
    with tc.connect(address) as session:
        tc.manual_seed(5)
        model = network()
        optimizer = tc.optim.Adam(model.parameters(), lr=0.01)
        trained(model, optimizer, 5)
        session.name(model, "model")
        tc.keep("training/optimizer", optimizer.state_dict())
        session.checkpoint("training")
        expected = trained(model, optimizer, 5)
    with tc.resume("training", address) as session:
        with tc.device("meta"):
            model = network()
        found = session.tensors()
        model.load_state_dict({name.removeprefix("model."): each for name, each in found.items()}, assign=True)
        optimizer = tc.optim.Adam(model.parameters(), lr=0.01)
        optimizer.load_state_dict(tc.recall("training/optimizer"))
        assert trained(model, optimizer, 5) == expected
