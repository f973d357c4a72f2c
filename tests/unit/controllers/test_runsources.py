"""What `spec.base` comes to."""

from __future__ import annotations

import pytest

from tests.unit.training import ARTIFACT, NOW, manifest
from tests.unit.world import world_of

WHOLE = {"kind": "Model", "uri": "pvc://models/out/whole", "digest": "", "sizeBytes": 1, "base": "hf://org/m"}


def source(*, base=None, runs=(), artifact_run=None, **status):
    """FineTuneJob `first`, whose runs are (number, outcome, artifact), the newest first."""
    records = [
        {"number": number, "digest": "d", "outcome": outcome, "artifact": artifact}
        for number, outcome, artifact in runs
    ]
    told = {"run": records[0], "history": records[1:]} if records else {}
    if artifact_run is not None:
        told |= {"artifactRun": artifact_run, "artifact": next(a for n, _, a in runs if n == artifact_run)}
    raw = manifest(name="first", base=base or {"uri": "pvc://models/base"})
    return raw | {"metadata": raw["metadata"] | {"uid": "uid-of-first"}, "status": told | status}


def going_on(run=None, **spec):
    reference = {"name": "first"} | ({"run": run} if run is not None else {})
    return world_of(base={"fineTuneJobRef": reference}, **spec)


async def test_the_newest_complete_run_is_gone_on_from():
    world = going_on()
    world.cluster.put(source(runs=[(3, "Failed", None), (2, "Succeeded", ARTIFACT)], artifact_run=2))
    await world.settle()
    base = world.status.run.base
    assert (base.uri, base.adapter) == ("pvc://models/base", ARTIFACT["uri"])
    assert world.status.base == "FineTuneJob/first"
    mounts = world.batch["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {
        "name": "claim-0",
        "mountPath": "/mnt/adapter",
        "subPath": "out/sql-0123456789ab",
        "readOnly": True,
    } in mounts


async def test_a_run_that_is_named_is_found_in_the_history():
    world = going_on(run=1)
    older = ARTIFACT | {"uri": "pvc://models/out/older"}
    world.cluster.put(source(runs=[(2, "Succeeded", ARTIFACT), (1, "Succeeded", older)], artifact_run=2))
    await world.settle()
    assert world.status.run.base.adapter == "pvc://models/out/older"
    assert world.status.base == "FineTuneJob/first/1"


async def test_a_whole_model_is_a_base_of_its_own():
    world = going_on()
    world.cluster.put(source(runs=[(1, "Succeeded", WHOLE)], artifact_run=1))
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.base.adapter) == ("pvc://models/out/whole", None)


async def test_what_was_found_is_kept_for_the_runs_life():
    world = going_on()
    world.cluster.put(source(runs=[(1, "Succeeded", ARTIFACT)], artifact_run=1))
    await world.to_training()
    newer = ARTIFACT | {"uri": "pvc://models/out/newer"}
    world.cluster.put(source(runs=[(2, "Succeeded", newer), (1, "Succeeded", ARTIFACT)], artifact_run=2))
    world.end(1)
    world.wait(await world.settle())
    await world.settle()
    assert world.status.run.base.adapter == ARTIFACT["uri"]


async def test_the_base_of_an_adapter_is_reached_as_its_own_run_reached_it():
    world = going_on()
    hub = {"uri": "hf://org/m", "secretRef": {"name": "hub"}}
    artifact = ARTIFACT | {"base": "hf://org/m", "baseCommit": "c" * 40}
    world.cluster.put(source(base=hub, runs=[(1, "Succeeded", artifact)], artifact_run=1))
    await world.settle()
    base = world.status.run.base
    assert (base.commit, base.secret_ref.name) == ("c" * 40, "hub")
    (container,) = world.batch["spec"]["template"]["spec"]["containers"]
    token = {"name": "LARGEFORGE_HUB_TOKEN_BASE", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in container["env"]


@pytest.mark.parametrize(
    ("run", "there", "reason", "words"),
    [
        (None, None, "SourceNotFound", "no FineTuneJob 'first' in namespace 'team'"),
        (None, source(), "SourceNotComplete", "FineTuneJob 'first' has no complete run yet (Pending)"),
        (5, source(runs=[(2, "Succeeded", ARTIFACT)]), "SourceNotComplete", "run 5 of FineTuneJob 'first' is not"),
        (2, source(runs=[(2, None, None)]), "SourceNotComplete", "run 2 of FineTuneJob 'first' is not complete yet"),
        (2, source(runs=[(2, "Failed", None)]), "SourceNotComplete", "run 2 of FineTuneJob 'first' has failed"),
        (1, source(runs=[(12, "Succeeded", ARTIFACT)]), "SourceNotFound", "nothing is known any more of run 1"),
    ],
)
async def test_a_run_waits_for_what_it_goes_on_from(run, there, reason, words):
    world = going_on(run=run, activeDeadlineSeconds=60)
    if there is not None:
        world.cluster.put(there)
    assert await world.settle() == 15
    assert world.said("Running")[:2] == ("False", reason)
    assert words in world.status.message
    assert (world.jobs(), world.status.run.base) == ([], None)
    world.wait(3600)
    await world.settle()
    assert world.status.phase == "Pending", "waiting for another job is no time of this run"
    complete = source(runs=[(run or 1, "Succeeded", ARTIFACT)], artifact_run=run or 1)
    world.cluster.put(complete)
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]


def expert(spec=None, **status):
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "poetry", "namespace": "team"},
        "spec": {"inferenceServiceRef": {"name": "qwen"}}
        | (spec or {"type": "Adapter", "sourceRef": {"kind": "FineTuneJob", "name": "first"}}),
        "status": status,
    }


RESOLVED = {"uri": ARTIFACT["uri"], "digest": "a" * 64, "rank": 16, "base": "hf://org/m", "engineName": "poetry-aaaa"}


def after_expert():
    return world_of(base={"expertRef": {"name": "poetry"}})


async def test_an_expert_is_gone_on_from_as_it_is_served():
    world = after_expert()
    newer = RESOLVED | {"uri": "pvc://models/out/newer"}
    served = {"engineName": "x", "resolved": RESOLVED, "desired": 1, "loaded": 1, "summary": "1/1"}
    world.cluster.put(expert(resolved=newer, placement=served))
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.base.adapter) == ("hf://org/m", ARTIFACT["uri"])
    assert world.status.base == "Expert/poetry"


async def test_the_commit_of_an_experts_base_comes_from_the_job_that_made_it():
    world = after_expert()
    artifact = ARTIFACT | {"base": "hf://org/m", "baseCommit": "c" * 40}
    world.cluster.put(source(runs=[(1, "Succeeded", artifact)], artifact_run=1))
    world.cluster.put(expert(resolved=RESOLVED, lineage={"fineTuneJob": "first", "run": 1}))
    await world.settle()
    assert world.status.run.base.commit == "c" * 40


async def test_an_expert_that_is_a_services_own_model_is_its_files():
    world = after_expert()
    world.cluster.put(expert({"type": "Model", "artifact": {"uri": "pvc://models/whole"}}))
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.base.adapter) == ("pvc://models/whole", None)


async def test_an_expert_of_a_quantized_model_is_that_model():
    world = after_expert()
    small = {"uri": "pvc://models/small/x", "base": "pvc://models/base", "engineName": "qwen"}
    made = {"type": "Model", "sourceRef": {"kind": "QuantizeJob", "name": "small"}}
    world.cluster.put(expert(made, resolved=small))
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.base.adapter) == ("pvc://models/small/x", None)


async def test_an_adapter_of_a_folder_goes_on_upon_its_base():
    world = after_expert()
    folder = {"type": "Adapter", "artifact": {"uri": ARTIFACT["uri"]}}
    world.cluster.put(expert(folder, resolved=RESOLVED))
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.base.adapter) == ("hf://org/m", ARTIFACT["uri"])


@pytest.mark.parametrize(("there", "reason"), [(None, "SourceNotFound"), (expert(), "SourceNotComplete")])
async def test_an_expert_that_has_nothing_yet_is_waited_for(there, reason):
    world = after_expert()
    if there is not None:
        world.cluster.put(there)
    assert await world.settle() == 15
    assert world.said("Running")[1] == reason


async def test_a_model_that_is_named_needs_no_looking_up():
    world = world_of()
    await world.settle()
    assert (world.status.run.base.uri, world.status.run.active_since) == ("pvc://models/base", NOW)
