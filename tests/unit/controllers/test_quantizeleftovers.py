"""What stays on the claim after a run of a QuantizeJob, and what is removed."""

from __future__ import annotations

import pytest

from largeforge.kube.cluster import PODS
from tests.unit.quantizing import KEY, PUBLISH, artifact, trained, world_of

RESULT = "pvc://models/small/small-{}"
MERGED = {"uri": RESULT.format("0123456789ab-source"), "digest": "b" * 64, "sizeBytes": 100, "merged": True}


def expert(**spec):
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "mine", "namespace": "team", "uid": "uid-of-mine"},
        "spec": {"type": "Model", "inferenceServiceRef": {"name": "smol"}} | spec,
    }


def merging(*objects, **spec):
    """A job whose source preflight merges."""
    return world_of(trained(), *objects, source={"fineTuneJobRef": {"name": "sql"}}, **spec)


async def merged(world, *perplexities):
    await world.settle()
    world.succeed(source=MERGED)
    return await world.complete(*perplexities)


async def test_results_that_were_rejected_are_removed_once_another_is_let_out_and_their_figures_stay():
    world = await world_of(publish=PUBLISH).complete(24, 20.2)
    assert world.said("LeftoversRemoved")[:2] == ("False", "Removing")
    assert await world.tidy() == [RESULT.format("awq")]
    first, second = world.status.attempts
    assert (first.removed, first.perplexity_after, first.artifact.uri) == (True, "24", RESULT.format("awq"))
    assert not second.removed
    assert (world.status.phase, world.said("LeftoversRemoved")[:2]) == ("Complete", ("True", "Removed"))
    assert ("Normal", "Removed") in world.events()
    assert (await world.plan()).empty


async def test_a_gate_that_lets_nothing_out_keeps_all_results_until_a_looser_one_takes_one():
    world = await world_of(methods=["AWQ", "GPTQ", "W8A8"]).complete(24, 30, 40)
    assert world.said("LeftoversRemoved")[:2] == ("False", "Pending")
    assert world.removals() == []
    world.edit(qualityGate={"maxPerplexityIncreasePercent": 60})
    await world.settle()
    assert await world.tidy() == [RESULT.format("gptq"), RESULT.format("w8a8")]
    assert [attempt.removed for attempt in world.status.attempts] == [False, True, True]


async def test_the_merged_source_is_removed_when_the_run_has_ended():
    world = await merged(merging(), 24, 20.2)
    assert await world.tidy() == [RESULT.format("awq"), MERGED["uri"]]
    assert (world.status.source.removed, world.status.source.size_bytes) == (True, 100)
    assert world.status.compression_ratio == "0.00"


async def test_the_merged_source_of_a_run_that_failed_is_removed_too():
    world = merging(backoffLimit=0)
    await world.settle()
    world.succeed(source=MERGED)
    await world.settle()
    world.fail(1, "EvaluationFailed", "no figure")
    await world.settle()
    assert world.status.run.outcome == "Failed"
    assert await world.tidy() == [MERGED["uri"]]
    assert world.said("LeftoversRemoved")[1] == "Pending"


@pytest.mark.parametrize(
    ("objects", "spec"),
    [
        ((), {"publish": PUBLISH}),
        ((expert(sourceRef={"kind": "QuantizeJob", "name": "small"}),), {}),
        ((expert(artifact={"uri": MERGED["uri"]}),), {}),
    ],
)
async def test_a_merged_source_that_an_expert_has_as_base_or_serves_stays(objects, spec):
    world = await merged(merging(*objects, **spec), 20.2)
    assert world.removals() == []
    assert world.said("LeftoversRemoved")[0] == "True"


async def test_a_merged_source_goes_when_the_last_that_names_it_has_gone():
    world = await merged(merging(expert(artifact={"uri": MERGED["uri"]})), 20.2)
    assert "is kept, since Expert 'mine' names it" in world.said("LeftoversRemoved")[2]
    world.cluster.drop_named("experts", "mine")
    await world.settle()
    assert await world.tidy() == [MERGED["uri"]]


async def test_a_merged_source_stays_while_a_changed_on_failure_may_ask_for_the_next_method():
    world = await merged(merging(qualityGate={"onFailure": "Fail"}), 24)
    assert world.removals() == []
    world.edit(qualityGate={"onFailure": "TryNext"})
    await world.settle()
    world.succeed()
    await world.settle()
    world.succeed(perplexity=20.1)
    await world.settle()
    assert await world.tidy() == [RESULT.format("awq"), MERGED["uri"]]


async def test_a_result_that_an_earlier_run_let_out_stays():
    world = await world_of(methods=["AWQ", "GPTQ"]).complete(20.2)
    world.edit(qualityGate={"dataset": {"uri": "pvc://data/other.jsonl"}})
    await world.complete(24, 20.2)
    assert world.status.chosen_method == "GPTQ"
    assert world.status.history[0].artifact.uri == RESULT.format("awq")
    assert world.removals() == []


async def test_a_folder_that_is_not_named_as_ours_are_is_left_alone():
    world = world_of()
    await world.go_to("Quantize", "AWQ")
    world.succeed(artifact=artifact("awq") | {"uri": "pvc://models/small/other"})
    await world.complete(24, 20.2)
    assert world.status.attempts[0].artifact.uri == "pvc://models/small/other"
    assert world.removals() == []


async def test_a_removal_that_fails_is_said_with_its_cause_and_asked_again_later():
    world = await world_of().complete(24, 20.2)
    world.removed(error={"reason": "DigestDiffers", "message": "its weights have another digest"})
    await world.settle()
    assert world.said("LeftoversRemoved")[1] == "DigestDiffers"
    assert "its weights have another digest; it is tried again in 5 minutes" in world.said("LeftoversRemoved")[2]
    assert ("Warning", "DigestDiffers") in world.events()
    assert world.status.phase == "Complete"
    world.wait(301)
    await world.settle()
    assert await world.tidy() == [RESULT.format("awq")]


async def test_the_time_to_live_of_the_children_does_not_stop_a_removal():
    world = await world_of(ttlSecondsAfterFinished=0).complete(24, 20.2)
    (batch,) = world.removals()
    assert world.jobs() == [batch["metadata"]["name"]]
    assert await world.tidy() == [RESULT.format("awq")]
    assert world.status.attempts[0].removed


async def test_the_next_run_stops_a_removal_and_waits_until_its_pod_is_over():
    world = await world_of().complete(24, 20.2)
    (batch,) = world.removals()
    at_work = {"name": "errand", "state": {"running": {}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": batch["spec"]["template"]["metadata"] | {"name": "remover", "namespace": "team"},
        "status": {"phase": "Running", "containerStatuses": [at_work]},
    }
    world.cluster.put(pod)
    world.edit(methods=["AWQ", "W8A8"])
    await world.settle()
    assert world.removals() == []
    assert (world.status.run.number, world.jobs()) == (2, [])
    assert "waits for pod 'remover'" in world.status.message
    world.cluster.drop(PODS, KEY.namespace, "remover")
    await world.settle()
    assert world.jobs() == ["small-q2-p-a1"]
