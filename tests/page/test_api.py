"""What the page reads, over HTTP from a real server: true, bounded, and each caller's own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tclient as tc
from tests.support.callers import Caller as GrpcCaller
from tests.support.callers import token_of
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.serving import serving, wait_until
from tserver.front.page.engine_page import EnginePage

from .conftest import Shown


def test_the_overview_adds_up_what_there_is(page: Shown) -> None:
    told = page.told("overview")
    (engine,) = told["engines"]
    assert (engine["state"], engine["device"], engine["sessions"]) == ("serving", "cpu", 1)
    assert engine["devices"][0]["total_bytes"] > engine["devices"][0]["free_bytes"] > 0
    totals = told["totals"]
    assert (totals["sessions"], totals["models"], totals["models_ready"]) == (1, 1, 1)
    assert totals["held_bytes"] > 2048 * 1024 * 4
    assert totals["calls"] > 100
    assert totals["rows"] == 27
    assert sum(told["latency"]) == totals["requests"] == 6
    assert len(told["latency"]) == len(told["bounds_s"]) + 1
    assert told["you"] == {"principal": "local", "role": "admin"}


def test_what_was_run_in_the_meantime_is_counted(page: Shown) -> None:
    before = page.told("overview")["totals"]
    for _ in range(10):
        page.served(tc.randn(3, 2))
    tc.synchronize()
    after = page.told("overview")["totals"]
    assert (after["requests"] - before["requests"], after["rows"] - before["rows"]) == (10, 30)


def test_sessions_are_listed_by_ids_that_open_nothing(page: Shown) -> None:
    told = page.told("sessions")
    (row,) = told["rows"]
    assert told["total"] == 1
    assert row["principal"] == "local"
    assert row["is_attached"]
    assert row["tensors"] > 10
    assert page.told(f"sessions/{row['id']}")["id"] == row["id"]
    assert len(row["id"]) == 12
    assert page.ask("sessions/0123456789ab").status == 404


def session_of(page: Shown) -> str:
    """What the only session is called."""
    return str(page.told("sessions")["rows"][0]["id"])


def test_tensors_are_searched_and_in_an_order(page: Shown) -> None:
    at = f"sessions/{session_of(page)}/tensors"
    told = page.told(f"{at}?sort=size_bytes&descending=1&limit=3")
    sizes = [row["size_bytes"] for row in told["rows"]]
    assert sizes[0] == 2048 * 1024 * 4
    assert sizes == sorted(sizes, reverse=True)
    found = page.told(f"{at}?search=10x10%20int64")["rows"]
    assert [(row["shape"], row["dtype"]) for row in found] == [([10, 10], "int64")]
    every = page.told(f"{at}?limit=500")
    assert every["is_whole"]
    assert page.told(f"{at}?limit=2&offset=3")["rows"] == every["rows"][3:5]
    assert every["total"] == len(every["rows"])


@pytest.mark.parametrize("query", ["limit=501", "offset=-1", "limit=x", "offset=99999999999", "x=" + "y" * 3000])
def test_a_query_that_cannot_be_is_refused(page: Shown, query: str) -> None:
    reply = page.ask(f"sessions?{query}")
    assert reply.status == 400
    assert reply.error


def test_a_tensor_is_told_by_its_numbers(page: Shown) -> None:
    at = f"sessions/{session_of(page)}/tensors"
    (row,) = page.told(f"{at}?search=10x10%20int64")["rows"]
    told = page.told(f"{at}/{row['name']}")
    assert told["statistics"]["min"] == 0
    assert told["statistics"]["max"] == 99
    assert told["statistics"]["mean"] == 49.5
    assert sum(told["histogram"]["counts"]) == 100
    picture = np.frombuffer(base64.b64decode(told["picture"]["float32"]), "<f4").reshape(told["picture"]["shape"])
    assert (picture == np.arange(100).reshape(10, 10)).all()


def test_of_a_large_tensor_a_sample_is_told(page: Shown) -> None:
    at = f"sessions/{session_of(page)}/tensors"
    (row,) = page.told(f"{at}?search=2048x1024")["rows"]
    told = page.told(f"{at}/{row['name']}")
    assert 0 < told["sampled"] < told["elements"] == 2048 * 1024
    assert abs(told["statistics"]["std"] - 1) < 0.05
    assert max(told["picture"]["shape"]) <= 128


def test_what_is_not_a_number_makes_no_broken_json(page: Shown) -> None:
    at = f"sessions/{session_of(page)}/tensors"
    scalars = [row for row in page.told(f"{at}?limit=500")["rows"] if row["shape"] == [] and row["dtype"] == "float32"]
    told = [page.ask(f"{at}/{row['name']}") for row in scalars]
    assert all(b"NaN" not in reply.body for reply in told)
    assert 1 in [reply.json["nan"] for reply in told]


@pytest.mark.parametrize("name", ["x", "0", "1.x", "999999999999", "99999999999999999999", "1" + ".1" * 70, "%2e"])
def test_a_tensor_that_is_not_there_is_not_found(page: Shown, name: str) -> None:
    assert page.ask(f"sessions/{session_of(page)}/tensors/{name}").status == 404


def test_a_model_is_told_with_its_layers_and_batches(page: Shown) -> None:
    (row,) = page.told("models")["rows"]
    assert (row["name"], row["version"], row["state"]) == ("rings", 1, "READY")
    told = page.told("models/rings/versions/1")
    assert [(layer["in_features"], layer["out_features"], layer["activation"]) for layer in told["layers"]] == [
        (2, 32, "tanh"),
        (32, 16, "relu"),
        (16, 2, "identity"),
    ]
    assert dict(map(tuple, told["batch_sizes"]))[16] == 1
    assert sum(told["latency"]) == told["requests"]
    assert page.ask("models/rings/versions/2").status == 404


def test_refusals_are_kept_with_whose_they_were(page: Shown) -> None:
    with pytest.raises(LookupError):
        tc.models.get("another model that is not there")
    row = page.told("errors")["rows"][0]
    assert row["reason"] == "NOT_FOUND"
    assert row["principal"] == "local"
    assert "another model" in row["message"]


def test_requests_are_counted_by_their_method(page: Shown) -> None:
    rows = {row["method"]: row for row in page.told("requests")["rows"]}
    assert rows["OpenSession"]["started"] == 1
    assert "Page" not in rows


def test_who_looks_does_not_keep_a_session_alive() -> None:
    with (
        serving("--http-listen", "127.0.0.1:0", "--lease-s", "0.6") as server,
        Caller(listener(server, "http")) as caller,
        GrpcCaller(server.address) as opener,
    ):
        opener.open()

        def sessions() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = caller.ask("GET", "/api/v1/sessions", Host="localhost").json["rows"]
            for row in rows:
                caller.ask("GET", f"/api/v1/sessions/{row['id']}/tensors", Host="localhost")
            return rows

        assert len(sessions()) == 1
        wait_until(lambda: not sessions(), 10.0, "the lease runs out")


def test_files_say_what_a_browser_may_do_with_them(page: Shown) -> None:
    with Caller(page.http) as caller:
        index = caller.ask("GET", "/")
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        for path in ("/", "/page/main.js", "/page/page.css", "/page/uplot.js", "/page/uplot.LICENSE.txt"):
            reply = caller.ask("GET", path)
            assert reply.status == 200
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["x-content-type-options"] == "nosniff"
        assert b"://" not in index.body
        for path in ("/page/..%2froutes.py", "/page/__init__.py", "/page/nothing.js"):
            assert caller.ask("GET", path).status == 404
        assert page.ask("overview").headers["cache-control"] == "no-store"


def test_the_port_of_the_metrics_has_no_page(page: Shown) -> None:
    with Caller(listener(page.server, "metrics")) as caller:
        assert caller.ask("GET", "/").status == 404
        assert caller.ask("GET", "/api/v1/overview").status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_foreign_name_for_this_machine_opens_nothing(page: Shown, host: str) -> None:
    assert page.ask("overview", Host=host).status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8000", "[::1]:1", "tserver.localhost"])
def test_an_address_of_this_machine_opens_the_page(page: Shown, host: str) -> None:
    assert page.ask("overview", Host=host).status == 200


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """A server of two users and an administrator: its page, their tokens, and their sessions."""
    file = tmp_path_factory.mktemp("page") / "tokens"
    tokens = {name: token_of(file, name, "admin" if name == "root" else "user") for name in ("ada", "ben", "root")}
    with serving("--http-listen", "127.0.0.1:0", "--tokens", str(file)) as server:
        http = listener(server, "http")
        opened = []
        for name in ("ada", "ben"):
            session = tc.connect(server.address, token=tokens[name])
            opened.append(session)
            session.kept = tc.ones(3)  # type: ignore[attr-defined]
            tc.models.create(f"of-{name}", tc.nn.Linear(2, 1))
            with pytest.raises(LookupError):
                tc.models.get(f"secret-of-{name}")
        ids = {}
        with Caller(http) as caller:
            for row in caller.ask("GET", "/api/v1/sessions", Authorization=f"Bearer {tokens['root']}").json["rows"]:
                ids[row["principal"]] = row["id"]
        yield http, tokens, ids
        for session in opened:
            session.close()


def test_each_sees_its_own_and_an_administrator_all(
    shared: tuple[str, dict[str, str], dict[str, str]],
) -> None:
    http, tokens, ids = shared
    with Caller(http) as caller:

        def ask(path: str, name: str) -> Any:
            return caller.ask("GET", f"/api/v1/{path}", Authorization=f"Bearer {tokens[name]}")

        for name, others in (("ada", "ben"), ("ben", "ada")):
            assert [row["id"] for row in ask("sessions", name).json["rows"]] == [ids[name]]
            assert [row["name"] for row in ask("models", name).json["rows"]] == [f"of-{name}"]
            assert {row["principal"] for row in ask("errors", name).json["rows"]} == {name}
            assert ask(f"sessions/{ids[name]}/tensors", name).status == 200
            for path in (
                f"sessions/{ids[others]}",
                f"sessions/{ids[others]}/tensors",
                f"models/of-{others}/versions/1",
            ):
                assert ask(path, name).status == 404
            told = ask("overview", name).json
            assert told["totals"]["sessions"] == told["totals"]["models"] == 1
            assert "calls" not in told["totals"]
            assert "rpc_latency" not in told
            assert ask("requests", name).json["rows"] == []
            assert f"secret-of-{others}" not in ask("errors", name).body.decode()
        assert len(ask("sessions", "root").json["rows"]) == 2
        assert {row["name"] for row in ask("models", "root").json["rows"]} == {"ada/of-ada", "ben/of-ben"}
        assert ask("models/ada%2Fof-ada/versions/1", "root").status == 200
        assert ask("overview", "root").json["totals"]["sessions"] == 2


def test_without_a_token_the_files_are_there_and_nothing_else(
    shared: tuple[str, dict[str, str], dict[str, str]],
) -> None:
    http, _, ids = shared
    with Caller(http) as caller:
        assert caller.ask("GET", "/").status == 200
        for path in ("overview", "sessions", f"sessions/{ids['ada']}", "models", "requests", "errors"):
            reply = caller.ask("GET", f"/api/v1/{path}")
            assert reply.status == 401
            assert reply.error == "no valid credentials"


def test_the_engines_of_a_house_are_shown_together() -> None:
    with serving("--http-listen", "127.0.0.1:0", "--engines", "2") as server:
        http = listener(server, "http")
        sessions = []
        for _ in range(2):
            session = tc.connect(server.address)
            session.kept = tc.ones(4, 5)  # type: ignore[attr-defined]
            tc.synchronize()
            sessions.append(session)
        with Caller(http) as caller:

            def ask(path: str) -> Any:
                reply = caller.ask("GET", f"/api/v1/{path}", Host="localhost")
                assert reply.status == 200, reply.body
                return reply.json

            told = ask("overview")
            assert len(told["engines"]) == 2
            assert {engine["state"] for engine in told["engines"]} == {"serving"}
            assert told["totals"]["sessions"] == 2
            rows = ask("sessions")["rows"]
            assert {row["engine"] for row in rows} == {engine["name"] for engine in told["engines"]}
            for row in rows:
                (tensor,) = ask(f"sessions/{row['id']}/tensors?search=4x5")["rows"]
                assert ask(f"sessions/{row['id']}/tensors/{tensor['name']}")["statistics"]["mean"] == 1
            assert caller.ask("GET", "/api/v1/sessions/000000000000", Host="localhost").status == 404
        for session in sessions:
            session.close()


def test_what_sessions_hold_is_counted_once_for_all_who_look() -> None:
    engine: Any = mock.MagicMock()
    usage: Future[Any] = Future()
    engine.usage.return_value = usage

    async def look() -> list[bool]:
        shown = EnginePage(engine, mock.MagicMock())
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, usage.set_result, mock.MagicMock())
        return [*await asyncio.gather(*(shown._count() for _ in range(20))), await shown._count()]

    assert asyncio.run(look()) == [True] * 21
    assert engine.usage.call_count == 1
