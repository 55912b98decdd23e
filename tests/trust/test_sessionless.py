"""Callers without a session: what they make belongs to the principal, or where nobody is known, to the connection."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

from tests.models.networks import create, relu_mlp
from tests.support.raw import Raw
from tests.support.refusals import refused
from tests.support.serving import ServerProcess
from tests.support.values import tensor_data
from tests.trust.principals import Server, serving_principals

Code = grpc.StatusCode
ROWS = torch.arange(4, dtype=torch.float32)
HERE, THERE = "ipv4:192.0.2.1:5001", "ipv4:192.0.2.1:5002"


@pytest.fixture(scope="module")
def open_server() -> Iterator[Server]:
    """One that knows nobody by credentials."""
    with serving_principals(known=False) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that does."""
    with serving_principals() as server:
        yield server


def check_apart(one: Raw, other: Raw) -> None:
    """What one makes is not there for the other."""
    kept = one.create(data=tensor_data(ROWS)).id
    before = other.held()
    assert kept.id not in {meta.id.id for meta in other.ask("ListTensors").tensors}
    asked: dict[str, dict[str, Any]] = {
        "GetTensor": {"tensor": kept},
        "Reshape": {"input": kept, "shape": [2, 2]},
        "FreeTensors": {"tensors": [kept]},
    }
    for method, fields in asked.items():
        with refused(Code.NOT_FOUND, naming=f"id {kept.id}"):
            other.ask(method, **fields)
    assert other.held() == before
    assert torch.equal(one.get(kept), ROWS)
    one.ask("FreeTensors", tensors=[kept])


def test_connections_of_nobody_who_is_known_share_nothing(open_server: Server) -> None:
    check_apart(open_server.raw("", peer=HERE), open_server.raw("", peer=THERE))
    check_apart(open_server.raw("", peer=HERE), open_server.raw(""))


def test_callers_of_one_connection_share(open_server: Server) -> None:
    kept = open_server.raw("", peer=HERE).create(data=tensor_data(ROWS)).id
    assert torch.equal(open_server.raw("", peer=HERE).get(kept), ROWS)


def test_callers_of_this_machine_share_where_nobody_is_known(open_server: Server) -> None:
    kept = open_server.raw("", peer="ipv4:127.0.0.1:5001").create(data=tensor_data(ROWS)).id
    assert torch.equal(open_server.raw("", peer="unix:").get(kept), ROWS)


def test_principals_share_nothing_and_connections_of_one_share(server: Server) -> None:
    alice = server.raw("alice", peer=HERE)
    check_apart(alice, server.raw("bob", peer=HERE))
    check_apart(alice, server.raw("root", "admin", peer=HERE))
    kept = alice.create(data=tensor_data(ROWS)).id
    assert torch.equal(server.raw("alice", peer=THERE).get(kept), ROWS)


def test_who_has_no_credentials_makes_nothing(server: Server) -> None:
    with refused(Code.UNAUTHENTICATED, naming="no valid credentials"):
        server.raw("").create(data=tensor_data(ROWS))


def address_of_this_machine() -> str:
    """One that is not loopback; empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent.
        probe.connect(("192.0.2.254", 9))
        return str(probe.getsockname()[0])
    return ""


@pytest.mark.skipif(
    not address_of_this_machine(),
    reason="this machine has loopback alone: https://datatracker.ietf.org/doc/html/rfc1122",
)
def test_real_connections_of_nobody_who_is_known_share_nothing() -> None:
    host = address_of_this_machine()
    with (
        ServerProcess("--insecure", listen=f"{host}:0") as server,
        Raw(server.address) as one,
        Raw(server.address) as other,
    ):
        check_apart(one, other)
        create(one, "net", relu_mlp((4, 2)))
        assert [mlp.name for mlp in other.ask("ListMlps").mlps] == ["net"]
