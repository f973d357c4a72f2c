"""From the last release to this commit and back, with live objects, and uninstalled: by Helm at a real API server.

The operators are processes with the chart's rights; the last release's runs the code that was kept with it. Training
and engines are played: no node is there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev import chart, release
from dev.cluster.apiserver import api_server
from dev.cluster.programs import program
from largeforge.kube.transport import open_transport
from tests.integration import operators
from tests.integration import test_inferenceservice as services
from tests.integration.conftest import Server
from tests.integration.played import play
from tests.integration.test_chart import apply
from tests.integration.test_gitops import KINDS, seen

pytestmark = pytest.mark.integration

LAST = release.newest()
OPERATOR = "largeforge-operator"
TEAM = services.NAMESPACE
TEMPORARY = {"events", "events.events.k8s.io", "componentstatuses"}
"""Kinds whose objects come and go by themselves."""


@dataclass(frozen=True)
class Release:
    """The release on an API server of this test's own."""

    server: Server
    folder: Path

    def helm(self, *arguments: str | Path) -> None:
        """Helm without hooks, since no pod runs: the operators here have a key of the test's."""
        done = subprocess.run(
            [program("helm"), *arguments, "--namespace", chart.NAMESPACE, "--no-hooks"],
            env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(self.server.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def install(self, source: Path) -> None:
        """Install or upgrade to the chart at *source*."""
        self.helm("upgrade", "--install", chart.RELEASE, source, "--set", f"router.namespaces={{{TEAM}}}")

    @contextmanager
    def operator(self, name: str, *, kept: bool) -> Iterator[operators.Operator]:
        """The operator with the rights that are installed: of the release that was *kept*, or of this commit."""
        variables = {
            "LARGEFORGE_OPERATOR_NAMESPACE": chart.NAMESPACE,
            "LARGEFORGE_LEASE_NAME": OPERATOR,
            "LARGEFORGE_POD_NAME": name,
        } | ({"PYTHONPATH": str(self.package)} if kept else {})
        credentials = operators.credentials(self.server, OPERATOR, chart.NAMESPACE, self.folder)
        with operators.operator(credentials, self.folder, name, variables) as running:
            running.says("watching all namespaces")
            yield running
            if running.process.poll() is None:
                running.send(signal.SIGTERM)
                assert running.ends() == 0, running.log()

    @property
    def package(self) -> Path:
        """The last release's code."""
        folder = self.folder / "package"
        if not folder.exists():
            release.unpack_package(LAST, folder)
        return folder

    def objects(self) -> set[tuple[str, str, str]]:
        """Kind, namespace and name of every object that there is, of whatever kind."""
        kinds = self.server.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
        wanted = ",".join(sorted(set(kinds) - TEMPORARY))
        done = self.server.kubectl("get", wanted, "--all-namespaces", "-o", "json")
        assert done.returncode == 0, done.stderr
        found = [(each["kind"], each["metadata"]) for each in json.loads(done.stdout)["items"]]
        return {(kind, metadata.get("namespace", ""), metadata["name"]) for kind, metadata in found}

    def get(self, kind: str, name: str) -> dict[str, Any]:
        done = self.server.kubectl("get", kind, name, "-n", TEAM, "-o", "json", "--ignore-not-found")
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Release]:
    """An API server with the namespaces, and nothing of LargeForge."""
    with api_server() as kubeconfig:
        server = Server(kubeconfig)
        named = [{"name": name} for name in (TEAM, chart.NAMESPACE)]
        apply(server, [{"apiVersion": "v1", "kind": "Namespace", "metadata": each} for each in named])
        apply(server, [operators.account("default", TEAM)])
        yield Release(server, tmp_path)


def live(installed: Release, monkeypatch: pytest.MonkeyPatch):
    """A FineTuneJob whose objects the test plays, while an operator decides."""
    return play(installed.server.kubeconfig, monkeypatch, TEAM, "sql")


def await_job(installed: Release, running: operators.Operator, name: str) -> str:
    """The uid of the Job *name*, once it is there."""
    operators.until(lambda: bool(installed.get("job", name)), running.log)
    return str(installed.get("job", name)["metadata"]["uid"])


def await_phase(installed: Release, running: operators.Operator, phase: str) -> None:
    operators.until(lambda: installed.get("finetunejob", "sql")["status"].get("phase") == phase, running.log)


async def serve(installed: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(installed.server.kubeconfig))
    async with open_transport(user_agent="largeforge-test") as transport:
        await services.Served(transport, "base").apply()


def test_the_kept_release_is_the_code_of_its_version(installed):
    code = "import largeforge; print(largeforge.__version__, largeforge.__file__)"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed.package)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [LAST, str(installed.package / "largeforge" / "__init__.py")]


async def test_an_upgrade_and_a_rollback_leave_a_run_and_a_service_as_they_are(installed, monkeypatch):
    installed.install(release.chart(LAST))
    async with live(installed, monkeypatch) as job:
        await serve(installed, monkeypatch)
        with installed.operator("old", kept=True) as running:
            await_job(installed, running, "sql-r1-p1")
            await job.succeed()
            uid = await_job(installed, running, "sql-r1-a1")
            await job.pod()
            await_phase(installed, running, "Running")
            operators.until(lambda: bool(installed.get("deployment", "base-engine")), running.log)
            engine = installed.get("deployment", "base-engine")["metadata"]["uid"]
        run = (await job.status()).run
        installed.install(chart.CHART)
        with installed.operator("new", kept=False) as running:
            await job.apply(backoffLimit=3)  # decides nothing of the result, and is looked at
            operators.until(lambda: seen(installed.get("finetunejob", "sql")), running.log)
            assert (await job.status()).run == run
            assert installed.get("job", "sql-r1-a1")["metadata"]["uid"] == uid
            await job.succeed()
            await_phase(installed, running, "Complete")
        assert await job.children() == (["sql-r1-a1", "sql-r1-p1"], ["sql-r1-config", "sql-r1-preflight"], [])
        installed.helm("rollback", chart.RELEASE)
        with installed.operator("back", kept=True) as running:
            await job.apply(backoffLimit=4)
            operators.until(lambda: seen(installed.get("finetunejob", "sql")), running.log)
        status = await job.status()
        assert (status.phase, status.run.number, status.history) == ("Complete", 1, [])
        assert installed.get("job", "sql-r1-a1")["metadata"]["uid"] == uid
        assert installed.get("deployment", "base-engine")["metadata"]["uid"] == engine


@pytest.mark.parametrize("operates", [True, False], ids=["with the operator up", "with the operator down"])
async def test_an_uninstallation_leaves_the_users_objects_and_nothing_else(installed, monkeypatch, operates):
    before = installed.objects()
    installed.install(chart.CHART)
    async with live(installed, monkeypatch) as job:
        with installed.operator("leaving", kept=False) as running:
            await_job(installed, running, "sql-r1-p1")
            if operates:
                installed.helm("uninstall", chart.RELEASE)
                running.process.kill()  # what the kubelet does to its pod, at the latest
                running.process.wait()
        if not operates:
            installed.helm("uninstall", chart.RELEASE)
        uid = (await job.job()).metadata.uid
    assert installed.objects() - before == {
        *(("CustomResourceDefinition", "", f"{kind}.largeforge.ai") for kind in KINDS.split(",")),
        ("APIService", "", "v1alpha1.largeforge.ai"),
        ("FineTuneJob", TEAM, "sql"),
        ("Job", TEAM, "sql-r1-p1"),
        ("ConfigMap", TEAM, "sql-r1-preflight"),
        ("PersistentVolumeClaim", TEAM, "models"),
        ("PersistentVolumeClaim", TEAM, "data"),
    }
    assert before - installed.objects() == set()
    assert installed.get("finetunejob", "sql")["metadata"]["uid"] == uid
    done = installed.server.kubectl("delete", "finetunejob", "sql", "-n", TEAM, "--timeout=30s")
    assert done.returncode == 0, done.stderr
