"""Servers with a page, and what they hold: sessions, tensors, a network that was trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import tclient as tc
from tclient.models import ServedModel
from tests.support.http import Caller, Reply
from tests.support.listeners import listener
from tests.support.serving import ServerProcess, serving


@dataclass
class Shown:
    """A server, and what a session of it has made."""

    server: ServerProcess
    http: str
    session: Any
    served: ServedModel

    def ask(self, path: str, **headers: str) -> Reply:
        """What is read at a path under /api/v1."""
        with Caller(self.http) as caller:
            return caller.ask("GET", f"/api/v1/{path}", b"", **{"Host": self.http, **headers})

    def told(self, path: str) -> Any:
        """The same, which goes well."""
        reply = self.ask(path)
        assert reply.status == 200, reply.body
        return reply.json


def train() -> ServedModel:
    """A small network, trained on two rings, and served."""
    tc.manual_seed(0)
    angle = tc.rand(400) * 6.2832
    radius = tc.cat([tc.ones(200), tc.ones(200) * 2]) + tc.randn(400) * 0.15
    inputs = tc.stack([radius * tc.cos(angle), radius * tc.sin(angle)], 1)
    labels = tc.cat([tc.zeros(200), tc.ones(200)]).long()
    net = tc.nn.Sequential(tc.nn.Linear(2, 32), tc.nn.Tanh(), tc.nn.Linear(32, 16), tc.nn.ReLU(), tc.nn.Linear(16, 2))
    optimiser = tc.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = tc.nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5
    served = tc.models.create("rings", net)
    for rows in (1, 1, 1, 4, 4, 16):
        served(tc.randn(rows, 2))
    train.kept = [net, optimiser, inputs, labels]  # type: ignore[attr-defined]
    return served


@contextlib.contextmanager
def shown(*options: str) -> Iterator[Shown]:
    """A server with a page, and a session that has trained a network and made some errors."""
    with serving("--http-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *options) as server:
        session = tc.connect(server.address)
        try:
            served = train()
            session.kept = [  # type: ignore[attr-defined]
                tc.randn(2048, 1024),
                tc.arange(100).reshape(10, 10),
                tc.sin(tc.linspace(0, 12, 300)),
                tc.randn(6, 3, 20, 30),
                tc.tensor(float("nan")),
            ]
            tc.synchronize()
            with contextlib.suppress(Exception):
                tc.models.get("no such model")
            yield Shown(server, listener(server, "http"), session, served)
        finally:
            session.close()


@pytest.fixture(scope="module")
def page() -> Iterator[Shown]:
    """One server."""
    with shown() as found:
        yield found
