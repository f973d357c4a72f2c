"""The dashboard asks for what the router exports, under the labels that it has there."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from dev import chart
from largeforge.router.metrics import Metrics

BOARD = json.loads((chart.CHART / "dashboards" / "router.json").read_text())
EXPRESSIONS = sorted({target["expr"] for panel in BOARD["panels"] for target in panel["targets"]})
TARGET_LABELS = {"namespace", "pod"}
"""What Prometheus adds to all that it reads from a pod."""
PROMQL = {"sum", "max", "by", "rate", "histogram_quantile"}
SELECTOR = re.compile(r"(largeforge_[a-z_]+)(?:\{([^}]*)\})?(\[\$__rate_interval\])?")
MATCHER = re.compile(r'([a-z_]+)(=~|=|!=|!~)"([^"]*)"')


def families() -> Iterator[Metric]:
    """All that the router exports, with a request of each kind counted."""
    yield from Metrics().collect()


EXPORTED = {
    name: family
    for family in families()
    for name in (
        [f"{family.name}_total"]
        if family.type == "counter"
        else [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
        if family.type == "histogram"
        else [family.name]
    )
}


def labels_of(name: str) -> set[str]:
    family: Any = EXPORTED[name]
    own = set(getattr(family, "_labelnames", ()))
    return own | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_query_asks_for_a_metric_and_labels_that_are_exported(expression: str) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    known = set.intersection(*(labels_of(name) for name, _, _ in selectors))
    for name, matchers, window in selectors:
        assert {label for label, _, _ in MATCHER.findall(matchers)} <= labels_of(name)
        assert MATCHER.sub("", matchers).strip(",") == ""
        assert bool(window) is name.endswith(("_total", "_bucket")), "a counter is read by its rate, a gauge as it is"
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= known
    for quantile in re.findall(r"histogram_quantile\(([^,]*), sum by \(le", expression):
        assert 0 < float(quantile) < 1
    rest = MATCHER.sub("", re.sub(r"by \([^)]*\)", "by", SELECTOR.sub("", expression)))
    assert set(re.findall(r"[a-z_]+", rest)) <= PROMQL
    assert expression.count("(") == expression.count(")")


def test_every_metric_of_the_router_is_on_the_dashboard() -> None:
    asked = {name for expression in EXPRESSIONS for name, _, _ in SELECTOR.findall(expression)}
    assert {EXPORTED[name].name for name in asked} == {family.name for family in families()}


def test_each_legend_names_labels_that_its_query_keeps() -> None:
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            kept = {label for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
            assert set(re.findall(r"\{\{([a-z]+)\}\}", target["legendFormat"])) <= kept


def test_the_dashboards_variables_are_those_that_it_uses() -> None:
    used = set(re.findall(r"\$\{?(datasource|namespace|expert)\b", json.dumps(BOARD["panels"])))
    assert used == {variable["name"] for variable in BOARD["templating"]["list"]}
    for variable in BOARD["templating"]["list"][1:]:
        name, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["query"]).groups()
        assert label in labels_of(name)


@pytest.mark.skipif(not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` builds it")
def test_the_chart_hands_the_dashboard_to_grafanas_sidecar_where_it_is_asked_for() -> None:
    assert "router-dashboard" not in chart.template().stdout
    done = chart.template("--set", "router.dashboard.enabled=true", "--set-string", "router.dashboard.labels.team=a")
    (found,) = [o for o in yaml.safe_load_all(done.stdout) if o and o["metadata"]["name"].endswith("-dashboard")]
    assert found["metadata"]["labels"] | {"grafana_dashboard": "1", "team": "a"} == found["metadata"]["labels"]
    assert json.loads(found["data"]["largeforge-router.json"]) == BOARD
