"""Progress at a real API server: its own tokens for a pod, its public keys, and what field managers do."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest

from largeforge.api.finetunejob import FineTuneJob
from largeforge.controllers.plan import Plan, execute, with_status
from largeforge.controllers.progressboard import Board
from largeforge.controllers.progressserver import serve_progress
from largeforge.controllers.progresstls import ServerTls, authority
from largeforge.controllers.progresstokens import DISCOVERY, KEYS, Tokens
from largeforge.kube.client import connect
from largeforge.kube.cluster import FINETUNEJOBS, JOBS
from tests.unit.progress import Issuer, owner, post
from tests.unit.training import manifest

pytestmark = pytest.mark.integration

NAMESPACE = "progress"
MASTER = bytes(range(32))
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    assert server.kubectl("create", "serviceaccount", "trainer", "-n", NAMESPACE).returncode == 0
    return server.kubeconfig


@asynccontextmanager
async def connected(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with connect() as cluster:
        yield cluster


async def made(server, cluster, name):
    """A FineTuneJob whose first attempt has a Job and a pod: what the operator and the Job's controller would make."""
    raw = manifest(name=name)
    await cluster.apply(raw | {"metadata": {"name": name, "namespace": NAMESPACE}}, manager="user")
    raw = await cluster.get(FINETUNEJOBS, NAMESPACE, name)
    run = {"number": 1, "digest": "d", "stage": "Training", "attempt": 1, "jobName": f"{name}-r1-a1"}
    await cluster.patch_status(with_status(raw, {"phase": "Running", "run": run}))
    container = {"name": "trainer", "image": "trainer:1"}
    batch = await cluster.create_once(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"{name}-r1-a1",
                "namespace": NAMESPACE,
                "ownerReferences": owner("largeforge.ai/v1alpha1", "FineTuneJob", name, raw["metadata"]["uid"]),
            },
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
    )
    return applied(
        server,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-r1-a1-0-abcde",
                "namespace": NAMESPACE,
                "ownerReferences": owner("batch/v1", "Job", f"{name}-r1-a1", batch["metadata"]["uid"]),
            },
            "spec": {"serviceAccountName": "trainer", "containers": [container]},
        },
    )


def applied(server, pod):
    done = server.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(pod))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def token(server, pod, *, audience="largeforge-progress"):
    """What the kubelet asks of TokenRequest for the pod's projected volume."""
    metadata = pod["metadata"]
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", metadata["name"])
    done = server.kubectl(
        *("create", "token", "trainer", "-n", NAMESPACE, "--audience", audience),
        *(*bound, "--bound-object-uid", metadata["uid"]),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@asynccontextmanager
async def served(cluster):
    tls = ServerTls(authority(MASTER), "localhost")
    tls.renew(now=datetime.now(UTC))
    async with serve_progress(0, tls, tokens=Tokens(cluster), board=Board(cluster)) as port:
        yield f"https://localhost:{port}/v1/progress"


async def answer(url, bearer):
    trust = ssl.create_default_context(cadata=authority(MASTER).pem)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.post(url, data=post(), headers={"Authorization": f"Bearer {bearer}"}) as response,
    ):
        return response.status, (await response.text()).strip()


async def test_a_trainers_own_token_moves_the_columns_and_its_end_ends_that(server, kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster, served(cluster) as url:
        pod = await made(server, cluster, "posts")
        bearer = token(server, pod)
        assert await answer(url, bearer) == (200, "{}")
        row = server.kubectl("get", "ftj", "posts", "-n", NAMESPACE).stdout
        assert "30% 120/400" in row
        assert "12m" in row
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "posts")
        assert raw["status"]["phase"] == "Running"
        status = FineTuneJob.model_validate(raw).status
        assert [m.name for m in status.metrics] == ["loss"]
        server.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--force", "--grace-period=0")
    async with connected(kubeconfig, monkeypatch) as cluster, served(cluster) as url:
        assert await answer(url, bearer) == (403, "the pod is gone")


async def test_tokens_of_others_are_refused(server, kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster, served(cluster) as url:
        pod = await made(server, cluster, "strangers")
        other_audience = token(server, pod, audience="https://kubernetes.default.svc.cluster.local")
        assert await answer(url, other_audience) == (401, "the token is not for largeforge-progress")
        unbound = server.kubectl("create", "token", "trainer", "-n", NAMESPACE, "--audience", "largeforge-progress")
        assert await answer(url, unbound.stdout.strip()) == (401, "the token is bound to no pod")
        assert (await answer(url, Issuer().token()))[0] == 401
        alone = applied(
            server,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "strangers-alone",
                    "namespace": NAMESPACE,
                    "labels": {"largeforge.ai/finetunejob": "strangers"},
                },
                "spec": {"serviceAccountName": "trainer", "containers": [{"name": "c", "image": "i"}]},
            },
        )
        assert await answer(url, token(server, alone)) == (403, "the pod is not a Job's")
        batch = await cluster.get(JOBS, NAMESPACE, "strangers-r1-a1")
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "strangers")
        run = raw["status"]["run"] | {"attempt": 2, "jobName": "strangers-r1-a2"}
        await cluster.patch_status(with_status(raw, {"phase": "Running", "run": run}))
        assert batch is not None
        assert await answer(url, token(server, pod)) == (403, "the pod is not of its FineTuneJob's newest attempt")


async def test_two_managers_of_one_status_leave_each_others_fields_alone(server, kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster, served(cluster) as url:
        pod = await made(server, cluster, "managers")
        assert (await answer(url, token(server, pod)))[0] == 200
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "managers")
        posted = FineTuneJob.model_validate(raw).status
        await execute(
            Plan(status=posted.model_copy(update={"message": "attempt 1 is training"})), cluster, raw, now=NOW
        )
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "managers")
        status = FineTuneJob.model_validate(raw).status
        assert (status.message, status.progress, status.metrics) == (
            "attempt 1 is training",
            posted.progress,
            posted.metrics,
        )
        owners = _owners(raw)
        assert owners["progress"] == owners["metrics"] == {"largeforge-progress"}
        assert owners["message"] == {"largeforge"}
        reset = status.model_copy(update={"progress": None, "metrics": [], "message": ""})
        await execute(Plan(status=reset), cluster, raw, now=NOW)
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "managers")
        assert FineTuneJob.model_validate(raw).status == reset
        version = raw["metadata"]["resourceVersion"]
        await execute(Plan(status=reset), cluster, raw, now=NOW)
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "managers")
        assert raw["metadata"]["resourceVersion"] == version


def _owners(raw):
    """Top-level field of status to the managers that own it."""
    found = {}
    for entry in raw["metadata"]["managedFields"]:
        for field in entry["fieldsV1"].get("f:status", {}):
            found.setdefault(field.removeprefix("f:"), set()).add(entry["manager"])
    return found


def test_every_service_account_may_read_the_keys_without_a_right_of_ours(server, kubeconfig):
    assert kubeconfig
    account = f"system:serviceaccount:{NAMESPACE}:trainer"
    groups = ("--as-group", "system:serviceaccounts", "--as-group", "system:authenticated")
    for path in (DISCOVERY, KEYS):
        done = server.kubectl("get", "--raw", path, "--as", account, *groups)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


async def test_the_keys_come_through_our_own_client(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        discovery, keys = await asyncio.gather(cluster.document(DISCOVERY), cluster.document(KEYS))
    assert discovery["issuer"].startswith("https://kubernetes.default.svc")
    assert {key["alg"] for key in keys["keys"]} <= {"RS256", "ES256"}
    assert keys["keys"]
