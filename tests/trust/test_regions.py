"""Regions of shared memory belong to who registered them, over gRPC and HTTP alike."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from tests.models.networks import create, relu_mlp
from tests.trust.principals import Server, oip, serving_principals
from tserver.front.oip import regions

ROWS = torch.arange(8, dtype=torch.float32).reshape(2, 4)
NETWORK = relu_mlp((4, 2))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that knows its callers; each has a model of the name "net"."""
    with serving_principals() as server:
        for who in ("alice", "bob"):
            create(server.raw(who), "net", NETWORK)
        yield server


@pytest.fixture
def shm() -> Iterator[Path]:
    """A shared memory object."""
    path = Path("/dev/shm") / f"tserver-region-{secrets.token_hex(4)}"
    path.write_bytes(ROWS.numpy().tobytes())
    yield path
    path.unlink()


@pytest.fixture
def region(server: Server, shm: Path) -> Iterator[Path]:
    """One that alice has registered as "r"."""
    alice = server.raw("alice")
    oip(alice, "SystemSharedMemoryRegister", name="r", key=f"/{shm.name}", byte_size=ROWS.nbytes)
    yield shm
    oip(alice, "SystemSharedMemoryUnregister")


def infer(server: Server, who: str, region: str) -> tuple[int, Any]:
    shared = {"shared_memory_region": region, "shared_memory_byte_size": ROWS.nbytes}
    given = {"name": "input", "datatype": "FP32", "shape": [2, 4], "parameters": shared}
    return server.http(who, "POST", "/v2/models/net/infer", {"inputs": [given]})


def names_of(server: Server, who: str) -> list[str]:
    grpc_ones = list(oip(server.raw(who), "SystemSharedMemoryStatus").regions)
    status, told = server.http(who, "GET", "/v2/systemsharedmemory/status")
    assert (status, [each["name"] for each in told]) == (200, grpc_ones)
    return grpc_ones


def test_a_region_is_its_principal_s_over_both_wires(server: Server, region: Path) -> None:
    assert (names_of(server, "alice"), names_of(server, "bob")) == (["r"], [])
    assert infer(server, "alice", "r")[0] == 200
    for who, name in (("bob", "r"), ("alice", "never")):
        status, told = infer(server, who, name)
        assert status == 404
        assert told["error"].startswith(f"no region of shared memory is registered as '{name}'")
        assert server.http(who, "GET", f"/v2/systemsharedmemory/region/{name}/status")[0] == 404
    for path in ("/region/r/unregister", "/unregister"):
        assert server.http("bob", "POST", f"/v2/systemsharedmemory{path}")[0] == 200
    oip(server.raw("bob"), "SystemSharedMemoryUnregister")
    assert names_of(server, "alice") == ["r"]


def test_a_name_may_be_taken_by_each(server: Server, region: Path, tmp_path: Path) -> None:
    other = region.with_name(f"{region.name}-of-bob")
    other.write_bytes((ROWS + 1).numpy().tobytes())
    try:
        body = {"key": f"/{other.name}", "byte_size": ROWS.nbytes}
        assert server.http("bob", "POST", "/v2/systemsharedmemory/region/r/register", body)[0] == 200
        for who, rows in (("alice", ROWS), ("bob", ROWS + 1)):
            _, told = infer(server, who, "r")
            wanted = NETWORK(rows).flatten()
            torch.testing.assert_close(torch.tensor(told["outputs"][0]["data"]), wanted)
    finally:
        oip(server.raw("bob"), "SystemSharedMemoryUnregister")
        other.unlink()


def test_an_object_of_another_s_region_is_not_there(server: Server, region: Path) -> None:
    linked = region.with_name(f"{region.name}-linked")
    linked.hardlink_to(region)
    try:
        told = []
        for key in (region.name, linked.name, "tserver-never"):
            with pytest.raises(grpc.RpcError) as refusal:
                oip(server.raw("bob"), "SystemSharedMemoryRegister", name="mine", key=f"/{key}", byte_size=4)
            told.append(str(refusal.value).replace(key, "KEY"))
        assert len(set(told)) == 1
    finally:
        linked.unlink()
    assert names_of(server, "bob") == []


def test_nobody_takes_the_regions_of_all(monkeypatch: pytest.MonkeyPatch, server: Server, region: Path) -> None:
    monkeypatch.setattr(regions, "_MAX_REGIONS", 1)
    alice, bob = server.raw("alice"), server.raw("bob")
    other = region.with_name(f"{region.name}-more")
    other.write_bytes(bytes(8))
    try:
        with pytest.raises(grpc.RpcError, match="1 regions are registered, which is the limit"):
            oip(alice, "SystemSharedMemoryRegister", name="s", key=f"/{other.name}", byte_size=4)
        oip(bob, "SystemSharedMemoryRegister", name="s", key=f"/{other.name}", byte_size=4)
    finally:
        oip(bob, "SystemSharedMemoryUnregister")
        other.unlink()
