"""What values make of the chart's pods and of what stands around them."""

import json
import re
from typing import Any

import pytest
import yaml

from dev import chart, chartreadme
from largeforge.api.names import FINETUNEJOB_LABEL, INFERENCESERVICE_LABEL, QUANTIZEJOB_LABEL, ROUTER_LABEL
from largeforge.resources.engineflags import ENGINE_PORT
from tests.unit.chart.test_chart import objects, of_set, one, pods

pytestmark = pytest.mark.skipif(
    not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` or `make cluster` builds it"
)

MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
OPERATOR = {"app.kubernetes.io/name": "largeforge", "app.kubernetes.io/component": "operator"}
ROUTER = {"app.kubernetes.io/name": "largeforge", "app.kubernetes.io/component": "router"}


def policy(found: list[dict[str, Any]], name: str, namespace: str = chart.NAMESPACE) -> dict[str, Any]:
    policies = [o for o in found if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == f"largeforge-{name}"]
    (spec,) = [o["spec"] for o in policies if o["metadata"]["namespace"] == namespace]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    result: dict[str, Any] = spec
    return result


def by_port(rules: list[dict[str, Any]]) -> dict[Any, Any]:
    """Each port with its peers; None for everybody."""
    return {port["port"]: rule.get("to", rule.get("from")) for rule in rules for port in rule["ports"]}


def exists(label: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": label, "operator": "Exists"}]}


# NetworkPolicies


def test_each_pod_of_the_chart_is_chosen_by_one_policy() -> None:
    found = of_set("teams")
    for each in found:
        if each["kind"] in {"Deployment", "Job"}:
            namespace, labels = each["metadata"]["namespace"], each["spec"]["template"]["metadata"]["labels"]
            chosen = [
                o["metadata"]["name"]
                for o in found
                if (o["kind"], o["metadata"].get("namespace")) == ("NetworkPolicy", namespace)
                and o["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
            ]
            assert chosen == [each["metadata"]["name"]]


def test_the_operator_hears_runs_and_monitoring_and_reaches_engines_routers_and_the_api_server() -> None:
    operator = policy(of_set("teams"), "operator")
    runs = [{"namespaceSelector": {}, "podSelector": exists(label)} for label in (FINETUNEJOB_LABEL, QUANTIZEJOB_LABEL)]
    assert by_port(operator["ingress"]) == {"progress": runs, "health": MONITORING}
    assert by_port(operator["egress"]) == {
        6443: [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        53: None,
        ENGINE_PORT: [{"namespaceSelector": {}, "podSelector": exists(INFERENCESERVICE_LABEL)}],
        8081: [{"namespaceSelector": {}, "podSelector": {"matchLabels": ROUTER}}],
    }


def test_a_router_hears_its_clients_the_operator_and_monitoring_and_reaches_its_own_engines() -> None:
    router = policy(of_set("teams"), "router", "sales")
    gateway = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    assert by_port(router["ingress"]) == {"https": gateway, "health": [operator, *MONITORING]}
    *inside, outside = router["egress"]
    assert by_port(inside) == {
        6443: [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        53: None,
        ENGINE_PORT: [{"podSelector": exists(INFERENCESERVICE_LABEL)}],
    }
    assert outside == {
        "to": [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
            {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}},
        ]
    }


def test_without_values_everybody_may_ask_a_router_and_it_reaches_nothing_outside() -> None:
    router = policy(of_set("default"), "router")
    assert by_port(router["ingress"]) == {"http": None, "health": None}
    assert set(by_port(router["egress"])) == {443, 6443, 16443, 53, ENGINE_PORT}


def test_the_ports_of_the_policies_are_those_of_the_pods() -> None:
    found = of_set("teams")
    for name, namespace in (("operator", chart.NAMESPACE), ("router", "sales")):
        ports = dict(pods(found))[f"Deployment largeforge-{name}"]["containers"][0]["ports"]
        assert set(by_port(policy(found, name, namespace)["ingress"])) == {each["name"] for each in ports}
    listens = {
        p["name"]: p["containerPort"]
        for p in dict(pods(found))["Deployment largeforge-router"]["containers"][0]["ports"]
    }
    assert listens["health"] in by_port(policy(found, "operator")["egress"])


def test_the_hook_reaches_the_api_server_alone() -> None:
    keys = policy(of_set("default"), "keys")
    assert ("ingress" in keys, by_port(keys["egress"])) == (False, {443: None, 6443: None, 16443: None})


def test_without_policies_none_is_made() -> None:
    assert not [o for o in objects("--set", "networkPolicy.enabled=false") if o["kind"] == "NetworkPolicy"]


# ServiceMonitors


def test_a_service_monitor_finds_the_port_with_the_metrics() -> None:
    found = of_set("teams")
    monitors = [o for o in found if o["kind"] == "ServiceMonitor"]
    assert [o["metadata"]["namespace"] for o in monitors] == [chart.NAMESPACE, "sales", "support"]
    for monitor in monitors:
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        chosen = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            o
            for o in found
            if (o["kind"], o["metadata"].get("namespace")) == ("Service", monitor["metadata"]["namespace"])
            and chosen.items() <= o["metadata"]["labels"].items()
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = service["spec"]["ports"]
        assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
        assert (port["port"], port["targetPort"]) == (8081, "health")


def test_monitors_are_made_where_they_are_asked_for_alone() -> None:
    assert not [o for o in of_set("default") if o["kind"] == "ServiceMonitor"]
    assert not [o for o in of_set("default") if o["metadata"]["name"] == "largeforge-metrics"]


def test_the_operators_metrics_are_no_report_of_a_router() -> None:
    assert ROUTER_LABEL not in one(of_set("teams"), "Service", "largeforge-metrics")["metadata"]["labels"]


# Placement


@pytest.mark.parametrize(("of", "expected"), [("operator", ["operator", "keys"]), ("router", ["router"])])
def test_placement_goes_to_the_pods_that_it_is_for(of: str, expected: list[str]) -> None:
    wanted: dict[str, Any] = {
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "t", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "priorityClassName": "high",
    }
    found = dict(pods(objects("--set-json", f"{of}={json.dumps(wanted)}")))
    placed = {
        where.rpartition("largeforge-")[2]: {k: v for k, v in pod.items() if k in wanted}
        for where, pod in found.items()
    }
    assert placed == {name: wanted if name in expected else {} for name in ("operator", "router", "keys")}


# Parts of an install


def test_routers_alone_make_nothing_of_the_operator_and_no_key_but_the_clients() -> None:
    found = of_set("routers-only")
    assert "operator" not in {o["metadata"]["labels"]["app.kubernetes.io/component"] for o in found}
    assert not [o for o in found if o["kind"].startswith("ClusterRole")]
    pod = dict(pods(found))["Job largeforge-keys"]
    assert pod["containers"][0]["args"] == ["--router-namespace", "sales", "--make-clients"]
    assert "master-key" not in json.dumps(pod)
    roles = {
        o["metadata"]["namespace"] for o in found if (o["kind"], o["metadata"]["name"]) == ("Role", "largeforge-keys")
    }
    assert roles == {"sales"}


def test_routers_alone_with_clients_of_their_own_need_no_hook() -> None:
    found = objects("--set", "operator.enabled=false,router.clientsSecret=clients")
    assert not [o for o in found if "largeforge-keys" in o["metadata"]["name"]]


def test_an_install_of_nothing_is_refused() -> None:
    done = chart.template("--set", "operator.enabled=false,router.enabled=false")
    assert done.returncode != 0
    assert "set one of them" in done.stderr


def test_extra_objects_are_made_and_strings_are_templates() -> None:
    extra = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "mine"},
        "data": {"a": "{{ not a template }}"},
    }
    assert extra in objects("--set-json", f"extraObjects={json.dumps([extra])}")
    assert one(of_set("teams"), "ConfigMap", "largeforge-note")["data"] == {"team": "sales"}


@pytest.mark.parametrize(
    "setting",
    [
        "operator.enable=true",
        "operator.namespaces={A_b}",
        "operator.priorityClassName=A_b",
        "operator.affinity.nodes=x",
        "serviceMonitor.interval=often",
        "serviceMonitor.label.a=b",
        "networkPolicy.enabled=maybe",
        "networkPolicy.clients[0].pods=x",
        "networkPolicy.apiServer.cidrs={10.0.0.1}",
        "networkPolicy.apiServer.ports={0}",
        "extraObjects[0].name=x",
    ],
)
def test_a_typing_error_in_a_value_is_refused(setting: str) -> None:
    done = chart.template("--set", setting)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr, done.stderr


# The README


def test_the_charts_readme_is_current() -> None:
    assert chartreadme.README.read_text() == chartreadme.render(), "run: make generate"


def test_the_charts_readme_has_every_value_of_the_schema() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    written = {value.path for value in chartreadme.values()}
    assert written == {path for path in leaves(schema, schema, "") if path != "global"}
    assert [value.path for value in chartreadme.values() if not value.text.strip()] == []


def leaves(node: dict[str, Any], schema: dict[str, Any], path: str) -> set[str]:
    """The values that *schema* knows; what is handed on as it is (`resources`, `affinity`, ...) is one."""
    reference = node.get("$ref") or next((part["$ref"] for part in node.get("allOf", []) if "$ref" in part), "")
    name = reference.rpartition("/")[2]
    node = schema["definitions"][name] if name else node
    whole = name and name not in ("image", "dashboard")
    if whole or "properties" not in node:
        return {path}
    return {
        leaf for key, child in node["properties"].items() for leaf in leaves(child, schema, f"{path}.{key}".strip("."))
    }


def test_each_link_of_the_charts_readme_leads_to_a_file() -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", chartreadme.README.read_text())
    assert targets
    assert [target for target in targets if not (chart.CHART / target).exists()] == []


def test_the_examples_of_the_pages_are_values_that_the_chart_takes(tmp_path: Any) -> None:
    page = (chart.REPO / "docs" / "rbac.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    values = tmp_path / "values.yaml"
    values.write_text(block)
    assert yaml.safe_load(block)["operator"]["namespaced"] is True
    assert chart.template("--values", values).returncode == 0
