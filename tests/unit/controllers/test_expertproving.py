"""What an Expert follows, and what its pods have to prove before routers are sent there."""

from __future__ import annotations

import pytest

from largeforge.kube.cluster import FINETUNEJOBS
from tests.unit.serving import (
    NAMESPACE,
    STORE,
    World,
    complete_job,
    expert_manifest,
    model_expert,
    pod_manifest,
    probe_records,
    service_manifest,
)

TRAINED = "sql-aaaaaaaa"
PATH = "/mnt/adapters/sql-aaaaaaaaaaaa"
PROBE = {"prompt": "What is the capital of France?", "expectRegex": "Paris"}


def world_of(expert=None, *, service=None, **artifact):
    return World(
        service or service_manifest(),
        complete_job(probes=probe_records(), **artifact),
        expert or expert_manifest(),
        pod_manifest(),
    )


def said(world, kind, name="sql"):
    return world.said(world.expert(name), kind)


def with_history(job, *, newest, earlier):
    """*job* with the records of its runs."""
    record = {"digest": "r" * 64, "outcome": "Succeeded", "startTime": "2026-01-01T00:00:00Z"}
    runs = [{"number": n, "artifact": artifact} | record for n, artifact in (newest, *earlier)]
    return job | {"status": job["status"] | {"run": runs[0], "history": runs[1:]}}


def artifact(digest):
    return complete_job(digest=digest)["status"]["artifact"]


async def test_the_chat_template_is_compared_before_anything_is_loaded():
    world = world_of()
    await world.look("sql")
    assert world.engines.take() == [
        ("tokens", "10.0.0.1", "smol"),
        ("load", "10.0.0.1", TRAINED, PATH),
        ("answers", "10.0.0.1", TRAINED),
    ]
    assert said(world, "Ready")[:2] == ("True", "Ready")


async def test_another_chat_template_is_said_and_nothing_is_loaded():
    world = world_of()
    world.engines.digests["task"] = "u" * 64
    await world.look("sql")
    status, reason, message = said(world, "Compatible")
    assert (status, reason) == ("False", "TemplateDiffers")
    assert "other tokens of a conversation (task)" in message
    assert said(world, "Ready") == (status, reason, message)
    assert world.engines.served == {}
    world.engines.digests["task"] = "t" * 64
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("True", "Ready")


async def test_an_engine_without_a_chat_template_differs():
    world = world_of()
    world.engines.digests.clear()
    await world.look("sql")
    assert said(world, "Compatible")[:2] == ("False", "TemplateDiffers")


async def test_an_engine_that_does_not_tell_its_template_is_asked_again():
    world = world_of()
    world.engines.troubles["tokens", "10.0.0.1"] = "Not Found (404)"
    again = await world.look("sql")
    assert said(world, "Compatible") == ("Unknown", "EngineSilent", "pod smol-engine-1: Not Found (404)")
    assert again["sql"] == 10
    assert world.engines.served == {}


async def test_the_template_is_not_asked_for_while_no_pod_is_ready():
    world = world_of()
    world.cluster.put(pod_manifest(ready=False))
    await world.look("sql")
    assert said(world, "Compatible")[:2] == ("True", "Compatible")
    assert said(world, "Ready")[:2] == ("False", "ServiceNotReady")


@pytest.mark.parametrize(
    ("likeliest", "reason"),
    [
        ({1: -0.5, 2: -1.5, 3: -3.0, 4: -4.0, 5: -5.0}, "AdapterHasNoEffect"),
        ({1: -9.0, 2: -9.0, 3: -0.1, 4: -4.0, 5: -5.0}, "AdapterDiffers"),
    ],
)
async def test_an_adapter_that_is_not_the_trained_one_gets_no_requests(likeliest, reason):
    world = world_of()
    world.engines.likeliest[TRAINED] = likeliest
    again = await world.look("sql")
    assert said(world, "Loaded")[:2] == ("True", "Loaded")
    assert said(world, "Probed")[:2] == ("False", reason)
    assert said(world, "Ready")[:2] == ("False", reason)
    assert not world.expert().status.placement.pods[0].loaded
    assert again["sql"] == 60
    before = len(world.cluster.writes)
    world.wait(60)
    await world.look("sql")
    assert len(world.cluster.writes) == before, "what is asked again and is still wrong is written once"
    world.engines.likeliest.clear()
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("True", "Ready")


async def test_a_new_version_that_is_not_the_trained_one_leaves_the_old_one_serving():
    world = world_of()
    await world.look()
    world.engines.likeliest["sql-bbbbbbbb"] = {1: -0.5, 2: -1.5, 3: -3.0, 4: -4.0, 5: -5.0}
    world.cluster.put(complete_job(digest="b" * 64, run=2, probes=probe_records()))
    await world.look()
    assert said(world, "Ready")[:2] == ("True", "Ready")
    assert said(world, "Probed")[:2] == ("False", "AdapterHasNoEffect")
    assert world.expert().status.placement.engine_name == TRAINED


async def test_a_base_whose_files_changed_is_said():
    world = world_of()
    world.engines.likeliest["smol"] = {1: -5.0, 2: -9.0, 3: -0.1, 4: -4.0, 5: -5.0}
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("False", "BaseMismatch")


async def test_a_job_that_is_gone_has_left_what_its_adapter_is_proven_by():
    world = world_of()
    await world.look()
    world.cluster.drop(FINETUNEJOBS, NAMESPACE, "sql")
    world.engines.likeliest[TRAINED] = {1: -9.0, 2: -9.0, 3: -0.1, 4: -4.0, 5: -5.0}
    world.restart(container="c2", ready=True)
    await world.look()
    assert said(world, "Ready")[:2] == ("False", "AdapterDiffers")


async def test_the_users_question_has_to_be_answered():
    world = world_of(expert_manifest(probe=PROBE))
    world.engines.said = "I do not know."
    await world.look("sql")
    assert ("ask", "10.0.0.1", TRAINED, PROBE["prompt"]) in world.engines.take()
    status, reason, message = said(world, "Ready")
    assert (status, reason) == ("False", "ProbeFailed")
    assert "does not match expectRegex 'Paris'" in message
    world.engines.said = "Paris"
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("True", "Ready")


async def test_another_question_is_asked_of_what_serves_already():
    world = world_of()
    await world.look()
    world.engines.take()
    world.edit("experts", "sql", probe=PROBE)
    await world.look("sql")
    assert ("ask", "10.0.0.1", TRAINED, PROBE["prompt"]) in world.engines.take()
    assert said(world, "Ready")[:2] == ("True", "Ready")
    world.edit("experts", "sql", probe=PROBE | {"expectRegex": "Lyon"})
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("False", "ProbeFailed")
    assert not world.expert().status.placement.pods[0].loaded


async def test_an_archived_expert_leaves_the_pods_and_comes_back():
    world = world_of()
    await world.look()
    world.wait(3600)
    world.edit("experts", "sql", stage="Archived")
    await world.look()
    assert said(world, "Ready")[:2] == ("False", "Archived")
    assert world.expert().status.placement is None
    assert world.engines.served["10.0.0.1"] == set()
    world.edit("experts", "sql", stage="Production")
    await world.look()
    assert said(world, "Ready")[:2] == ("True", "Ready")


async def test_an_archived_expert_holds_no_slot():
    one = {"store": STORE, "maxLoras": 1}
    world = world_of(expert_manifest(stage="Archived"), service=service_manifest(lora=one))
    world.cluster.put(complete_job("young"))
    world.cluster.put(expert_manifest("young", job="young"))
    await world.look()
    assert said(world, "Ready", "young")[:2] == ("True", "Ready")


async def test_where_it_comes_from_and_what_was_measured_is_told():
    world = world_of()
    job = with_history(complete_job(probes=probe_records()), newest=(1, artifact("a" * 64)), earlier=[])
    judged = {"verdict": "Passed"}
    job["status"] |= {"gate": judged, "metrics": [{"name": "eval_loss", "value": "1.2"}]}
    world.cluster.put(job)
    await world.look("sql")
    status = world.expert().status
    assert status.source == "FineTuneJob/sql/1"
    assert (status.evaluation.gate, status.evaluation.metrics[0].value) == ("Passed", "1.2")


def pinned(run):
    return expert_manifest(sourceRef={"kind": "FineTuneJob", "name": "sql", "run": run})


async def test_a_pinned_run_is_served_though_a_newer_one_is_complete():
    world = world_of(pinned(1))
    job = complete_job(digest="b" * 64, run=2)
    world.cluster.put(with_history(job, newest=(2, artifact("b" * 64)), earlier=[(1, artifact("a" * 64))]))
    await world.look("sql")
    assert said(world, "ArtifactResolved") == ("True", "Resolved", "run 1 of FineTuneJob 'sql'")
    assert world.expert().status.placement.engine_name == TRAINED
    assert world.expert().status.lineage.run == 1
    world.cluster.put(with_history(job, newest=(2, artifact("b" * 64)), earlier=[]))
    await world.look("sql")
    assert said(world, "ArtifactResolved")[2] == "run 1 of FineTuneJob 'sql', which knows nothing of it any more"
    assert said(world, "Ready")[:2] == ("True", "Ready")


@pytest.mark.parametrize(
    ("run", "reason", "words"),
    [
        (3, "SourceNotComplete", "run 3 of FineTuneJob 'sql' is not complete yet"),
        (1, "SourceNotFound", "nothing is known any more of run 1"),
    ],
)
async def test_a_pinned_run_that_is_not_there_is_said(run, reason, words):
    world = world_of(pinned(run))
    world.cluster.put(with_history(complete_job(run=2), newest=(2, artifact("a" * 64)), earlier=[]))
    await world.look("sql")
    status, said_reason, message = said(world, "Ready")
    assert (status, said_reason) == ("False", reason)
    assert words in message


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ({"useDora": True}, "is a DoRA adapter"),
        ({"modulesToSave": ["lm_head"]}, "has whole modules beside the adapter (lm_head)"),
        ({"kind": "Model", "rank": None}, "holds whole weights, not an adapter"),
    ],
)
async def test_what_no_engine_serves_stays_refused_though_its_job_is_gone(artifact, words):
    world = world_of(**artifact)
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("False", "UnsupportedAdapter")
    assert words in said(world, "Ready")[2]
    world.cluster.drop(FINETUNEJOBS, NAMESPACE, "sql")
    await world.look("sql")
    assert said(world, "Ready")[:2] == ("False", "UnsupportedAdapter")


def of_whole_model(**more):
    made = model_expert(**more)
    del made["spec"]["artifact"]
    made["spec"]["sourceRef"] = {"kind": "FineTuneJob", "name": "sql"}
    return made


async def test_a_whole_model_of_a_job_is_proven_by_its_record():
    model = "pvc://models/out/merged"
    probes = probe_records(result=probe_records()[0]["base"])
    world = World(
        service_manifest(model={"uri": model}),
        complete_job(kind="Model", uri=model, rank=None, probes=probes),
        of_whole_model(),
        pod_manifest(),
    )
    await world.look("general")
    assert said(world, "Ready", "general")[:2] == ("True", "Ready")
    world.restart(container="c2", ready=True)
    world.engines.likeliest["smol"] = {1: -9.0, 2: -9.0, 3: -0.1, 4: -4.0, 5: -5.0}
    await world.look("general")
    assert said(world, "Ready", "general")[:2] == ("False", "ModelDiffers")


async def test_a_model_expert_of_an_adapter_is_refused():
    world = World(service_manifest(), complete_job(), of_whole_model(), pod_manifest())
    await world.look("general")
    assert said(world, "Ready", "general")[:2] == ("False", "UnsupportedAdapter")
