"""Experts at a real API server, with a stub for the engine, and the statuses of Jobs and pods written by the test."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest

from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.api.expert import Expert
from largeforge.api.inspect import InspectConfig, InspectResult
from largeforge.api.messages import QUESTION
from largeforge.api.meta import condition
from largeforge.controllers import expert
from largeforge.controllers.context import utc_now
from largeforge.controllers.enginehttp import HttpEngines, connect_session
from largeforge.controllers.expertremoval import finalizer_change
from largeforge.controllers.routerreports import RouterReports
from largeforge.controllers.workqueue import Key
from largeforge.kube.client import ApiCluster
from largeforge.kube.cluster import EXPERTS, INFERENCESERVICES, JOBS, PODS, ClusterError
from largeforge.kube.transport import APPLY, Request, open_transport, path
from tests.integration.enginestub import Stub, serving
from tests.integration.played import Dying
from tests.unit.fakes import Killed
from tests.unit.training import SETTINGS

pytestmark = pytest.mark.integration

NAMESPACE = "experts"
SERVICE = "smol"
OUTSIDE, STORE = "pvc://uploads", "pvc://models/out"
FINALIZER = "largeforge.ai/artifact"


def digest(name):
    """Of the weights that lie in the folder of the Expert *name*."""
    return hashlib.sha256(name.encode()).hexdigest()


def served(name):
    """What the engine knows then."""
    return {f"{name}-{digest(name)[:8]}": f"/mnt/adapters/{digest(name)}"}


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    assert server.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE).returncode == 0
    return server.kubeconfig


class World:
    """The Experts of the namespace, one service with one pod, and its engine."""

    def __init__(self, transport, engines, stub, *, kill_at=None, operator=None):
        self.transport, self.engines, self.stub = transport, engines, stub
        self.api = ApiCluster(transport)
        self.cluster = Dying(ApiCluster(operator or transport), kill_at)
        self.offset = timedelta()

    def now(self):
        return utc_now() + self.offset

    async def look(self, name):
        context = SimpleNamespace(
            cluster=self.cluster,
            engines=self.engines,
            master_key=b"m" * 32,
            settings=SETTINGS,
            reports=RouterReports(),
            now=self.now,
        )
        return await expert.reconcile(Key(NAMESPACE, name), context)

    async def settle(self, name):
        """Let the operator look, killed and started again where that is the plan, until it writes nothing."""
        for _ in range(40):
            before = self.cluster.writes
            try:
                await self.look(name)
            except Killed:
                continue
            if self.cluster.writes == before:
                return
        raise AssertionError("it never rests")

    async def raw(self, name):
        return await self.api.get(EXPERTS, NAMESPACE, name)

    async def said(self, name, kind="Ready"):
        found = condition(Expert.model_validate(await self.raw(name)).status.conditions, kind)
        return found.status, found.reason

    async def apply(self, resource, kind, name, spec):
        head = {"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
        await self._apply(resource, head | {"spec": spec})

    async def begin(self, name, **spec):
        """The Expert *name*, at the service of all tests."""
        artifact = {"uri": f"{OUTSIDE}/{name}"}
        wished = {"type": "Adapter", "artifact": artifact, "inferenceServiceRef": {"name": SERVICE}} | spec
        await self.apply(EXPERTS, "Expert", name, wished)

    async def jobs(self, name, purpose):
        """The Jobs that ask about the files of *name*."""
        found = await self.api.list(JOBS, NAMESPACE, labels={"largeforge.ai/expert": name})
        return [job for job in found if job["metadata"]["labels"]["app.kubernetes.io/name"] == purpose]

    async def answer(self, name, purpose):
        """The Job's pod ends well, and the Job's controller says so."""
        (job,) = [j for j in await self.jobs(name, purpose) if not j.get("status", {}).get("conditions")]
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        question = next(v["value"] for v in env if v["name"] == QUESTION)
        if purpose == "inspect":
            config = InspectConfig.model_validate_json(question)
            facts = {"request": config.request, "digest": digest(name), "rank": 8, "base": "org/base"}
            result = InspectResult(outcome="Succeeded", request=config.request, adapter=facts)
        else:
            copied = DeliverConfig.model_validate_json(question)
            result = DeliverResult(outcome="Succeeded", request=copied.request, uri=copied.target_uri)
        template = job["spec"]["template"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        }
        pod = await self._pod(
            f"{job['metadata']['name']}-x",
            template["spec"],
            labels=template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": job["metadata"]["name"]},
            ownerReferences=[owner | {"controller": True}],
        )
        time = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": 0, "message": result.message(), "startedAt": time, "finishedAt": time}
        await self._status(pod, "errand", {"state": {"terminated": ended}}, phase="Succeeded")
        told = {"lastTransitionTime": time, "lastProbeTime": time, "status": "True", "reason": "Done", "message": ""}
        status = {
            "startTime": time,
            "completionTime": time,
            "succeeded": 1,
            "uncountedTerminatedPods": {},
            "conditions": [told | {"type": kind} for kind in ("SuccessCriteriaMet", "Complete")],
        }
        head = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job["metadata"]["name"], "namespace": NAMESPACE},
        }
        await self.api.patch_status(head | {"status": status}, manager="job-controller")

    async def provide(self):
        """The service and its pod, which is ready."""
        spec = {"model": {"uri": "pvc://models/base"}, "lora": {"store": STORE}, "compute": {"gpusPerReplica": 0}}
        await self.apply(INFERENCESERVICES, "InferenceService", SERVICE, spec)
        container = {"name": "engine", "image": "engine:1"}
        pod = await self._pod(
            f"{SERVICE}-engine-1",
            {"containers": [container], "nodeName": "node-1"},
            labels={"largeforge.ai/inferenceservice": SERVICE},
        )
        ready = {"ready": True, "containerID": "containerd://c1", "state": {"running": {"startedAt": None}}}
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": None}]
        await self._status(pod, "engine", ready, phase="Running", podIP="127.0.0.1", conditions=conditions)

    async def _pod(self, name, spec, **metadata):
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE} | metadata}
        if await self.api.get(PODS, NAMESPACE, name) is None:
            await self.transport.call(Request("POST", path(PODS, NAMESPACE), body=body | {"spec": spec}))
        return name

    async def _status(self, pod, container, state, **status):
        seen = {"name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0} | state
        head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}}
        await self._apply(PODS, head | {"status": {"containerStatuses": [seen]} | status}, part="/status")

    async def _apply(self, resource, body, part=""):
        url = path(resource, NAMESPACE, body["metadata"]["name"]) + part
        query = {"fieldManager": "played", "force": "true"}
        return await self.transport.call(Request("PATCH", url, query, body, APPLY))


@asynccontextmanager
async def world_of(kubeconfig, monkeypatch, *, kill_at=None, operator=None):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    stub = Stub(SERVICE)
    async with (
        serving(stub) as port,
        connect_session() as session,
        open_transport(user_agent="largeforge-test") as transport,
    ):
        world = World(transport, HttpEngines(session, port=port), stub, kill_at=kill_at, operator=operator)
        await world.provide()
        yield world


@pytest.fixture
def begun(kubeconfig, monkeypatch):
    return lambda **more: world_of(kubeconfig, monkeypatch, **more)


async def to_ready(world, name, **spec):
    await world.begin(name, **spec)
    await world.settle(name)
    await world.answer(name, "inspect")
    await world.settle(name)
    await world.answer(name, "deliver")
    await world.settle(name)
    assert await world.said(name) == ("True", "Ready")


async def delete(server, name):
    done = server.kubectl("delete", "expert", name, "-n", NAMESPACE, "--wait=false")
    assert done.returncode == 0, done.stderr


async def test_an_adapter_from_a_folder_becomes_ready_and_rests(server, begun):
    async with begun() as world:
        await to_ready(world, "whole", version="1.2.0", stage="Staging", routing={"domains": ["sql"]})
        assert world.stub.adapters == served("whole")
        assert world.stub.key.startswith("Bearer ")
        done = server.kubectl("wait", "--for=condition=Ready", "expert/whole", "-n", NAMESPACE, "--timeout=5s")
        assert done.returncode == 0, done.stderr
        row = server.kubectl("get", "xp", "whole", "-n", NAMESPACE, "-o", "wide").stdout
        for word in ("Adapter", "sql", "1.2.0", "Staging", SERVICE, "1/1", "True", "hf://org/base", OUTSIDE):
            assert word in row, row
        raw, asked = await world.raw("whole"), list(world.stub.asked)
        await world.settle("whole")
        assert await world.raw("whole") == raw, "a second look writes nothing"
        assert world.stub.asked == asked
        assert "finalizers" not in raw["metadata"]


@pytest.mark.parametrize("kill_at", range(6))
async def test_killed_before_any_write_it_comes_to_the_same_end(begun, kill_at):
    async with begun(kill_at=kill_at) as world:
        name = f"killed-{kill_at}"
        await to_ready(world, name)
        assert world.stub.adapters == served(name)
        assert [len(await world.jobs(name, purpose)) for purpose in ("inspect", "deliver")] == [1, 1]
        assert world.cluster.kill_at is None, "it was killed"
    async with begun() as world:
        await world.api.delete(EXPERTS, NAMESPACE, name, uid=(await world.raw(name))["metadata"]["uid"])


async def test_a_deletion_waits_for_the_files_and_then_ends(server, begun):
    async with begun() as world:
        await to_ready(world, "leaving", deletionPolicy="Delete")
        assert (await world.raw("leaving"))["metadata"]["finalizers"] == [FINALIZER]
        await delete(server, "leaving")
        await world.settle("leaving")
        assert await world.said("leaving") == ("False", "Removing")
        await world.answer("leaving", "remove")
        await world.settle("leaving")
        assert len(await world.jobs("leaving", "remove")) == 2  # the source, and its copy
        await world.answer("leaving", "remove")
        await world.settle("leaving")
        assert await world.raw("leaving") is None


async def test_retain_lets_an_object_go_that_waits(server, begun):
    async with begun() as world:
        await to_ready(world, "staying", deletionPolicy="Delete")
        await delete(server, "staying")
        await world.settle("staying")
        patch = json.dumps({"spec": {"deletionPolicy": "Retain"}})
        done = server.kubectl("patch", "expert", "staying", "-n", NAMESPACE, "--type=merge", "-p", patch)
        assert done.returncode == 0, done.stderr
        await world.settle("staying")
        assert await world.raw("staying") is None


async def test_the_documented_command_lets_it_go_without_an_operator(server, begun):
    async with begun() as world:
        await to_ready(world, "alone", deletionPolicy="Delete")
        await delete(server, "alone")
        assert await world.raw("alone") is not None
        patch = '[{"op": "remove", "path": "/metadata/finalizers"}]'
        done = server.kubectl("patch", "expert", "alone", "-n", NAMESPACE, "--type=json", "-p", patch)
        assert done.returncode == 0, done.stderr
        assert await world.raw("alone") is None


async def test_without_delete_an_object_goes_at_once_though_no_operator_runs(server, begun):
    async with begun() as world:
        await to_ready(world, "plain")
        await delete(server, "plain")
        assert await world.raw("plain") is None


async def test_an_object_that_went_meanwhile_is_not_made_again_by_its_finalizer(begun):
    async with begun() as world:
        await world.begin("fleeting", deletionPolicy="Delete")
        raw = await world.raw("fleeting")
        await world.api.delete(EXPERTS, NAMESPACE, "fleeting", uid=raw["metadata"]["uid"])
        with pytest.raises(ClusterError):
            await world.api.apply(finalizer_change(Expert.model_validate(raw)))
        assert await world.raw("fleeting") is None
