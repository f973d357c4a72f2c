from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from largeforge import __version__
from largeforge.controllers import workqueue
from largeforge.controllers.fleet import Fleet
from largeforge.controllers.metrics import REGISTRY, ApiCalls
from largeforge.controllers.workqueue import Key, WorkQueue
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, JOBS, PODS, Conflict
from largeforge.kube.traffic import NO_ANSWER, Call, call_of, tracing

OURS = "largeforge_operator_"
JOB = "/apis/largeforge.ai/v1alpha1/namespaces/team/finetunejobs"


def value(name, registry=REGISTRY, **labels):
    """One series; None where there is none."""
    return registry.get_sample_value(OURS + name, labels)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a deadline stands above
            await asyncio.sleep(0.001)


def test_a_replica_without_leader_election_acts_and_says_which_version_it_is():
    assert value("leader") == 1
    assert 'largeforge_operator_build_info{python="' in generate_latest(REGISTRY).decode()
    assert f'version="{__version__}"' in generate_latest(REGISTRY).decode()


async def test_a_queue_says_how_many_wait_and_for_how_long_the_first_has():
    gate, seen = asyncio.Event(), []

    async def reconcile(key):
        seen.append(key)
        await gate.wait()

    queue = WorkQueue("waiting", reconcile, workers=1)
    assert (value("queue_length", kind="waiting"), value("queue_oldest_seconds", kind="waiting")) == (0, 0)
    for name in "abc":
        queue.add(Key("team", name))
    task = asyncio.create_task(queue.run())
    try:
        await until(lambda: seen)
        assert value("queue_length", kind="waiting") == 2
        before = value("queue_oldest_seconds", kind="waiting")
        await until(lambda: value("queue_oldest_seconds", kind="waiting") > before)
        gate.set()
        await until(lambda: value("reconcile_seconds_count", kind="waiting") == 3)
        assert (value("queue_length", kind="waiting"), value("queue_oldest_seconds", kind="waiting")) == (0, 0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_errors_are_counted_by_their_word_and_an_object_is_failing_until_it_goes_well(monkeypatch):
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 0.01)
    ends, last = [Conflict("another writer"), TimeoutError(), ValueError("a mistake")], asyncio.Event()

    async def reconcile(_):
        if ends:
            raise ends.pop(0)
        await last.wait()

    queue = WorkQueue("trouble", reconcile, workers=1)
    task = asyncio.create_task(queue.run())
    try:
        queue.add(Key("team", "a"))
        await until(lambda: not ends and value("reconcile_seconds_count", kind="trouble") == 3)
        for reason in ("Conflict", "Timeout", "Mistake"):
            assert value("reconcile_errors_total", kind="trouble", reason=reason) == 1
        assert value("failing_objects", kind="trouble") == 1
        last.set()
        await until(lambda: value("failing_objects", kind="trouble") == 0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "resource"),
    [
        ("GET", JOB, {}, "list", "finetunejobs"),
        ("GET", JOB, {"watch": "true"}, "watch", "finetunejobs"),
        ("GET", "/apis/batch/v1/jobs", {"watch": "true"}, "watch", "jobs"),
        ("GET", f"{JOB}/sql", {}, "get", "finetunejobs"),
        ("PATCH", f"{JOB}/sql/status", {}, "patch", "finetunejobs/status"),
        ("POST", "/api/v1/namespaces/team/configmaps", {}, "create", "configmaps"),
        ("DELETE", "/apis/batch/v1/namespaces/team/jobs/sql-r1-a1", {}, "delete", "jobs"),
        ("GET", "/api/v1/namespaces/team/pods/sql/log", {}, "get", "pods/log"),
        ("GET", "/api/v1/namespaces/team", {}, "get", "namespaces"),
        ("GET", "/apis/keda.sh/v1alpha1", {}, "get", "nonresource"),
        ("GET", "/openid/v1/jwks", {}, "get", "nonresource"),
    ],
)
def test_a_request_is_called_what_a_role_calls_it_and_no_object_is_named(method, path, query, verb, resource):
    call = call_of(method, path, query)
    assert (call.verb, call.resource) == (verb, resource)


async def test_a_session_tells_of_each_request_that_is_answered_or_not():
    seen = []

    async def busy(_):
        return web.Response(status=429)

    app = web.Application()
    app.add_routes([web.get(JOB, busy)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        trace = tracing(lambda call, code, seconds: seen.append((call.verb, call.resource, code, seconds >= 0)))
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            async with session.get(f"http://127.0.0.1:{port}{JOB}", params={"watch": "true"}):
                pass
            await runner.cleanup()
            with pytest.raises(aiohttp.ClientError):
                await session.post(f"http://127.0.0.1:{port}{JOB}")
    finally:
        await runner.cleanup()
    assert seen == [("watch", "finetunejobs", "429", True), ("create", "finetunejobs", NO_ANSWER, True)]


def test_a_watch_that_begins_again_is_a_restart_and_another_namespaces_is_none():
    calls = ApiCalls()
    for scope in ("/a/ns/x", "/a/ns/x", "/a/ns/y", "/a/ns/x"):
        calls.observe(Call("watch", "things", scope), "200", 0.01)
    assert value("watch_restarts_total", resource="things") == 2
    assert value("api_requests_total", verb="watch", resource="things", code="200") == 4


class Watched:
    """A fleet, its clock, and its registry."""

    def __init__(self):
        self.now = 100.0
        self.fleet = Fleet(lambda: self.now)
        self.registry = CollectorRegistry()
        self.registry.register(self.fleet)

    def see(self, resource, body, *, gone=False):
        self.fleet.note(resource, body, gone=gone)

    def value(self, name, **labels):
        return value(name, self.registry, **labels)


def thing(name="sql", *, phase=None, gpu_resource="nvidia.com/gpu"):
    status = {"status": {"phase": phase}} if phase else {}
    spec = {"compute": {"gpuResource": gpu_resource}}
    return {"metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"}, "spec": spec, **status}


def pod(name="p", *, phase="Running", node="n1", kind="finetunejob", **limits):
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "labels": {f"largeforge.ai/{kind}": "sql"},
        },
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": {"cpu": "8", **limits}}}]},
        "status": {"phase": phase},
    }


def test_objects_are_counted_by_kind_and_phase_and_go_with_their_deletion():
    watched = Watched()
    for name, phase in (("a", "Running"), ("b", "Running"), ("c", None)):
        watched.see(FINETUNEJOBS, thing(name, phase=phase))
    watched.see(EXPERTS, thing("a", phase="Ready"))
    watched.see(JOBS, thing("a-r1-a1"))
    assert watched.value("objects", kind="FineTuneJob", phase="Running") == 2
    assert watched.value("objects", kind="FineTuneJob", phase="None") == 1
    assert watched.value("objects", kind="Expert", phase="Ready") == 1
    watched.see(FINETUNEJOBS, thing("a", phase="Complete"))
    watched.see(FINETUNEJOBS, thing("b", phase="Running"), gone=True)
    assert watched.value("objects", kind="FineTuneJob", phase="Running") is None
    assert watched.value("objects", kind="FineTuneJob", phase="Complete") == 1


def test_gpu_seconds_run_while_a_pod_is_on_a_node_and_stay_when_it_has_ended():
    watched = Watched()
    watched.see(FINETUNEJOBS, thing())
    gpus = {"nvidia.com/gpu": "4", "rdma/hca": "1"}
    labels = {"object_namespace": "team", "kind": "FineTuneJob"}
    watched.see(PODS, pod(node="", phase="Pending", **gpus))
    watched.now += 50  # it waits for a node, and holds nothing
    watched.see(PODS, pod(phase="Pending", **gpus))
    watched.now += 10
    watched.see(PODS, pod(**gpus))
    watched.now += 5
    assert (watched.value("gpus", **labels), watched.value("gpu_seconds_total", **labels)) == (4, 60)
    watched.see(PODS, pod(phase="Succeeded", **gpus))
    watched.now += 1000
    watched.see(PODS, pod(phase="Succeeded", **gpus), gone=True)
    assert (watched.value("gpus", **labels), watched.value("gpu_seconds_total", **labels)) == (0, 60)
    watched.see(PODS, pod("q", **gpus))
    watched.now += 1
    watched.see(PODS, pod("q", **gpus), gone=True)  # its node was lost
    assert watched.value("gpu_seconds_total", **labels) == 64


def test_a_pod_that_is_seen_before_its_object_is_counted_once_its_resource_is_known():
    watched = Watched()
    watched.see(PODS, pod(kind="inferenceservice", **{"amd.com/gpu": "2"}))
    watched.now += 10
    labels = {"object_namespace": "team", "kind": "InferenceService"}
    assert watched.value("gpu_seconds_total", **labels) == 0
    watched.see(INFERENCESERVICES, thing(gpu_resource="amd.com/gpu"))
    assert watched.value("gpu_seconds_total", **labels) == 20


def test_a_pod_without_gpus_is_not_in_the_figures():
    watched = Watched()
    watched.see(FINETUNEJOBS, thing())
    watched.see(PODS, pod())
    assert watched.value("gpu_seconds_total", object_namespace="team", kind="FineTuneJob") is None
