"""The client before the real services in one process, without a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import tclient
from tclient._session.session import Session
from tests.support.in_memory import serving_in_memory
from tserver.config import Config
from tserver.engine.engine import Engine


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    # It makes torch ready for a process of its own.
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    with (
        serving_in_memory(Config(device="cpu")) as channel,
        Session.open("127.0.0.1:1", transport=channel) as session,
    ):
        yield session


def test_the_client_works_without_a_socket(session: Session) -> None:
    y = x = tclient.ones(3, 4)
    for _ in range(1000):
        y = y + x
    assert y.sum().item() == 12.0 * 1001
    large = np.arange(1_000_000.0)
    assert np.array_equal((tclient.from_numpy(large) + 1).numpy(), large + 1)
    with pytest.raises(RuntimeError, match="must match the size"):
        (tclient.ones(2) + tclient.ones(3)).tolist()
    weight = tclient.ones(4, requires_grad=True)
    (x @ weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0] * 4
    assert session.stats.uploads == session.stats.downloads == 1


def test_served_forwards_work_without_a_socket(session: Session) -> None:
    served = tclient.models.create("adder", [(np.ones((2, 3), np.float32), None, None)])
    answers: list[np.ndarray] = [np.empty(0)] * 8

    def ask(number: int) -> None:
        answers[number] = served(np.full((1, 3), number, np.float32))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.tolist() for answer in answers] == [[[3.0 * number] * 2] for number in range(8)]
