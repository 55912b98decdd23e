"""Fixtures of the served models' tests: raw connections, and networks that are gone at the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.raw import Raw, RawSession
from tests.support.serving import HasAddress

_NUMBERS = itertools.count(1)


@pytest.fixture
def anyone(server: HasAddress) -> Iterator[Raw]:
    """A connection without a session."""
    with Raw(server.address) as raw:
        yield raw


@pytest.fixture
def session(server: HasAddress) -> Iterator[RawSession]:
    """A session of its own, on a connection of its own."""
    with RawSession(server.address) as session:
        yield session


@pytest.fixture
def new_name(anyone: Raw) -> Iterator[Callable[[], str]]:
    """Names for networks, all versions of which are let go at the end."""
    given: list[str] = []

    def make() -> str:
        given.append(f"served-{next(_NUMBERS)}")
        return given[-1]

    yield make
    for left in {mlp.name for mlp in anyone.ask("ListMlps").mlps} & set(given):
        anyone.ask("DeleteMlp", name=left)


@pytest.fixture
def name(new_name: Callable[[], str]) -> str:
    """One such name."""
    return new_name()
