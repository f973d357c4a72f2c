"""The operator as a process, with the rights of a namespaced install and no others."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev import chart
from tests.integration.conftest import Server
from tests.integration.operators import Operator, account, credentials, operator, until
from tests.integration.test_chart import apply, make_namespaces, rendered
from tests.unit.training import manifest

pytestmark = pytest.mark.integration

SERVED, FOREIGN = "support", "demo"


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> Path:
    """The credentials of the operator's account, with the rights that the chart gives it."""
    make_namespaces(server)
    roles = [o for o in rendered("namespaced") if o["kind"] in {"Role", "RoleBinding"}]
    apply(server, [account("largeforge-operator", chart.NAMESPACE), *roles])
    return credentials(server, "largeforge-operator", chart.NAMESPACE, tmp_path)


@pytest.fixture
def running(server: Server, kubeconfig: Path, tmp_path: Path) -> Iterator[Operator]:
    """The operator, while it runs."""
    variables = {
        "LARGEFORGE_NAMESPACES": "sales,support",
        "LARGEFORGE_OPERATOR_NAMESPACE": chart.NAMESPACE,
        "LARGEFORGE_LEASE_NAME": "largeforge-operator",
        "LARGEFORGE_POD_NAME": "namespaced",
    }
    try:
        with operator(kubeconfig, tmp_path, "namespaced", variables) as started:
            started.says("watching sales, support")
            yield started
            started.send(signal.SIGTERM)
            started.says("namespaced has given up lease largeforge-system/largeforge-operator")
    finally:
        for namespace in (FOREIGN, SERVED):  # the server is that of all tests
            server.kubectl("delete", "finetunejobs", "--all", "-n", namespace)


def read_metrics(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus would read, by name and labels."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return {
        (sample.name.removeprefix("largeforge_operator_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_it_serves_its_namespaces_is_refused_nothing_and_looks_at_no_other(server: Server, running: Operator):
    job = manifest(name="namespaced")
    for namespace in (FOREIGN, SERVED):
        metadata = {"name": job["metadata"]["name"], "namespace": namespace}
        apply(server, [{k: job[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": metadata}])

    def status(namespace: str) -> dict[str, Any]:
        found = server.kubectl("get", "finetunejob", "namespaced", "-n", namespace, "-o", "json").stdout
        result: dict[str, Any] = json.loads(found).get("status", {})
        return result

    until(lambda: "no PersistentVolumeClaim" in status(SERVED).get("message", ""), running.log)
    assert status(FOREIGN) == {}
    said = running.log()
    assert [line for line in said.splitlines() if "cannot" in line or "orbidden" in line] == []

    def metric(name: str, **labels: str) -> float:
        return read_metrics(running.port).get((name, frozenset(labels.items())), 0.0)

    until(lambda: metric("objects", kind="FineTuneJob", phase="Pending") == 1, lambda: str(read_metrics(running.port)))
    assert metric("reconcile_seconds_count", kind="FineTuneJob") >= 1
    assert metric("api_requests_total", verb="patch", resource="finetunejobs/status", code="200") >= 1
    for resource in ("finetunejobs", "pods"):  # kopf's requests are counted with ours: one watch for each namespace
        assert metric("api_requests_total", verb="watch", resource=resource, code="200") >= 2
