"""The settings of traces and of the log, as Triton's own clients ask for them and change them, over both wires."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tensorcompute.oip import inference_pb2 as oip
from tests.models.networks import create, relu_mlp
from tests.oip.triton import Refusal, Triton, infer_by_name, processes
from tests.support.callers import token_of
from tests.support.collector import Collector
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, serving, wait_until
from tserver import logs

DEFAULT = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "opentelemetry",
}
LOG = {"log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_format": "default"}


class Client:
    """One of Triton's clients, with answers in one form."""

    def __init__(self, wire: str, server: ServerProcess, pool: ProcessPoolExecutor) -> None:
        self.wire = wire
        self._triton = Triton(listener(server, "oip" if wire == "grpc" else "http"), pool, wire)

    def traces(self, model: str | None = None, **changes: Any) -> dict[str, Any]:
        """What holds, once these have changed."""
        told = self._ask("trace", changes, model_name=model)
        if self.wire == "http":
            return told
        values = {name: setting.get("value", []) for name, setting in told["settings"].items()}
        return {name: value if name == "trace_level" else value[0] for name, value in values.items()}

    def log(self, **changes: Any) -> dict[str, Any]:
        """The same for the log."""
        told = self._ask("log", changes)
        if self.wire == "http":
            return told
        return {name: next(iter(setting.values())) for name, setting in told["settings"].items()}

    def infer(self, model: str, times: int = 1) -> None:
        """Requests that nobody traces."""
        for _ in range(times):
            self._triton.run(infer_by_name, model, {"input": np.ones((1, 4), np.float32)}, ["output"])

    def _ask(self, what: str, changes: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        if changes:
            arguments["settings"] = changes
        if self.wire == "grpc":
            arguments["as_json"] = True
        found: dict[str, Any] = self._triton(f"{'update' if changes else 'get'}_{what}_settings", **arguments)
        return found


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[str, ProcessPoolExecutor]]:
    """The processes of the clients."""
    with processes() as grpc, processes() as http:
        yield {"grpc": grpc, "http": http}


@pytest.fixture(params=["grpc", "http"])
def triton(
    request: pytest.FixtureRequest, traced: ServerProcess, pools: dict[str, ProcessPoolExecutor]
) -> Iterator[Client]:
    """A client, and settings as they were at the start."""
    with Raw(traced.address) as raw:
        create(raw, "one", relu_mlp((4, 3)))
        create(raw, "two", relu_mlp((4, 3)))
        made = Client(request.param, traced, pools[request.param])
        yield made
        made.traces(trace_level=None, trace_rate=None, trace_count=None)
        made.log(log_info=True, log_warning=True, log_error=True, log_verbose_level=0)
        for model in ("one", "two"):
            raw.ask("DeleteMlp", name=model)


@contextlib.contextmanager
def refused(naming: str) -> Iterator[None]:
    with pytest.raises(Refusal, match=naming):
        yield


def traced_of(collector: Collector) -> list[str]:
    """Which models have been asked in a trace."""
    return [each.name.removeprefix("infer ") for each in collector.spans if each.name.startswith("infer ")]


def behind(triton: Client, collector: Collector) -> None:
    """All spans are here of what was asked before."""
    count = len(traced_of(collector))
    before = triton.traces()
    triton.traces(trace_level="TIMESTAMPS", trace_rate="1", trace_count="1")
    triton.infer("two")
    wait_until(lambda: traced_of(collector)[count:].count("two") >= 1, 20.0, "the last of the spans")
    triton.traces(**{name: before[name] for name in ("trace_level", "trace_rate", "trace_count")})


def test_what_holds_is_told_and_changed(triton: Client, collector: Collector) -> None:
    assert triton.traces() == DEFAULT
    triton.infer("one", 3)
    changed = triton.traces(trace_level="TIMESTAMPS", trace_rate="2", trace_count="2")
    assert changed == {**DEFAULT, "trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2"}
    triton.infer("one", 7)
    assert triton.traces()["trace_count"] == "0"
    first, second = collector.named("infer one", 2)
    assert (first.kind, first.parent, first.trace_id != second.trace_id) == ("SERVER", "", True)
    assert [each.name for each in collector.within(first)] == ["queue", "batch"]
    behind(triton, collector)
    assert traced_of(collector) == ["one", "one", "two"]
    assert triton.traces(trace_level=None, trace_rate=None, trace_count=None) == DEFAULT


def test_a_model_may_have_settings_of_its_own(triton: Client, collector: Collector) -> None:
    triton.traces("one", trace_level=["TIMESTAMPS"], trace_rate="1")
    assert triton.traces("one")["trace_level"] == ["TIMESTAMPS"]
    assert triton.traces("two") == triton.traces() == DEFAULT
    triton.infer("one", 2)
    triton.infer("two", 2)
    behind(triton, collector)
    assert traced_of(collector) == ["one", "one", "two"]
    # As it is for all.
    assert triton.traces("one", trace_level=None, trace_rate=None, trace_count=None) == DEFAULT


WRONG = {
    "a setting that there is not": ({"trace_depth": "3"}, "trace_depth.*trace_level, trace_rate, trace_count"),
    "a level that there is not": ({"trace_level": "ALL"}, "'ALL'.*OFF or TIMESTAMPS"),
    "elements": ({"trace_level": "TENSORS"}, "times, not of elements"),
    "none of so many": ({"trace_rate": "0"}, "from 1"),
    "a rate in words": ({"trace_rate": "often"}, "'often'"),
    "a count below": ({"trace_count": "-2"}, "from -1"),
    "a file": ({"trace_file": "/etc/passwd"}, "--otlp-endpoint"),
    "another mode": ({"trace_mode": "triton"}, "'opentelemetry' here"),
    "one right, one wrong": ({"trace_rate": "7", "trace_level": "ALL"}, "'ALL'"),
}


@pytest.mark.parametrize(("changes", "naming"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_and_nothing_changes(triton: Client, changes: dict[str, Any], naming: str) -> None:
    with refused(naming):
        triton.traces(**changes)
    assert triton.traces() == DEFAULT


def test_a_model_that_is_not_there_has_no_settings(triton: Client) -> None:
    with refused("nowhere"):
        triton.traces("nowhere")
    with refused("nowhere"):
        triton.traces("nowhere", trace_rate="1")


def test_values_in_json_that_are_none_are_refused(traced: ServerProcess) -> None:
    caller = Caller(listener(traced, "http"))
    for value in (True, {"a": 1}, [None], 1.5):
        reply = caller.ask("POST", "/v2/trace/setting", json.dumps({"trace_rate": value}).encode())
        assert (reply.status, "trace_rate" in reply.error) == (400, True)
    assert caller.ask("POST", "/v2/trace/setting", b'{"trace_rate": 5}').json["trace_rate"] == "5"
    assert caller.ask("POST", "/v2/trace/setting", b'{"trace_rate": null}').json == DEFAULT


def test_the_log_is_told_and_changed(triton: Client, traced: ServerProcess) -> None:
    assert triton.log() == {**LOG, "log_verbose_level": 0}

    def opened(naming: str) -> int:
        return sum("session opened" in line and naming in line for line in traced.stderr)

    def open_session(naming: str) -> None:
        with Raw(traced.address) as raw:
            raw.open_session(client=naming).close()

    assert triton.log(log_info=False)["log_info"] is False
    open_session(f"quiet-{triton.wire}")
    assert triton.log(log_info=True, log_verbose_level=1) == {**LOG, "log_verbose_level": 1}
    open_session(f"heard-{triton.wire}")
    wait_until(lambda: opened(f"heard-{triton.wire}") == 1, 10.0, "a line of the log")
    assert opened(f"quiet-{triton.wire}") == 0


@pytest.mark.parametrize(
    ("changes", "naming"),
    [
        ({"log_file": "/tmp/log"}, "stderr"),
        ({"log_format": "ISO8601"}, "--log-format"),
        ({"log_color": True}, "log_color.*log_info"),
        ({"log_info": False, "log_color": True}, "log_color"),
    ],
)
def test_what_the_log_cannot_be_is_refused(triton: Client, changes: dict[str, Any], naming: str) -> None:
    with refused(naming):
        triton.log(**changes)
    assert triton.log() == {**LOG, "log_verbose_level": 0}


def test_values_of_the_log_of_another_kind_are_refused(traced: ServerProcess) -> None:
    caller = Caller(listener(traced, "http"))
    for name, value in (("log_info", 3), ("log_error", "no"), ("log_verbose_level", True), ("log_verbose_level", -1)):
        reply = caller.ask("POST", "/v2/logging", json.dumps({name: value}).encode())
        assert (reply.status, name in reply.error) == (400, True)
    path = "/inference.GRPCInferenceService/LogSettings"
    with grpc.insecure_channel(listener(traced, "oip")) as channel:
        empty = oip.LogSettingsRequest.SettingValue()
        ask: Any = channel.unary_unary(path)
        number = oip.LogSettingsRequest.SettingValue(uint32_param=3)
        request = oip.LogSettingsRequest(settings={"log_info": number})
        with pytest.raises(grpc.RpcError, match="log_info is '3', not true or false"):
            ask(request.SerializeToString(), timeout=20)
        with pytest.raises(grpc.RpcError, match="log_info is 'None'"):
            ask(oip.LogSettingsRequest(settings={"log_info": empty}).SerializeToString(), timeout=20)


def test_only_an_admin_changes_them(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    user, admin = token_of(file, "ada"), token_of(file, "root", role="admin")
    with serving("--http-listen", "127.0.0.1:0", "--tokens", str(file)) as server:
        caller = Caller(listener(server, "http"))

        def ask(token: str, path: str, changes: bytes) -> tuple[int, int]:
            told = {"Authorization": f"Bearer {token}"}
            asked = caller.ask("GET", path, b"", **told), caller.ask("POST", path, changes, **told)
            return asked[0].status, asked[1].status

        for path, changes in (("/v2/trace/setting", b'{"trace_rate": "5"}'), ("/v2/logging", b'{"log_info": true}')):
            assert ask(user, path, changes) == (200, 403)
            assert ask(admin, path, changes) == (200, 200)
            assert caller.ask("GET", path).status == 401


def test_where_traces_go_nowhere_there_are_none() -> None:
    with serving("--http-listen", "127.0.0.1:0") as server:
        caller = Caller(listener(server, "http"))
        reply = caller.ask("POST", "/v2/trace/setting", b'{"trace_level": "TIMESTAMPS"}')
        assert (reply.status, "--otlp-endpoint" in reply.error) == (400, True)
        assert caller.ask("GET", "/v2/trace/setting").json == DEFAULT


@pytest.mark.parametrize("level", logs.LEVELS)
def test_kinds_of_records_are_those_of_the_level(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.getLevelNamesMapping()[level.upper()])
    assert logs.shown() == frozenset(logs.LEVELS[logs.LEVELS.index(level) :])
