"""Fixtures of the contract's tests: raw sessions and sessionless connections on the shared server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.raw import Raw, RawSession
from tests.support.relay import relayed
from tests.support.serving import HasAddress, ServerProcess
from tests.support.values import Kept

# What is also sent through a front by default; the long run sends all.
THROUGH_FRONT = ("test_bad_uploads", "test_garbage", "test_typed_calls")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Send all that is sent to the shared server also through a front."""
    if "road" in metafunc.fixturenames:
        is_quick = metafunc.module.__name__.rpartition(".")[2] in THROUGH_FRONT
        marks = () if is_quick else pytest.mark.slow
        metafunc.parametrize("road", ["direct", pytest.param("front", marks=marks)], scope="session")


@pytest.fixture(scope="session")
def server(server: ServerProcess, road: str) -> Iterator[HasAddress]:
    """The shared server, or a front that forwards to it."""
    if road == "direct":
        yield server
        return
    with relayed(server.address) as front:
        yield front


@pytest.fixture
def anyone(server: HasAddress) -> Iterator[Raw]:
    """A connection without a session. What it leaves in the shared session is let go."""
    with Raw(server.address) as raw:
        yield raw
        left = raw.ask("ListTensors").tensors
        raw.ask("FreeTensors", tensors=[tensor.id for tensor in left])


@pytest.fixture(scope="session")
def wire(server: HasAddress) -> Iterator[Raw]:
    """One connection for the sessions of all these tests: a new one for each would take longer than most tests."""
    with Raw(server.address) as raw:
        yield raw


@pytest.fixture
def session(wire: Raw) -> Iterator[RawSession]:
    """A session of its own."""
    with wire.open_session() as session:
        yield session


@pytest.fixture
def other(wire: Raw) -> Iterator[RawSession]:
    """A second session."""
    with wire.open_session() as session:
        yield session


@pytest.fixture(params=["session", "anyone"], ids=["with a session", "without a session"])
def caller(request: pytest.FixtureRequest, server: HasAddress) -> Any:
    """Whoever may use the typed RPCs, on either road to the server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bystander(wire: Raw) -> Iterator[RawSession]:
    """Another session with a tensor and a random state, both of which must come through whatever the test does."""
    with wire.open_session() as session:
        numbers = torch.arange(12.0).reshape(3, 4)
        kept = Kept(session.id())
        session.run(session.call(kept.id, "tensor", numbers.tolist()), session.call(0, "manual_seed", 7)).clean()
        before = session.held()
        yield session
        assert torch.equal(session.read(kept), numbers)
        assert session.held() == before
        drawn = session.make("rand", 5)
        assert torch.equal(session.read(drawn), torch.rand(5, generator=torch.Generator().manual_seed(7)))


@pytest.fixture
def nothing_leaks(session: RawSession, bystander: RawSession) -> Iterator[RawSession]:
    """A session that must hold at the end what it held at the beginning, and still work."""
    before = session.held()
    yield session
    assert session.held() == before
    total = session.make("tensor", [1, 2, 3])
    assert session.read(total).tolist() == [1, 2, 3]
    session.run(frees=[total.id]).clean()
    assert session.held() == before
