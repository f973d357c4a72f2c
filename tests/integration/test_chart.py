"""What the chart renders, before a real API server: objects are valid, pods restricted, rights as they are meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from dev import argocd, chart
from tests.integration.conftest import Server

pytestmark = pytest.mark.integration

OPERATOR = f"system:serviceaccount:{chart.NAMESPACE}:largeforge-operator"
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
"""Kinds whose CRDs are not ours."""


def rendered(name: str) -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(chart.render(chart.value_sets()[name]))
    return [each for each in documents if each and each["kind"] not in FOREIGN]


def apply(server: Server, objects: list[dict[str, Any]], *arguments: str) -> str:
    """Apply *objects*; what the server remarks on them."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    done = server.kubectl("apply", "--server-side", *arguments, "-f", "-", stdin=listed)
    assert done.returncode == 0, done.stderr
    return done.stderr


def make_namespaces(server: Server) -> None:
    """All that the value sets name; the server remarks on pods there that are not restricted."""
    labels = {"pod-security.kubernetes.io/warn": "restricted"}
    named = [{"name": name, "labels": labels} for name in (chart.NAMESPACE, "sales", "support", "demo")]
    apply(server, [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata} for metadata in named])


@pytest.fixture(scope="module")
def namespaces(server: Server) -> None:
    make_namespaces(server)


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("name", chart.value_sets())
def test_every_object_is_valid_and_every_pod_restricted(server: Server, name: str):
    assert apply(server, rendered(name), "--dry-run=server") == ""


@pytest.mark.usefixtures("namespaces")
def test_a_pod_that_is_not_restricted_would_be_remarked_on(server: Server):
    (pod,) = [o for o in rendered("default") if o["kind"] == "Job"]
    pod["spec"]["template"]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "would violate PodSecurity" in apply(server, [pod], "--dry-run=server")


@pytest.mark.usefixtures("namespaces")
def test_a_namespaced_operator_may_work_in_its_namespaces_and_nowhere_else(server: Server):
    apply(server, [o for o in rendered("namespaced") if o["kind"] in {"Role", "RoleBinding"}])

    def may(verb: str, resource: str, *where: str) -> str:
        return server.kubectl("auth", "can-i", verb, resource, *where, "--as", OPERATOR).stdout.strip()

    for namespace in ("sales", "support"):
        assert may("list", "finetunejobs.largeforge.ai", "-n", namespace) == "yes"
        assert may("create", "jobs.batch", "-n", namespace) == "yes"
        assert may("get", "secrets", "-n", namespace) == "no"
    for where in (("-n", "demo"), ("-n", chart.NAMESPACE), ("--all-namespaces",)):
        assert may("list", "finetunejobs.largeforge.ai", *where) == "no"
    assert may("list", "namespaces") == "no"
    assert may("list", "customresourcedefinitions.apiextensions.k8s.io") == "no"


@pytest.mark.usefixtures("namespaces")
def test_the_health_checks_are_added_to_argo_cds_settings_and_change_no_other_entry(server: Server):
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "demo"}}
    apply(server, [own | {"data": {"url": "https://argocd.example"}}], "--field-manager=argocd")
    for _ in range(2):
        done = server.kubectl("apply", "--server-side", "-n", "demo", "-f", str(argocd.SETTINGS))
        assert done.returncode == 0, done.stderr
    found = json.loads(server.kubectl("get", "configmap", "argocd-cm", "-n", "demo", "-o", "json").stdout)["data"]
    assert found.pop("url") == "https://argocd.example"
    assert found == yaml.safe_load(argocd.SETTINGS.read_text())["data"]
