"""`kubectl largeforge` as kubectl runs it, and the typed client, against a real API server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from dev.cluster.programs import program
from largeforge.api.finetunejob import FineTuneJob
from largeforge.cli.suspend import hold
from largeforge.client import ClientError, JobFailedError, open_client
from largeforge.kube.client import connect
from largeforge.kube.cluster import FINETUNEJOBS, Conflict, Invalid
from tests.unit.training import ARTIFACT
from tests.unit.training import manifest as job_manifest

pytestmark = pytest.mark.integration

REPO = Path(__file__).resolve().parents[2]
NAMESPACE = "cli"
DEADLINE = 60.0
PROGRAMS = Path(sys.executable).parent
CONDITION = {"observedGeneration": 1, "lastTransitionTime": "2026-11-25T12:00:00Z"}
COMPLETE = CONDITION | {"type": "Complete", "status": "True", "reason": "Succeeded", "message": "trained"}
FAILED = CONDITION | {"type": "Failed", "status": "True", "reason": "DatasetInvalid", "message": "row 17: no answer"}
VIEWER = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: viewer}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: viewer}}
rules:
  - apiGroups: [largeforge.ai]
    resources: [finetunejobs, quantizejobs, inferenceservices, experts]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: viewer}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}}
subjects: [{{kind: ServiceAccount, name: viewer, namespace: {NAMESPACE}}}]
"""


@pytest.fixture(scope="module")
def kubeconfig(server, tmp_path_factory):
    """A kubeconfig whose context names the namespace."""
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    path = tmp_path_factory.mktemp("cli") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def viewer(server, kubeconfig):
    """The kubeconfig of somebody who may only look at our kinds."""
    made = server.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=VIEWER)
    assert made.returncode == 0, made.stderr
    token = server.kubectl("-n", NAMESPACE, "create", "token", "viewer")
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    path = kubeconfig.with_name("viewer")
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def job(server, kubeconfig, request):
    """A FineTuneJob of the test's own; with its name comes what writes its status."""
    assert kubeconfig
    made = job_manifest()
    name = "t" + str(abs(hash(request.node.name)))[:12]
    made["metadata"] = {"name": name}
    done = server.kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(made))
    assert done.returncode == 0, done.stderr

    def becomes(**status):
        patch = json.dumps({"status": {"observedGeneration": 1} | status})
        where = ("-n", NAMESPACE, "patch", "finetunejob", name, "--subresource=status")
        done = server.kubectl(*where, "--type=merge", "-p", patch)
        assert done.returncode == 0, done.stderr

    yield name, becomes
    server.kubectl("-n", NAMESPACE, "delete", "finetunejob", name, "--ignore-not-found")


def environ(kubeconfig):
    path = os.pathsep.join([str(PROGRAMS), str(program("kubectl").parent), os.environ["PATH"]])
    return {"PATH": path, "HOME": "/nonexistent", "KUBECONFIG": str(kubeconfig)}


def kubectl(kubeconfig, *arguments):
    return subprocess.run(
        [program("kubectl"), *arguments],
        env=environ(kubeconfig),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )


@asynccontextmanager
async def started(kubeconfig, *arguments):
    """Python with *arguments* and the cluster; it is gone at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        env=environ(kubeconfig),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_kubectl_finds_the_plugin_and_the_contexts_namespace_is_meant(kubeconfig, job):
    name, becomes = job
    becomes(phase="Running", message="training", progress={"summary": "30% 120/400", "loss": "1.83"})
    done = kubectl(kubeconfig, "largeforge", "status")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if f"ftj/{name}" in line]
    assert line.split()[1] == "Running"
    assert line.endswith("training; 30% 120/400, loss 1.83")
    items = json.loads(kubectl(kubeconfig, "largeforge", "status", "-A", "-o", "json").stdout)["items"]
    assert {"cli"} == {item["namespace"] for item in items if item["name"] == name}


def test_kubectl_completes_commands_and_names(kubeconfig, job):
    name, _ = job
    done = kubectl(kubeconfig, "__complete", "largeforge", "sus")
    assert done.stdout.splitlines() == ["suspend", ":4"], done.stderr
    done = kubectl(kubeconfig, "__complete", "largeforge", "suspend", f"ftj/{name[:3]}")
    assert f"ftj/{name}" in done.stdout.splitlines()


def test_suspend_and_resume_change_one_field_and_the_object_stays_the_same(server, kubeconfig, job):
    name, _ = job
    before = stored(server, name)
    assert kubectl(kubeconfig, "largeforge", "suspend", f"ftj/{name}").returncode == 0
    held = stored(server, name)
    assert held["spec"] == before["spec"] | {"suspend": True}
    assert held["metadata"]["uid"] == before["metadata"]["uid"]
    generation = held["metadata"]["generation"]
    assert "already" in kubectl(kubeconfig, "largeforge", "suspend", name).stdout
    assert stored(server, name)["metadata"]["generation"] == generation
    assert kubectl(kubeconfig, "largeforge", "resume", name).returncode == 0
    assert stored(server, name)["spec"] == before["spec"] | {"suspend": False}


def stored(server, name):
    return json.loads(server.kubectl("-n", NAMESPACE, "get", "finetunejob", name, "-o", "json").stdout)


def test_who_may_only_look_sees_status_and_is_told_what_suspending_needs(viewer, job):
    name, _ = job
    assert f"ftj/{name}" in kubectl(viewer, "largeforge", "status").stdout
    assert kubectl(viewer, "largeforge", "progress", "--once", name).returncode == 0
    for arguments in (("suspend", name), ("status", "-A")):
        done = kubectl(viewer, "largeforge", *arguments)
        assert done.returncode == 1
        assert "forbidden" in done.stderr
        assert "<release>-view" in done.stderr
        assert done.stderr.count("\n") == 1


async def test_progress_follows_the_real_watch_to_the_end(kubeconfig, job):
    name, becomes = job
    async with started(kubeconfig, "-m", "largeforge.cli", "progress", f"ftj/{name}") as process:
        assert (await process.stdout.readline()).startswith(b"New: ")
        await asyncio.to_thread(becomes, phase="Running", message="training")
        assert await process.stdout.readline() == b"Running: training\n"
        await asyncio.to_thread(becomes, phase="Complete", message="trained", conditions=[COMPLETE])
        assert await process.stdout.read() == b"Complete: trained\n"
        assert await process.wait() == 0


@pytest.fixture
def interruptible():
    """A shell that starts the tests in the background has them, and all that they start, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
async def test_an_interrupt_ends_progress_with_the_code_that_shells_know(kubeconfig, job):
    name, _ = job
    async with started(kubeconfig, "-m", "largeforge.cli", "progress", name) as process:
        assert (await process.stdout.readline()).startswith(b"New: ")
        process.send_signal(signal.SIGINT)
        assert (await process.stdout.read(), await process.stderr.read()) == (b"", b"")
        assert await process.wait() == 130


async def test_the_program_of_the_document_prints_what_came_of_its_job(server, kubeconfig):
    (block,) = re.findall(r"^```python\n(.*?)^```", (REPO / "docs/cli.md").read_text(), re.MULTILINE | re.DOTALL)
    assert server.kubectl("create", "namespace", "team").returncode == 0
    where = ("-n", "team", "finetunejob", "sql-sft")
    status = {"conditions": [COMPLETE], "artifact": ARTIFACT, "metrics": [{"name": "eval_loss", "value": "1.25"}]}
    patch = json.dumps({"status": {"observedGeneration": 1} | status})
    async with started(kubeconfig, "-c", block) as process:
        await asyncio.to_thread(server.kubectl, "wait", "--for=create", *where, f"--timeout={DEADLINE:.0f}s")
        await asyncio.to_thread(server.kubectl, "patch", *where, "--subresource=status", "--type=merge", "-p", patch)
        assert await process.stdout.read() == f"{ARTIFACT['uri']} 1.25\n".encode()
        assert await process.wait() == 0


def test_a_namespace_without_a_router_and_an_object_without_a_pod_are_said(kubeconfig, job):
    name, _ = job
    done = kubectl(kubeconfig, "largeforge", "chat", "hello")
    assert (done.returncode, done.stderr.startswith("error: no router in namespace 'cli'")) == (1, True)
    done = kubectl(kubeconfig, "largeforge", "logs", name)
    assert done.stderr == f"error: ftj/{name} has no pod: New, waits for the operator, which has not seen it\n"


def test_a_router_whose_pod_does_not_run_is_said_in_kubectls_words(server, kubeconfig):
    labels = {"app.kubernetes.io/part-of": "largeforge", "app.kubernetes.io/component": "router"}
    metadata = {"name": "largeforge-router", "namespace": "cli-router", "labels": labels}
    containers = [{"name": "router", "image": "router:1"}]
    for made in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cli-router"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata | {"name": "default"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        | {"spec": {"selector": labels, "ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata} | {"spec": {"containers": containers}},
    ):
        done = server.kubectl("create", "-f", "-", stdin=json.dumps(made))
        assert done.returncode == 0, done.stderr
    done = kubectl(kubeconfig, "largeforge", "route", "hello", "-n", "cli-router")
    assert done.returncode == 1
    assert done.stderr == (
        "error: service cli-router/largeforge-router cannot be reached through the API server: unable to forward port"
        " because pod is not running. Current status=Pending; give the router's address with --router\n"
    )


def test_a_cluster_that_is_not_there_is_one_line(tmp_path):
    done = kubectl(tmp_path / "none", "largeforge", "status")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no credentials for a cluster: ")
    assert done.stderr.endswith("set KUBECONFIG\n")
    assert done.stderr.count("\n") == 1


async def test_the_client_applies_waits_and_reads_the_result(kubeconfig, job, monkeypatch):
    name, becomes = job
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with open_client() as client:
        assert client.namespace == NAMESPACE
        wanted = FineTuneJob.model_validate({"metadata": {"name": name}, "spec": job_manifest()["spec"]})
        applied = await client.apply(wanted)
        assert applied.metadata.generation == 1
        waiting = asyncio.create_task(client.result(applied, seconds=DEADLINE))
        metrics = [{"name": "eval_loss", "value": "1.25"}]
        await asyncio.to_thread(becomes, phase="Complete", conditions=[COMPLETE], artifact=ARTIFACT, metrics=metrics)
        made = await waiting
    assert (made.artifact.uri, made.metrics, made.expert) == (ARTIFACT["uri"], {"eval_loss": 1.25}, None)


async def test_the_client_owns_only_what_it_gave(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    wanted = FineTuneJob.model_validate({"metadata": {"name": "owned"}, "spec": job_manifest()["spec"]})
    async with open_client(namespace=NAMESPACE) as client, connect() as cluster:
        await client.apply(wanted)
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "owned")
        (owned,) = raw["metadata"]["managedFields"]
        assert owned["manager"] == "largeforge-client"
        assert {key.removeprefix("f:") for key in owned["fieldsV1"]["f:spec"]} == set(job_manifest()["spec"])
        await cluster.delete(FINETUNEJOBS, NAMESPACE, "owned", uid=raw["metadata"]["uid"])
        assert await client.get(FineTuneJob, "owned") is None


async def test_the_client_tells_what_the_api_server_refuses_and_how_a_job_failed(kubeconfig, job, monkeypatch):
    name, becomes = job
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with open_client() as client:
        spec = job_manifest(gate={"maxPerplexity": 12})["spec"]
        with pytest.raises(Invalid, match="gate"):
            await client.apply(FineTuneJob.model_validate({"metadata": {"name": "refused"}, "spec": spec}))
        found = await client.get(FineTuneJob, name)
        becomes(phase="Failed", conditions=[FAILED])
        with pytest.raises(JobFailedError, match="DatasetInvalid: row 17"):
            await client.wait(found, seconds=DEADLINE)
        absent = found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": "absent"})})
        with pytest.raises(ClientError, match="no FineTuneJob 'absent'"):
            await client.wait(absent, seconds=DEADLINE)


async def test_an_object_that_went_is_not_made_anew_by_resuming_it(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    gone = job_manifest(name="gone", suspend=True)
    gone["metadata"] |= {"namespace": NAMESPACE, "uid": "0f0f0f0f-0000-4000-8000-000000000000"}
    async with connect() as cluster:
        with pytest.raises(Conflict):
            await hold(cluster, gone, held=False)
        assert await cluster.get(FINETUNEJOBS, NAMESPACE, "gone") is None
