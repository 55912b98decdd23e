"""Fixtures of the Open Inference Protocol's tests: a server that allows all of it, and clients of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import grpc
import pytest
import torch
from torch import nn

from tests.models.networks import create, relu_mlp
from tests.oip.triton import Triton, processes
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, serving

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def open_server() -> Iterator[ServerProcess]:
    """A server whose listeners for the protocol allow all that can be allowed."""
    addresses = ("--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    with serving(*addresses, "--oip-model-control", "--oip-shared-memory") as running:
        yield running


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    """The process that Triton's client runs in."""
    with processes() as pool:
        yield pool


@pytest.fixture(scope="session")
def http_pool() -> Iterator[ProcessPoolExecutor]:
    """That of its client for HTTP, whose gevent goes badly together with gRPC."""
    with processes() as pool:
        yield pool


@pytest.fixture
def triton(open_server: ServerProcess, pool: ProcessPoolExecutor) -> Triton:
    """Triton's client on that server."""
    return Triton(listener(open_server, "oip"), pool)


@pytest.fixture
def triton_http(open_server: ServerProcess, http_pool: ProcessPoolExecutor) -> Triton:
    """Triton's client for HTTP on that server."""
    return Triton(listener(open_server, "http"), http_pool, "http")


@pytest.fixture
def oip(open_server: ServerProcess) -> Iterator[Any]:
    """A channel to that listener."""
    with grpc.insecure_channel(listener(open_server, "oip")) as channel:
        yield channel


@pytest.fixture
def http(open_server: ServerProcess) -> Iterator[Caller]:
    """A connection to its listener for HTTP."""
    with Caller(listener(open_server, "http")) as caller:
        yield caller


@pytest.fixture
def raw(open_server: ServerProcess) -> Iterator[Raw]:
    """A connection to that server's main listener."""
    with Raw(open_server.address) as raw:
        yield raw


@pytest.fixture
def keep(raw: Raw) -> Iterator[Callable[..., tuple[str, nn.Sequential]]]:
    """Keeps networks on that server, which are gone at the end: gives the name and torch's own."""
    names: list[str] = []

    def make(*sizes: int, dtype: torch.dtype = torch.float32, **fields: Any) -> tuple[str, nn.Sequential]:
        name = f"triton-{next(_NUMBERS)}"
        network = relu_mlp(sizes or (4, 8, 3), dtype)
        create(raw, name, network, **fields)
        names.append(name)
        return name, network

    yield make
    for name in names:
        raw.ask("DeleteMlp", name=name)


@pytest.fixture
def kept(keep: Callable[..., tuple[str, nn.Sequential]]) -> tuple[str, nn.Sequential]:
    """One such network, of 4 inputs and 3 outputs."""
    return keep()
