"""The operator as a process, with the rights of a namespaced install and no others."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dev import chart
from tests.integration.conftest import REPO, Server
from tests.integration.test_chart import apply, make_namespaces, rendered
from tests.unit.training import manifest

pytestmark = pytest.mark.integration

SERVED, FOREIGN = "support", "demo"
SECONDS = 90
ACCOUNT = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "largeforge-operator", "namespace": chart.NAMESPACE},
}


def until(holds: Callable[[], bool], say: Callable[[], str]) -> None:
    """Wait for *holds*; *say* what there is instead when the time is over."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, say()
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> Path:
    """The credentials of the operator's account, with the rights that the chart gives it."""
    make_namespaces(server)
    apply(server, [ACCOUNT, *(o for o in rendered("namespaced") if o["kind"] in {"Role", "RoleBinding"})])
    token = server.kubectl("create", "token", "largeforge-operator", "-n", chart.NAMESPACE).stdout.strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


@pytest.fixture
def port() -> int:
    """Where the operator has its metrics."""
    return free_port()


@pytest.fixture
def log(server: Server, kubeconfig: Path, tmp_path: Path, port: int) -> Iterator[Path]:
    """The log of the operator, while it runs."""
    key, said = tmp_path / "key", tmp_path / "operator.log"
    key.write_bytes(secrets.token_bytes(32))
    images = ("TRAINER", "ENGINE", "ENGINE_CPU", "QUANTIZER", "QUANTIZER_AUTOAWQ")
    environment = {f"LARGEFORGE_{image}_IMAGE": f"{image.lower()}:1" for image in images} | {
        "LARGEFORGE_NAMESPACES": "sales,support",
        "LARGEFORGE_MASTER_KEY_FILE": str(key),
        "LARGEFORGE_PORT": str(port),
        "KUBECONFIG": str(kubeconfig),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "largeforge.controllers"], env=environment, cwd=REPO, stdout=out, stderr=out
        )
    try:
        until(lambda: "watching sales, support" in said.read_text() or process.poll() is not None, said.read_text)
        assert process.poll() is None, said.read_text()
        yield said
    finally:
        process.terminate()
        process.wait(30)
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


def test_it_serves_its_namespaces_is_refused_nothing_and_looks_at_no_other(server: Server, log: Path, port: int):
    job = manifest(name="namespaced")
    for namespace in (FOREIGN, SERVED):
        metadata = {"name": job["metadata"]["name"], "namespace": namespace}
        apply(server, [{k: job[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": metadata}])

    def status(namespace: str) -> dict[str, Any]:
        found = server.kubectl("get", "finetunejob", "namespaced", "-n", namespace, "-o", "json").stdout
        result: dict[str, Any] = json.loads(found).get("status", {})
        return result

    until(lambda: "no PersistentVolumeClaim" in status(SERVED).get("message", ""), log.read_text)
    assert status(FOREIGN) == {}
    said = log.read_text()
    assert [line for line in said.splitlines() if "cannot" in line or "orbidden" in line] == []

    def metric(name: str, **labels: str) -> float:
        return read_metrics(port).get((name, frozenset(labels.items())), 0.0)

    until(lambda: metric("objects", kind="FineTuneJob", phase="Pending") == 1, lambda: str(read_metrics(port)))
    assert metric("reconcile_seconds_count", kind="FineTuneJob") >= 1
    assert metric("api_requests_total", verb="patch", resource="finetunejobs/status", code="200") >= 1
    for resource in ("finetunejobs", "pods"):  # kopf's requests are counted with ours: one watch for each namespace
        assert metric("api_requests_total", verb="watch", resource=resource, code="200") >= 2
