"""The dashboard and the alerts ask for numbers that the server tells, by labels that these have, in valid queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import MatrixSelector, VectorSelector

from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.serving import ROOT, serving

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
QUERIES = {
    **{name: [rule["expr"]] for name, rule in RULES.items()},
    **{title: [target["expr"] for target in panel["targets"]] for title, panel in PANELS.items()},
}
# Prometheus' own, about each target; and the labels that it gives to all.
OWN = {"up"}
GIVEN = {"job", "instance", "engine"}

Labels = dict[str, set[str]]


def filled_in(query: str) -> str:
    """What Grafana makes of a query."""
    query = query.replace("$__rate_interval", "1m")
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    assert "$" not in query
    return query


def selectors(query: str) -> list[VectorSelector]:
    """The series that a query asks for. Raises: ValueError for what is no query."""
    found = []

    def visit(part: Any) -> None:
        if isinstance(part, MatrixSelector):
            found.append(part.vector_selector)
        elif isinstance(part, VectorSelector):
            found.append(part)

    promql.walk(promql.parse(filled_in(query)), visit)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """The names that a lone server and a house tell once they have worked, and the labels of each."""
    found: Labels = {}
    for options in ((), ("--engines", "1", "--isolation", "principal")):
        data = str(tmp_path_factory.mktemp("data"))
        with serving("--metrics-listen", "127.0.0.1:0", "--data-dir", data, *options) as server:
            text = worked(server.address, listener(server, "metrics"))
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    return found


def worked(address: str, metrics: str) -> str:
    """Have something of each kind counted, what goes well and what fails; and what the server tells then."""
    import tclient

    with tclient.connect(address):
        x = tclient.ones(2)
        served = tclient.models.create("digits", tclient.nn.MLP([4, 3]))
        served(np.ones((2, 4), np.float32))
        with pytest.raises(ValueError, match="takes 4 inputs"):
            served(np.ones((2, 5), np.float32))
        with pytest.raises(RuntimeError, match="size"):
            (x + tclient.ones(3)).tolist()
        with grpc.insecure_channel(address) as channel:
            call: Any = channel.unary_unary("/tensorcompute.v1.TensorService/GetTensor")
            with pytest.raises(grpc.RpcError):
                call(b"\xff", timeout=20)
        with Caller(metrics) as caller:
            return caller.ask("GET", "/metrics").body.decode()


def grouped_by(query: str) -> set[str]:
    """The labels that a query keeps."""
    return {label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")}


def known(query: str, told: Labels) -> set[str]:
    """The labels that its series have."""
    return set.union(GIVEN, *(told.get(str(each.name), set()) for each in selectors(query)))


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_asks_for_what_the_server_tells(name: str, told: Labels) -> None:
    for query in QUERIES[name]:
        asked = selectors(query)
        assert asked
        for each in asked:
            assert each.name is not None
            if each.name in OWN or each.name.startswith("nv_gpu_"):
                continue
            assert each.name in told, query
            labels = {matcher.name for matcher in each.matchers.matchers}
            assert labels <= told[each.name] | GIVEN, query
        assert grouped_by(query) - {"le"} <= known(query, told)


def test_what_is_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        promql.parse("sum by (a rate(b[5m])")


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_what_is_wrong_and_what_to_do_by_labels_that_it_has(name: str, told: Labels) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    has = grouped_by(rule["expr"]) or known(rule["expr"], told)
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= has


def test_clients_that_leave_set_off_no_alert() -> None:
    for each in selectors(RULES["RpcsFail"]["expr"]):
        (code,) = [matcher for matcher in each.matchers.matchers if matcher.name == "code"]
        assert not re.fullmatch(code.value, "CANCELLED") or str(code.op).endswith("NotEqual"), code


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    assert DASHBOARD["schemaVersion"] == 39
    panels = DASHBOARD["panels"]
    assert sorted(panel["id"] for panel in panels) == list(range(1, len(panels) + 1))
    assert len(PANELS) + sum(panel["type"] == "row" for panel in panels) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in {"row", "stat", "timeseries"}
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


def test_the_variables_are_of_series_that_there_are(told: Labels) -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    for name in ("instance", "model"):
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", VARIABLES[name]["definition"])
        assert found
        assert found[2] == name
        (asked,) = selectors(found[1])
        assert name in told[str(asked.name)] | GIVEN


def test_what_is_mounted_is_there_and_what_is_scraped_listens() -> None:
    (scraped,) = PROMETHEUS["scrape_configs"]
    assert scraped["job_name"] == "tensorcompute"
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    (target,) = scraped["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    for name in ("cpu", "gpu"):
        assert host in COMPOSE[name]["networks"]["default"]["aliases"]
        assert COMPOSE[name]["environment"]["TSERVER_METRICS_LISTEN"].endswith(f":{port}")
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"docker\.io/[\w/]+:v?\d+\.\d+\.\d+", COMPOSE[name]["image"])
        assert COMPOSE[name]["profiles"] == ["monitoring"]
        assert COMPOSE[name]["read_only"] is True
        assert all(port.startswith("127.0.0.1:") for port in COMPOSE[name]["ports"])
        for volume in COMPOSE[name]["volumes"]:
            source, _, _ = volume.partition(":")
            assert not source.startswith(".") or (ROOT / "docker" / source).exists(), source


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    files = yaml.safe_load((provisioning / "dashboards" / "files.yaml").read_text(encoding="utf-8"))
    folder = Path(files["providers"][0]["options"]["path"])
    places = [Path(volume.split(":")[1]) for volume in COMPOSE["grafana"]["volumes"]]
    assert folder / "dashboard.json" in places
    assert Path("/etc/grafana/provisioning") in places
    assert Path(COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) in places


def test_the_page_names_every_alert() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(RULES) == set(re.findall(r"^\| `(\w+)` \| (?:critical|warning) \|", page, re.MULTILINE))
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule['labels']['severity']} |" in page
