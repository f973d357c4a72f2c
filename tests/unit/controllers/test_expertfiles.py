"""Adapters in folders of the user's: looked at by a Job, brought to the store by a Job, and removed by one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Resolved
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inspect import InspectConfig, InspectResult
from largeforge.api.messages import QUESTION
from largeforge.controllers import expert
from largeforge.controllers.expertrules import mismatch
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, JOBS
from tests.unit.errands import as_made, over, pod
from tests.unit.serving import (
    BASE,
    NAMESPACE,
    STORE,
    World,
    complete_job,
    expert_manifest,
    pod_manifest,
    probe_records,
    service_manifest,
)
from tests.unit.training import NOW

OUTSIDE, INSIDE = "pvc://uploads/sql/v2", f"{STORE}/mine"
DIGEST = "a" * 64
NAME = "sql-aaaaaaaa"
COPY = f"/mnt/adapters/{DIGEST}"
FINALIZER = "largeforge.ai/artifact"


def of_artifact(uri=OUTSIDE, name="sql", **spec):
    made = expert_manifest(name, artifact={"uri": uri}, **spec)
    del made["spec"]["sourceRef"]
    return made


def world_of(made=None, *, service=None):
    return World(service or service_manifest(), made or of_artifact(), pod_manifest())


def said(world, kind="Ready", name="sql"):
    return world.said(world.expert(name), kind)


def purposes(world):
    return sorted(job["metadata"]["labels"]["app.kubernetes.io/name"] for job in world.cluster.all(JOBS))


def job_of(world, purpose):
    (found,) = [j for j in world.cluster.all(JOBS) if j["metadata"]["labels"]["app.kubernetes.io/name"] == purpose]
    return found


def asked(job, config):
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return config.model_validate_json(next(v["value"] for v in env if v["name"] == QUESTION))


def end(world, purpose, result, *, failed=False):
    """The pod of the Job ends with *result*, and the Job controller says so."""
    job = job_of(world, purpose)
    name, uid = job["metadata"]["name"], f"uid-of-{job['metadata']['name']}"
    world.cluster.put(as_made(job, uid=uid, conditions=[over("Failed" if failed else "Complete", at=world.now())]))
    ended = pod(result.message(), code=65 if failed else 0, uid=uid, name=f"{name}-x")
    world.cluster.put(ended | {"metadata": ended["metadata"] | {"labels": {"batch.kubernetes.io/job-name": name}}})


def inspected(world, **changes):
    """The inspection finds an adapter."""
    config = asked(job_of(world, "inspect"), InspectConfig)
    facts = {"request": config.request, "digest": DIGEST, "rank": 8, "base": "org/base"} | changes
    end(world, "inspect", InspectResult(outcome="Succeeded", request=config.request, adapter=facts))


def delivered(world):
    """The copy is there."""
    config = asked(job_of(world, "deliver"), DeliverConfig)
    end(world, "deliver", DeliverResult(outcome="Succeeded", request=config.request, uri=config.target_uri))


def failed(world, purpose, reason, message):
    config = asked(job_of(world, purpose), InspectConfig if purpose == "inspect" else DeliverConfig)
    answer = InspectResult if purpose == "inspect" else DeliverResult
    error = {"reason": reason, "message": message}
    end(world, purpose, answer(outcome="Failed", request=config.request, error=error), failed=True)


def forget_jobs(world):
    """Their time to live is over."""
    for job in world.cluster.all(JOBS):
        world.cluster.drop(JOBS, NAMESPACE, job["metadata"]["name"])


async def test_an_adapter_is_looked_at_copied_loaded_and_ready():
    world = world_of()
    again = await world.look("sql")
    assert purposes(world) == ["inspect"]
    assert said(world, "ArtifactResolved")[:2] == ("Unknown", "Inspecting")
    assert said(world)[:2] == ("False", "Inspecting")
    assert said(world, "Reconciling")[0] == "True"
    assert again["sql"] == 5
    inspected(world)
    await world.look("sql")
    assert purposes(world) == ["deliver", "inspect"]
    assert said(world, "ArtifactResolved") == ("True", "Resolved", f"an adapter of rank 8 in {OUTSIDE}")
    assert said(world, "Loaded")[:2] == ("False", "Delivering")
    assert said(world)[:2] == ("False", "Delivering")
    assert world.engines.take() == []
    delivered(world)
    await world.look("sql")
    assert world.engines.take() == [("load", "10.0.0.1", NAME, COPY), ("answers", "10.0.0.1", NAME)]
    assert said(world)[:2] == ("True", "Ready")
    assert world.expert().status.delivery.whole
    assert world.events() == [("sql", "Normal", "Ready")]
    assert world.expert().status.source == OUTSIDE


async def test_jobs_that_are_gone_are_not_made_again():
    world = world_of()
    await world.look("sql")
    inspected(world)
    await world.look("sql")
    delivered(world)
    await world.look("sql")
    forget_jobs(world)
    world.wait(7200)
    world.engines.take()
    await world.look("sql")
    assert purposes(world) == []
    assert world.engines.take() == []
    assert said(world)[:2] == ("True", "Ready")


async def test_an_adapter_in_the_store_is_served_from_where_it_lies():
    world = world_of(of_artifact(INSIDE))
    await world.look("sql")
    inspected(world)
    await world.look("sql")
    assert purposes(world) == ["inspect"]
    assert world.engines.take()[0] == ("load", "10.0.0.1", NAME, "/mnt/adapters/mine")
    assert said(world)[:2] == ("True", "Ready")
    assert world.expert().status.delivery is None


async def test_a_jobs_adapter_outside_the_store_is_copied_too():
    world = World(service_manifest(), complete_job(uri="pvc://runs/sql"), expert_manifest(), pod_manifest())
    await world.look("sql")
    assert purposes(world) == ["deliver"]
    assert asked(job_of(world, "deliver"), DeliverConfig).source_uri == "pvc://runs/sql"
    delivered(world)
    await world.look("sql")
    assert said(world)[:2] == ("True", "Ready")


async def test_the_jobs_go_where_the_services_pods_go():
    overlay = {"nodeSelector": {"disk": "ssd"}, "runtimeClassName": "nvidia"}
    world = world_of(service=service_manifest(compute={"gpusPerReplica": 0, "podTemplate": overlay}))
    await world.look("sql")
    spec = job_of(world, "inspect")["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert "runtimeClassName" not in spec


async def test_an_inspection_that_fails_is_said_and_asked_again():
    world = world_of()
    await world.look("sql")
    failed(world, "inspect", "ArtifactNotFound", "spec.artifact.uri: nothing lies there")
    again = await world.look("sql")
    status, reason, message = said(world)
    assert (status, reason) == ("False", "ArtifactNotFound")
    assert message.startswith("spec.artifact.uri: nothing lies there")
    assert again["sql"] == 300
    world.wait(301)
    await world.look("sql")
    assert said(world)[:2] == ("False", "Inspecting")


async def test_a_copy_that_fails_is_said_and_the_old_version_goes_on():
    world = World(service_manifest(), complete_job(), expert_manifest(), pod_manifest())
    await world.look("sql")
    world.cluster.put(complete_job(digest="b" * 64, run=2, uri="pvc://runs/sql"))
    await world.look("sql")
    failed(world, "deliver", "DiskFull", "pvc://models/out has no room for 12 MB")
    await world.look("sql")
    assert said(world, "Loaded")[:2] == ("False", "DiskFull")
    assert said(world)[:2] == ("True", "Ready")
    assert world.expert().status.placement.engine_name == NAME
    assert "no room" in said(world, "Reconciling")[2]


async def test_a_copy_that_vanished_is_made_again():
    world = world_of()
    await world.look("sql")
    inspected(world)
    await world.look("sql")
    delivered(world)
    await world.look("sql")
    world.wait(60)
    world.restart(container="c2", ready=True)
    world.engines.missing.add(NAME)
    await world.look("sql")
    assert said(world)[:2] == ("False", "Delivering")
    job = job_of(world, "deliver")
    assert "status" not in job, "the Job that ended before answers nothing"
    world.engines.missing.clear()
    world.wait(10)
    delivered(world)
    await world.look("sql")
    assert said(world)[:2] == ("True", "Ready")


async def test_files_that_vanished_from_the_store_are_said():
    world = World(service_manifest(), complete_job(), expert_manifest(), pod_manifest())
    world.engines.missing.add(NAME)
    again = await world.look("sql")
    assert said(world)[:2] == ("False", "ArtifactNotFound")
    assert again["sql"] == 10
    assert purposes(world) == []


async def test_what_cannot_be_served_is_not_copied():
    world = world_of()
    await world.look("sql")
    inspected(world, rank=128)
    await world.look("sql")
    assert said(world)[:2] == ("False", "RankAboveService")
    assert purposes(world) == ["inspect"]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"useDora": True}, "UnsupportedAdapter", "is a DoRA adapter"),
        ({"modulesToSave": ["lm_head"]}, "UnsupportedAdapter", "(lm_head)"),
        ({"refused": ["lora_bias"]}, "UnsupportedAdapter", "has lora_bias, which engines refuse"),
        ({"extendsTokenizer": True}, "UnsupportedAdapter", "extends its base's tokenizer"),
        ({"notFinite": True}, "UnsupportedAdapter", "infinite or no numbers"),
        ({"changesNothing": True}, "AdapterHasNoEffect", "its B matrices, or its alpha, are zero"),
    ],
)
async def test_what_the_files_say_is_refused_before_it_is_loaded(changes, reason, words):
    world = world_of(of_artifact(INSIDE))
    await world.look("sql")
    inspected(world, **changes)
    await world.look("sql")
    status, said_reason, message = said(world)
    assert (status, said_reason) == ("False", reason)
    assert words in message
    assert world.engines.take() == []


def provenance(**changes):
    return {"runDigest": "r" * 64, "base": BASE, "probes": probe_records()} | changes


async def test_an_adapter_that_a_run_of_ours_wrote_is_held_to_its_record():
    world = world_of(of_artifact(INSIDE))
    world.engines.likeliest[NAME] = {1: -9.0, 2: -9.0, 3: -0.1, 4: -4.0, 5: -5.0}
    await world.look("sql")
    inspected(world, provenance=provenance())
    await world.look("sql")
    assert said(world)[:2] == ("False", "AdapterDiffers")


@pytest.mark.parametrize(
    ("served", "base", "written", "fits"),
    [
        (BASE, "pvc://models/other", False, False),
        (BASE, "hf://org/base", True, True),
        ("hf://org/other", "hf://org/base", True, False),
        ("hf://org/base", "hf://org/base", True, True),
        ("hf://org/other", "/mnt/base", True, True),
    ],
)
def test_a_base_is_compared_where_its_name_says_something(served, base, written, fits):
    service = InferenceService.model_validate(service_manifest())
    model = service.spec.model.model_copy(update={"uri": served})
    service = service.model_copy(update={"spec": service.spec.model_copy(update={"model": model})})
    resolved = Resolved(uri=INSIDE, digest=DIGEST, rank=8, base=base, base_is_written=written, engine_name=NAME)
    problem = mismatch(Expert.model_validate(of_artifact(INSIDE)), resolved, service, [])
    assert (problem is None) == fits
    assert problem is None or problem.reason == "BaseMismatch"


async def test_an_adapter_of_another_base_of_ours_is_refused():
    world = world_of(of_artifact(INSIDE))
    await world.look("sql")
    inspected(world, provenance=provenance(base="pvc://models/other"))
    await world.look("sql")
    assert said(world)[:2] == ("False", "BaseMismatch")


async def test_another_folder_is_looked_at_while_the_old_one_serves():
    world = world_of(of_artifact(INSIDE))
    await world.look("sql")
    inspected(world)
    await world.look("sql")
    forget_jobs(world)
    world.edit("experts", "sql", artifact={"uri": f"{STORE}/next"})
    await world.look("sql")
    assert said(world, "ArtifactResolved")[:2] == ("Unknown", "Inspecting")
    assert said(world)[:2] == ("True", "Ready")
    inspected(world, digest="b" * 64)
    await world.look("sql")
    assert world.expert().status.placement.engine_name == "sql-bbbbbbbb"


def finalizers(world):
    return world.raw("experts", "sql")["metadata"].get("finalizers", [])


async def deleted(world):
    """The user deletes the object."""
    raw = world.raw("experts", "sql")
    world.cluster.put(raw | {"metadata": raw["metadata"] | {"deletionTimestamp": world.now().isoformat()}})
    return await expert.reconcile(Key(NAMESPACE, "sql"), world)


async def look(world):
    return await expert.reconcile(Key(NAMESPACE, "sql"), world)


async def served_with_delete(uri=INSIDE):
    world = world_of(of_artifact(uri, deletionPolicy="Delete"))
    await look(world)
    await world.look("sql")
    inspected(world)
    await world.look("sql")
    if uri == OUTSIDE:
        delivered(world)
        await world.look("sql")
    assert said(world)[:2] == ("True", "Ready")
    return world


async def test_only_delete_has_a_finalizer_and_retain_takes_it_away():
    world = await served_with_delete()
    assert finalizers(world) == [FINALIZER]
    world.edit("experts", "sql", deletionPolicy="Retain")
    await look(world)
    assert finalizers(world) == []
    plain = world_of(of_artifact(INSIDE))
    await plain.look("sql")
    assert finalizers(plain) == []


async def test_a_deletion_waits_for_the_files_to_be_gone():
    world = await served_with_delete()
    forget_jobs(world)
    again = await deleted(world)
    assert again == 5
    config = asked(job_of(world, "remove"), DeliverConfig)
    assert (config.action, config.target_uri, config.digest) == ("Remove", INSIDE, DIGEST)
    assert "ownerReferences" not in job_of(world, "remove")["metadata"]
    assert said(world)[:2] == ("False", "Removing")
    assert finalizers(world) == [FINALIZER]
    end(world, "remove", DeliverResult(outcome="Succeeded", request=config.request, uri=INSIDE))
    assert await look(world) is None
    assert finalizers(world) == []


async def test_the_copy_goes_with_its_source():
    world = await served_with_delete(OUTSIDE)
    forget_jobs(world)
    await deleted(world)
    first = asked(job_of(world, "remove"), DeliverConfig)
    end(world, "remove", DeliverResult(outcome="Succeeded", request=first.request, uri=first.target_uri))
    await look(world)
    assert finalizers(world) == [FINALIZER]
    assert {asked(job, DeliverConfig).target_uri for job in world.cluster.all(JOBS)} == {OUTSIDE, f"{STORE}/{DIGEST}"}


async def test_files_that_another_expert_serves_stay():
    world = await served_with_delete()
    twin = world.raw("experts", "sql")
    world.cluster.put(twin | {"metadata": twin["metadata"] | {"name": "twin", "uid": "uid-of-twin", "finalizers": []}})
    forget_jobs(world)
    assert await deleted(world) is None
    assert finalizers(world) == []
    assert purposes(world) == []


async def test_files_that_cannot_be_removed_hold_the_object_until_retain_lets_it_go():
    world = await served_with_delete()
    forget_jobs(world)
    await deleted(world)
    failed(world, "remove", "DigestDiffers", "spec.deletionPolicy: other files lie there")
    assert await look(world) == 300
    status, reason, message = said(world)
    assert (status, reason) == ("False", "DigestDiffers")
    assert "or set spec.deletionPolicy: Retain" in message
    world.edit("experts", "sql", deletionPolicy="Retain")
    await look(world)
    assert finalizers(world) == []


async def test_a_removal_that_ended_before_the_deletion_answers_nothing():
    world = await served_with_delete()
    await deleted(world)
    config = asked(job_of(world, "remove"), DeliverConfig)
    end(world, "remove", DeliverResult(outcome="Succeeded", request=config.request, uri=INSIDE))
    world.wait(60)
    raw = world.raw("experts", "sql")
    later = (NOW + timedelta(seconds=60)).isoformat()
    world.cluster.put(raw | {"metadata": raw["metadata"] | {"deletionTimestamp": later}})
    await look(world)
    assert finalizers(world) == [FINALIZER]
    assert purposes(world) == ["inspect"]


async def test_an_expert_that_never_had_files_goes_at_once():
    world = world_of(of_artifact(INSIDE, deletionPolicy="Delete"))
    await look(world)
    assert await deleted(world) is None
    assert finalizers(world) == []
    assert world.cluster.all(EXPERTS) != []
