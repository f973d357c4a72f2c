"""Our verbs against a real API server: what it stores, refuses and tells apart."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import ResolvedBase, RunRecord
from largeforge.controllers.finetunejobstatus import Speaker
from largeforge.controllers.plan import Event, Plan, event_manifest, execute, split_status, with_status
from largeforge.kube.client import connect
from largeforge.kube.cluster import CONFIGMAPS, EVENTS, EXPERTS, FINETUNEJOBS, JOBS, Conflict, Invalid
from largeforge.resources.attemptpod import Installation
from largeforge.resources.publishing import missing_of, published_expert
from largeforge.resources.training import run_config_map, training_job
from tests.unit.training import PUBLISH, finetunejob, manifest

pytestmark = pytest.mark.integration

NAMESPACE = "verbs"
HERE = Installation(image="trainer:1", pull_policy="IfNotPresent")
BASE = ResolvedBase(uri="pvc://models/base")
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    return server.kubeconfig


@asynccontextmanager
async def connected(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with connect() as cluster:
        yield cluster


def job_manifest(name):
    raw = manifest(name=name, publish=PUBLISH)
    return raw | {"metadata": {"name": name, "namespace": NAMESPACE}}


async def stored_job(cluster, name):
    await cluster.apply(job_manifest(name), manager="user")
    raw = await cluster.get(FINETUNEJOBS, NAMESPACE, name)
    return raw, FineTuneJob.model_validate(raw)


async def test_a_status_is_written_whole_and_fields_that_are_left_out_go(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        raw, job = await stored_job(cluster, "status")
        run = RunRecord(number=1, digest="d", job_name="x", start_time=NOW)
        status = Speaker(job, now=NOW).begins(run)
        await execute(Plan(status=status.model_copy(update={"message": "once"})), cluster, raw, now=NOW)
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "status")
        assert FineTuneJob.model_validate(raw).status.message == "once"
        await execute(Plan(status=status), cluster, raw, now=NOW)
        raw = await cluster.get(FINETUNEJOBS, NAMESPACE, "status")
        assert FineTuneJob.model_validate(raw).status == status
        version = raw["metadata"]["resourceVersion"]
        await cluster.patch_status(with_status(raw, split_status("FineTuneJob", status.manifest())[1]))
        again = await cluster.get(FINETUNEJOBS, NAMESPACE, "status")
        assert again["metadata"]["resourceVersion"] == version


async def test_a_status_decided_on_an_older_object_is_refused(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        raw, _ = await stored_job(cluster, "namesake")
        old = raw | {"metadata": raw["metadata"] | {"resourceVersion": "1"}}
        with pytest.raises(Conflict):
            await cluster.patch_status(with_status(old, {"phase": "Complete"}))
        await cluster.patch_status(with_status(raw, {"phase": "Complete"}))


async def test_a_runs_objects_are_taken_by_a_real_server_and_made_once(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        _, job = await stored_job(cluster, "run")
        run = RunRecord(number=1, digest="d", stage="Training", job_name="run-r1-a1", base=BASE)
        batch = training_job(job, run, installation=HERE)
        await cluster.apply(run_config_map(job, run))
        made = await cluster.create_once(batch)
        assert await cluster.create_once(batch) is None
        assert made["spec"]["podReplacementPolicy"] == "Failed"
        other = finetunejob(name="run")
        theirs = training_job(other, run, installation=HERE)
        theirs["metadata"]["namespace"] = NAMESPACE
        with pytest.raises(Conflict, match="belongs to another"):
            await cluster.create_once(theirs)
        await cluster.delete(JOBS, NAMESPACE, "run-r1-a1", uid="another")
        assert await cluster.get(JOBS, NAMESPACE, "run-r1-a1") is not None
        await cluster.delete(JOBS, NAMESPACE, "run-r1-a1", uid=made["metadata"]["uid"])
        assert await cluster.get(JOBS, NAMESPACE, "run-r1-a1") is None


async def test_what_the_server_finds_wrong_is_invalid(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        _, job = await stored_job(cluster, "wrong")
        batch = training_job(
            job,
            RunRecord(number=1, digest="d", job_name="wrong-r1-a1", base=BASE),
            installation=Installation(image="i", pull_policy="Sometimes"),
        )
        with pytest.raises(Invalid, match="imagePullPolicy"):
            await cluster.create_once(batch)


async def test_fields_of_a_published_expert_that_a_person_edits_stay_theirs(server, kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        _, job = await stored_job(cluster, "publisher")
        first = published_expert(job, job.spec.publish.expert)
        await cluster.apply(first, manager="largeforge-publish", force=False)
        patch = json.dumps({"spec": {"version": "mine"}})
        done = server.kubectl("patch", "-n", NAMESPACE, "experts", "sql", "--type=merge", "-p", patch)
        assert done.returncode == 0, done.stderr
        wish = job.spec.publish.expert.model_copy(update={"version": "2.0.0"})
        second = published_expert(job, wish.model_copy(update={"inference_service_ref": wish.inference_service_ref}))
        second["spec"]["inferenceServiceRef"] = {"name": "other"}
        with pytest.raises(Conflict):
            await cluster.apply(second, manager="largeforge-publish", force=False)
        lacking = missing_of(second, await cluster.get(EXPERTS, NAMESPACE, "sql"))
        after = await cluster.apply(lacking, manager="largeforge-publish", force=False)
        assert (after["spec"]["version"], after["spec"]["inferenceServiceRef"]) == ("mine", {"name": "other"})
        assert missing_of(second, after) is None


async def test_an_event_is_made_once_and_shown_by_kubectl(server, kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        raw, _ = await stored_job(cluster, "events")
        event = event_manifest(Event("Started", "run 1 begins"), raw, now=datetime.now(UTC))
        await cluster.create_once(event)
        await cluster.create_once(event)
        assert len([e for e in await cluster.list(EVENTS, NAMESPACE) if e["regarding"]["name"] == "events"]) == 1
    assert "run 1 begins" in server.kubectl("describe", "-n", NAMESPACE, "finetunejob", "events").stdout


async def test_a_watch_follows_what_happens(kubeconfig, monkeypatch):
    async with connected(kubeconfig, monkeypatch) as cluster:
        labels = {"watched": "yes"}

        def config(name, value="1"):
            return {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
                "data": {"value": value},
            }

        made = await cluster.apply(config("a"))
        seen = []

        async def follow():
            async for event in cluster.watch(CONFIGMAPS, NAMESPACE, labels=labels):
                seen.append((event.type, event.object.get("metadata", {}).get("name")))  # noqa: PERF401

        task = asyncio.create_task(follow())
        try:
            await until(lambda: ("SYNCED", None) in seen)
            await cluster.apply(config("b"))
            await cluster.apply(config("a", "2"))
            await cluster.delete(CONFIGMAPS, NAMESPACE, "a", uid=made["metadata"]["uid"])
            await until(lambda: len(seen) == 5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert seen == [("ADDED", "a"), ("SYNCED", None), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a deadline stands above
            await asyncio.sleep(0.01)


async def test_a_list_of_metadata_has_what_a_full_list_has_of_it_and_neither_spec_nor_managed_fields(
    kubeconfig, monkeypatch
):
    async with connected(kubeconfig, monkeypatch) as cluster:
        await stored_job(cluster, "listed")
        kept = ("namespace", "name", "uid", "resourceVersion", "labels")
        for resource in (FINETUNEJOBS, JOBS, CONFIGMAPS):
            whole = await cluster.list(resource, NAMESPACE)
            expected = [{"metadata": {k: o["metadata"][k] for k in kept if k in o["metadata"]}} for o in whole]
            assert await cluster.list_metadata(resource, NAMESPACE) == expected
        assert await cluster.list_metadata(FINETUNEJOBS, NAMESPACE, labels={"no": "such"}) == []
