"""Every RPC of every service on every port, and every path of HTTP, asked for by who has no valid credentials.

What there is to ask for is not listed here: it is what the server says by reflection, and what its routes are. So a new
RPC is attacked as soon as it is there.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.callers import HEALTH, TENSORS, Caller, bearer, token_of
from tests.support.listeners import listener
from tests.support.serving import serving, wait_until
from tserver.config import Config
from tserver.credentials import tokens
from tserver.front.http.messages import Route
from tserver.front.metrics import Metrics
from tserver.front.oip.routes import InferenceRoutes
from tserver.front.page.routes import PageRoutes

Code = grpc.StatusCode
# Who fails often is told to wait, which says as little.
REFUSALS = {
    (Code.UNAUTHENTICATED, "no valid credentials"),
    (Code.RESOURCE_EXHAUSTED, "too many callers of this host have shown no valid credentials"),
}
OPEN = {HEALTH, "/grpc.health.v1.Health/Watch"}
OPEN_PATHS = {"/v2/health/live", "/v2/health/ready"}


class Guarded(NamedTuple):
    """A server that asks for tokens, and who has one; `engine` is the address of one of its engines."""

    ports: dict[str, str]
    http: dict[str, str]
    admin: str
    shown: dict[str, tuple[tuple[str, str | bytes], ...]]


def _shown(file: Path, is_known: Any) -> dict[str, tuple[tuple[str, str | bytes], ...]]:
    """What attackers show, by what it is."""
    ended = token_of(file, "eve", lasts_s=2.0)
    revoked = token_of(file, "eve")
    good = token_of(file, "eve")
    wait_until(lambda: is_known(good), 5.0, "the new tokens")
    tokens.revoke(file, tokens.listed(file)[-2].id)
    wait_until(lambda: not is_known(revoked), 5.0, "the revocation")
    wait_until(lambda: not is_known(ended), 5.0, "the end of a token")
    return {
        "nothing": (),
        "an unknown token": bearer("tcs_" + "x" * 43),
        "a token that is over": bearer(ended),
        "a revoked token": bearer(revoked),
        "a token without its last character": bearer(good[:-1]),
        "a token in another case": bearer(good.swapcase()),
        "another scheme": (("authorization", f"Basic {good}"),),
        "no scheme": (("authorization", good),),
        "a very long one": bearer("x" * 7000),
        "a binary header": (("authorization-bin", f"Bearer {good}".encode()),),
        "the header of a house": (
            ("tensorcompute-house", ""),
            ("tensorcompute-identity-bin", b'{"principal":"root","role":3}'),
        ),
    }


@pytest.fixture(scope="module", params=["one server", "a house"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("every")
    file = folder / tokens.NAME
    admin, ada = token_of(file, "root", "admin"), token_of(file, "ada")
    ports = [part for name in ("oip", "http", "metrics") for part in (f"--{name}-listen", "127.0.0.1:0")]
    house = ["--engines", "2"] if request.param == "a house" else []
    with serving("--data-dir", str(folder), *ports, *house) as server, Caller(server.address) as caller:
        addresses = {"main": server.address, "oip": listener(server, "oip")}
        if house:
            addresses["engine"] = f"127.0.0.1{caller.open(ada).endpoint}"
        shown = _shown(file, lambda token: caller.told(f"{TENSORS}/GetServerInfo", token=token)[0] is Code.OK)
        http = {name: listener(server, name) for name in ("http", "metrics")}
        yield Guarded(addresses, http, admin, shown)


def _services(caller: Caller, token: str) -> list[str]:
    """The paths of all RPCs that a port tells of, and of reflection itself."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(caller.channel)

    def ask(**what: Any) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**what)
        return next(iter(stub.ServerReflectionInfo(iter([request]), metadata=bearer(token), timeout=20)))

    paths = []
    for service in ask(list_services="").list_services_response.service:
        for data in ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for each in file.service:
                if f"{file.package}.{each.name}" == service.name:
                    paths += [f"/{service.name}/{method.name}" for method in each.method]
    return paths


@pytest.mark.parametrize("port", ["main", "oip", "engine"])
def test_no_rpc_answers_who_has_no_valid_credentials(guarded: Guarded, port: str) -> None:
    if port not in guarded.ports:
        return  # one server is its own engine
    with Caller(guarded.ports[port]) as caller:
        paths = _services(caller, guarded.admin) if port != "engine" else []
        if port == "engine":
            with Caller(guarded.ports["main"]) as front:
                paths = _services(front, guarded.admin)
        assert len(paths) > 15
        assert OPEN & set(paths)
        answered = []
        for path in sorted(set(paths) - OPEN):
            for what, metadata in guarded.shown.items():
                call: Any = caller.channel.unary_unary(path)
                try:
                    call(b"", timeout=10.0, metadata=metadata)
                    answered.append((path, what, "OK"))
                except grpc.RpcError as error:
                    if (error.code(), error.details()) not in REFUSALS:
                        answered.append((path, what, f"{error.code()}: {error.details()}"))
        assert answered == []


def served_routes() -> list[Route]:
    """All that answers over HTTP."""
    engine: Any = mock.MagicMock()
    # The files of the page are open, and are the same for everybody.
    page = [route for route in PageRoutes(engine).routes() if route.needs is not None]
    return [*InferenceRoutes(Config(), engine).routes(), *Metrics(engine, engine).routes(), *page]


def _path(route: Route) -> str:
    """One of its paths."""
    return re.sub(r"\{\w+\}", "x", route.path).replace("[", "").replace("]", "")


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_no_path_of_http_answers_who_has_no_valid_credentials(guarded: Guarded, port: str) -> None:
    answered = []
    routes = served_routes()
    assert len(routes) > 20
    for route in routes:
        path = _path(route)
        assert route.match(path) is not None, path
        if path in OPEN_PATHS:
            continue
        for what, metadata in guarded.shown.items():
            headers = {name: str(value) for name, value in metadata if not name.endswith("-bin")}
            body = b"{}" if route.method == "POST" else None
            asked = urllib.request.Request(f"http://{guarded.http[port]}{path}", body, headers, method=route.method)
            try:
                status = urllib.request.urlopen(asked, timeout=10.0).status
            except urllib.error.HTTPError as error:
                status = error.code
            # The port of metrics has nothing else.
            if status not in ({401, 429} | ({404} if port == "metrics" and path != "/metrics" else set())):
                answered.append((route.method, path, what, status))
    assert answered == []


def test_what_is_open_says_no_more_than_that_it_is_there(guarded: Guarded) -> None:
    with Caller(guarded.ports["main"]) as caller:
        assert caller.ask(HEALTH) == b"\x08\x01"
    for path in OPEN_PATHS:
        with urllib.request.urlopen(f"http://{guarded.http['http']}{path}", timeout=10.0) as answer:
            assert len(answer.read()) < 20


def test_after_all_that_who_has_credentials_is_served(guarded: Guarded) -> None:
    began = time.monotonic()
    with Caller(guarded.ports["main"]) as caller:
        assert caller.ask(f"{TENSORS}/GetServerInfo", b"", guarded.admin)
    assert time.monotonic() - began < 5.0, "strangers do not make others wait"
