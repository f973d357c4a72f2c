"""Dashboards and alert rules ask for what is exported, in PromQL, and each alert leads to its entry."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from dev import chart, metricspage
from dev.paths import REPO

TARGET_LABELS = {"namespace", "pod"}
"""What Prometheus adds to all that it reads from a pod."""
PROCESS = {"process_resident_memory_bytes": "gauge", "process_cpu_seconds_total": "counter"}
RULES = yaml.safe_load((chart.CHART / "rules" / "alerts.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((chart.CHART / "dashboards").glob("*.json"))}


def exported() -> Iterator[tuple[str, str, set[str]]]:
    """Each series that is exported, with its metric's type and the labels that it can be chosen by."""
    for name, kind in PROCESS.items():
        yield name, kind, TARGET_LABELS
    for row in (*metricspage.operator(), *metricspage.router()):
        labels = {*row.labels, *TARGET_LABELS}
        if row.type == "histogram":
            for part in ("bucket", "sum", "count"):
                yield f"{row.name}_{part}", "counter", labels | ({"le"} if part == "bucket" else set())
        else:
            yield row.name, row.type, labels


KNOWN = {name: (kind, labels) for name, kind, labels in exported()}


def of_boards() -> list[tuple[str, str, str]]:
    return [
        (name, target["expr"], target["legendFormat"])
        for name, board in BOARDS.items()
        for panel in board["panels"]
        for target in panel["targets"]
    ]


def parsed(expression: str) -> Any:
    """The tree of *expression*; Grafana's variables for times are none of PromQL."""
    return promql_parser.parse(re.sub(r"\$__(rate_interval|range)", "5m", expression))


def nodes(tree: Any) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(tree, found.append)
    return found


def expressions() -> Iterator[Any]:
    for name, expression, _ in of_boards():
        yield pytest.param(expression, id=f"{name}: {expression[:60]}")
    for rule in ALERTS:
        yield pytest.param(rule["expr"], id=rule["alert"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_a_query_parses_and_asks_for_metrics_and_labels_that_are_exported(expression: str) -> None:
    found = nodes(parsed(expression))
    selectors = [node for node in found if isinstance(node, promql_parser.VectorSelector)]
    ranged = {str(node.vector_selector) for node in found if isinstance(node, promql_parser.MatrixSelector)}
    assert selectors
    for selector in selectors:
        assert selector.name in KNOWN, selector.name
        kind, labels = KNOWN[selector.name]
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels
        assert (str(selector) in ranged) is (kind == "counter"), "a counter is read by its rate, a gauge as it is"
    known = set.intersection(*(KNOWN[selector.name][1] for selector in selectors))
    for node in found:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            assert set(node.modifier.matching.labels) <= known


@pytest.mark.parametrize("part", ["operator", "router"])
def test_every_metric_is_on_its_dashboard(part: str) -> None:
    rows = metricspage.operator() if part == "operator" else metricspage.router()
    asked = " ".join(expression for name, expression, _ in of_boards() if name == part)
    assert [row.name for row in rows if not re.search(rf"\b{row.name}(_bucket|_count|_sum)?\b", asked)] == []


def test_each_legend_names_labels_that_its_query_keeps() -> None:
    for _, expression, legend in of_boards():
        kept = {
            label
            for node in nodes(parsed(expression))
            if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None
            for label in node.modifier.labels
        }
        assert set(re.findall(r"\{\{([a-z_]+)\}\}", legend)) <= kept, expression


def test_an_alerts_text_names_labels_that_its_expression_keeps() -> None:
    for rule in ALERTS:
        kept = set(re.findall(r"by \(([^)]*)\)", rule["expr"])[-1].split(", ")) if " by " in rule["expr"] else set()
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= kept, rule["alert"]
        promql_parser.parse_duration(rule.get("for", "1m"))
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_each_alert_has_one_entry_that_says_what_to_do_and_each_entry_an_alert() -> None:
    page = (REPO / "docs" / "troubleshooting.md").read_text()
    entries = dict(re.findall(r"^### (LargeForge\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(entries) == [rule["alert"] for rule in ALERTS]
    assert [name for name, text in entries.items() if "What to do:" not in " ".join(text.split())] == []
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"RUNBOOKS#{rule['alert'].lower()}"


@pytest.mark.skipif(not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` builds it")
def test_the_chart_makes_rules_and_dashboards_where_they_are_asked_for_and_of_what_is_installed() -> None:
    assert "PrometheusRule" not in chart.template().stdout
    assert "operator-dashboard" not in chart.template().stdout
    chosen = ("--set", "prometheusRule.enabled=true,prometheusRule.runbooks=https://x.example/t")
    (rule,) = made("PrometheusRule", *chosen)
    assert [group["name"] for group in rule["spec"]["groups"]] == ["largeforge-operator", "largeforge-router"]
    first = rule["spec"]["groups"][0]["rules"][0]
    assert first["annotations"]["runbook_url"] == "https://x.example/t#largeforgeoperatorabsent"
    assert first["expr"] == f'absent(largeforge_operator_leader{{namespace="{chart.NAMESPACE}"}} == 1)'
    (rule,) = made("PrometheusRule", *chosen, "--set", "operator.enabled=false")
    assert [group["name"] for group in rule["spec"]["groups"]] == ["largeforge-router"]
    (board,) = [
        o for o in made("ConfigMap", "--set", "operator.dashboard.enabled=true") if "dashboard" in o["metadata"]["name"]
    ]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["largeforge-operator.json"]) == BOARDS["operator"]


def made(kind: str, *arguments: str) -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(chart.template(*arguments).stdout)
    return [each for each in documents if each and each["kind"] == kind]
