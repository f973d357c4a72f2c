"""Runs and attempts: what starts one, how one ends, and what follows."""

from __future__ import annotations

import pytest

from largeforge.kube.cluster import CONFIGMAPS, EVENTS, EXPERTS, JOBS, PODS
from tests.unit.training import NOW, checkpoint, failure, finished, pod, result
from tests.unit.world import publishing, world_of


@pytest.fixture
def world():
    return publishing()


def disrupted(reason, message="because"):
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


async def test_other_failures_are_tried_again_with_growing_pauses_until_the_limit(world):
    world.edit(backoffLimit=2)
    await world.to_training()
    pauses = []
    for attempt in (1, 2, 3):
        assert world.batch["metadata"]["name"] == f"sql-r1-a{attempt}"
        world.end(1)
        again = await world.settle()
        if attempt < 3:
            assert world.said("Running")[:2] == ("False", "Retrying")
            assert world.status.error.reason == "TrainingFailed"
            pauses.append(again)
            world.wait(again)
            await world.settle()
    assert pauses == [10, 20]
    assert world.said("Failed")[:2] == ("True", "BackoffLimitExceeded")
    assert "the pod ended with exit code 1" in world.said("Failed")[2]
    assert world.status.run.failures == 3
    assert world.jobs() == ["sql-r1-a2", "sql-r1-a3", "sql-r1-p1"], "logs of the last two are kept"


async def test_failures_of_preflight_count_too_and_its_attempts_have_numbers_of_their_own(world):
    world.edit(backoffLimit=1)
    await world.settle()
    world.end(1, failure("HubUnreachable", "no answer", digest=world.status.run.digest))
    world.wait(await world.settle())
    await world.settle()
    assert (world.batch["metadata"]["name"], world.status.error.reason) == ("sql-r1-p2", "HubUnreachable")
    world.succeed()
    await world.settle()
    assert world.batch["metadata"]["name"] == "sql-r1-a1"
    assert world.status.error is None
    world.end(1)
    await world.settle()
    assert world.said("Failed")[1] == "BackoffLimitExceeded"


@pytest.mark.parametrize(
    ("code", "conditions", "said", "reason"),
    [
        (75, (), "failed with exit code 75 matching FailJob rule at index 0", "Disrupted"),
        (137, (), "has condition DisruptionTarget matching FailJob rule at index 1", "Disrupted"),
        (137, [disrupted("PreemptionByScheduler")], "", "Preempted"),
        (143, [disrupted("TerminationByKubelet", "The node was low on resource: memory.")], "", "Evicted"),
        (143, [disrupted("EvictionByEvictionAPI")], "", "Evicted"),
        (137, [disrupted("DeletionByTaintManager")], "", "NodeLost"),
        (1, [disrupted("DeletionByPodGC")], "", "NodeLost"),
    ],
)
async def test_disruptions_are_told_apart_and_not_counted(world, code, conditions, said, reason):
    world.edit(backoffLimit=0)
    await world.to_training()
    for _ in range(3):
        world.end(code, said=said, conditions=conditions)
        world.wait(await world.settle())
        assert world.status.error.reason == reason
        await world.settle()
    assert (world.status.run.attempt, world.status.run.failures, world.status.phase) == (4, 0, "Pending")


async def test_a_disruption_says_what_the_run_itself_says(world):
    await world.to_training()
    stated = failure("Disrupted", "stopped; the next attempt goes on from step 12", checkpoint=checkpoint(12))
    world.end(75, stated.replace("d" * 64, world.status.run.digest), said="exit code 75")
    await world.settle()
    assert "the next attempt goes on from step 12" in world.status.message
    assert (world.status.checkpoint.step, world.status.run.resumes) == (12, 1)


async def test_a_pod_that_fills_its_own_disk_is_counted(world):
    world.edit(backoffLimit=0)
    await world.to_training()
    world.end(1)
    gone = pod(world.batch, code=1)
    gone["status"] |= {"reason": "Evicted", "message": "Usage of EmptyDir volume exceeds the limit", "phase": "Failed"}
    world.cluster.put(gone)
    await world.settle()
    assert (world.status.error.reason, world.status.run.failures) == ("Evicted", 1)
    assert "exceeds the limit" in world.status.message


async def test_a_kill_for_memory_names_the_remedy(world):
    world.edit(backoffLimit=0)
    await world.to_training()
    world.end(137)
    await world.settle()
    assert world.status.error.reason == "OutOfMemory"
    assert "spec.compute.resources.limits.memory" in world.status.message


@pytest.mark.parametrize("reason", ["OutOfGPUMemory", "OutOfMemory", "DiskFull", "StrategyMismatch"])
async def test_what_the_run_says_of_its_end_is_the_cause(world, reason):
    world.edit(backoffLimit=0)
    await world.to_training()
    world.end(1, failure(reason, "too little of it", digest=world.status.run.digest))
    await world.settle()
    assert world.status.error.reason == reason
    assert world.said("Failed")[1] == "BackoffLimitExceeded"
    assert world.said("StorageReachable")[:2] == (("False", "DiskFull") if reason == "DiskFull" else ("True", "Ready"))


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[" * 2000,
        result(digest="another"),
        result(artifact=None),
        result(artifact={"kind": "Adapter", "uri": "pvc://other/x", "digest": "", "sizeBytes": 1, "base": ""}),
        result(artifact={"kind": "Adapter", "uri": "s3://other/x", "digest": "", "sizeBytes": 1, "base": ""}),
    ],
)
async def test_a_success_without_its_result_is_tried_again_and_counted(world, message):
    await world.to_training()
    world.end(0, message.replace("d" * 64, world.status.run.digest))
    world.wait(await world.settle())
    assert world.status.error.reason == "ResultMissing"
    assert (world.status.run.attempt, world.status.run.failures) == (2, 1)
    await world.settle()
    world.succeed()
    await world.settle()
    assert world.status.phase == "Complete"
    assert world.status.error is None


async def test_a_result_in_the_pod_of_another_job_is_not_taken(world):
    await world.to_training()
    job = world.batch
    forged = pod(job | {"metadata": job["metadata"] | {"uid": "other", "name": "other"}}, code=0, message=result())
    world.cluster.put(forged)
    world.end(0, keep_pod=False)
    await world.settle()
    assert world.status.error.reason == "ResultMissing"


async def test_a_changed_result_stops_the_run_and_starts_the_next(world):
    await world.to_training()
    world.edit(training={"maxSteps": 5}, peft={"type": "LoRA", "r": 8})
    await world.settle()
    assert world.jobs() == ["sql-r2-p1"]
    assert [m["metadata"]["name"] for m in world.cluster.all(CONFIGMAPS)] == ["sql-r2-preflight"]
    assert (world.status.run.number, world.status.run.failures) == (2, 0)
    assert [(r.number, r.outcome, r.completion_time) for r in world.status.history] == [(1, None, NOW)]
    assert world.status.observed_generation == 2
    assert (world.status.dataset, world.said("Validated")[0]) == (None, "Unknown")
    notes = [e["note"] for e in world.cluster.all(EVENTS) if e["reason"] == "Started"]
    assert notes[-1] == "run 2 begins: spec.peft.r, spec.training.maxSteps changed"


async def test_the_next_run_keeps_the_artifact_until_it_has_its_own(world):
    await world.complete()
    world.edit(training={"maxSteps": 5})
    await world.settle()
    assert world.status.artifact.digest == "a" * 64
    assert (world.status.artifact_run, world.status.metrics, world.status.progress) == (1, [], None)
    assert world.said("Complete")[0] == "False"
    world.succeed()
    await world.settle()
    world.succeed()
    await world.settle()
    assert world.status.artifact_run == 2


async def test_the_history_has_the_ten_runs_before(world):
    await world.complete()
    for steps in range(1, 13):
        world.edit(training={"maxSteps": steps})
        await world.settle()
    assert [r.number for r in world.status.history] == list(range(12, 2, -1))


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": False},
        {"backoffLimit": 9},
        {"publish": {"expert": {"name": "other", "inferenceServiceRef": {"name": "qwen"}}}},
        {"compute": {"gpusPerNode": 0, "resources": {"limits": {"memory": "9Gi"}}}},
        {"compute": {"gpusPerNode": 0, "podTemplate": {"nodeSelector": {"a": "b"}}}},
        {"evalSplitRatio": 0, "training": {"seed": 42}},
        {"ttlSecondsAfterFinished": 5},
        {"image": "other:1"},
    ],
)
async def test_what_does_not_decide_the_result_starts_no_run(world, change):
    await world.to_training()
    world.edit(**change)
    await world.settle()
    assert (world.status.run.number, world.jobs()) == (1, ["sql-r1-a1", "sql-r1-p1"])
    assert world.status.observed_generation == 2


async def test_a_label_starts_no_run(world):
    await world.complete()
    before = world.status
    world.cluster.put(world.raw | {"metadata": world.raw["metadata"] | {"labels": {"team": "search"}}})
    await world.settle()
    assert world.status == before


async def test_a_changed_publish_of_a_complete_run_changes_the_experts_without_a_run(world):
    await world.complete()
    world.edit(publish={"expert": {"name": "other", "inferenceServiceRef": {"name": "qwen"}}})
    await world.settle()
    assert sorted(e["metadata"]["name"] for e in world.cluster.all(EXPERTS)) == ["other", "sql"]
    assert (world.status.phase, world.status.expert_ref.name, world.status.run.number) == ("Complete", "other", 1)


async def test_where_no_other_run_is_wanted_the_change_is_named_and_the_result_kept(world):
    world.edit(rerunPolicy="Never")
    await world.complete()
    jobs = world.jobs()
    world.edit(training={"maxSteps": 5})
    await world.settle()
    status, reason, message = world.said("Validated")
    assert (status, reason) == ("False", "RerunRefused")
    assert message.startswith("spec.training.maxSteps changed since run 1 began")
    assert (world.status.phase, world.status.run.number, world.jobs()) == ("Complete", 1, jobs)
    assert world.events().count(("Warning", "RerunRefused")) == 1
    world.edit(training=None)
    await world.settle()
    assert world.said("Validated")[:2] == ("True", "Checked")
    world.edit(training={"maxSteps": 5}, rerunPolicy="OnSpecChange")
    await world.settle()
    assert world.status.run.number == 2


async def test_an_attempt_goes_on_although_its_spec_changed_but_no_next_one_is_made_of_the_other(world):
    world.edit(rerunPolicy="Never")
    await world.to_training()
    world.edit(training={"maxSteps": 5})
    await world.settle()
    assert "sql-r1-a1" in world.jobs()
    world.end(1)
    world.wait(60)
    await world.settle()
    assert "sql-r1-a2" not in world.jobs()
    assert world.said("Stalled")[:2] == ("True", "RerunRefused")
    world.edit(training=None)
    await world.settle()
    assert "sql-r1-a2" in world.jobs()


@pytest.mark.parametrize("stage", ["Preflight", "Training"])
async def test_suspend_stops_the_attempt_and_resume_makes_the_next_uncounted(world, stage):
    await (world.settle() if stage == "Preflight" else world.to_training())
    letter = "p" if stage == "Preflight" else "a"
    world.edit(suspend=True)
    await world.settle()
    assert f"sql-r1-{letter}1" not in world.jobs()
    assert world.said("Suspended")[:2] == ("True", "SuspendedByUser")
    assert world.status.phase == "Suspended"
    world.edit(suspend=False)
    await world.settle()
    assert f"sql-r1-{letter}2" in world.jobs()
    assert world.status.run.failures == 0
    assert world.said("Suspended")[:2] == ("False", "NotSuspended")
    assert [reason for _, reason in world.events()].count("SuspendedByUser") == 1


async def test_suspended_from_the_start_makes_nothing():
    world = world_of(suspend=True)
    await world.settle()
    assert (world.jobs(), world.status.phase) == ([], "Suspended")


async def test_a_finished_attempt_counts_even_if_suspended(world):
    await world.to_training()
    world.succeed()
    world.edit(suspend=True)
    await world.settle()
    assert world.status.phase == "Complete"


async def test_the_next_attempt_waits_until_the_pod_before_is_over(world):
    await world.to_training()
    world.start_pod()
    stopping = world.cluster.all(PODS)[-1]
    world.edit(suspend=True)
    await world.settle()
    world.cluster.put(stopping)  # it saves its state
    world.edit(suspend=False)
    await world.settle()
    assert "sql-r1-a2" not in world.jobs()
    assert world.status.message == "attempt 2 waits for pod 'sql-r1-a1-0-abcde' of an earlier one to end"
    world.cluster.drop(PODS, "team", "sql-r1-a1-0-abcde")
    await world.settle()
    assert "sql-r1-a2" in world.jobs()


async def test_a_node_that_does_not_answer_is_named_with_what_to_do(world):
    await world.to_training()
    world.start_pod(conditions=[disrupted("DeletionByTaintManager", "deleting due to NoExecute taint")])
    lost = next(p for p in world.cluster.all(PODS) if "-a1-" in p["metadata"]["name"])
    world.cluster.put(lost | {"metadata": lost["metadata"] | {"deletionTimestamp": "2026-11-25T12:00:00Z"}})
    await world.settle()
    assert world.said("Running")[:2] == ("False", "NodeLost")
    assert "kubectl delete node node-1" in world.status.message
    assert world.events().count(("Warning", "NodeLost")) == 1


async def test_a_run_that_is_active_for_too_long_is_stopped_and_fails(world):
    world.edit(activeDeadlineSeconds=600)
    await world.to_training()
    world.start_pod()
    assert await world.settle() == 600
    world.wait(300)
    world.edit(suspend=True)
    await world.settle()
    assert world.status.run.active_seconds == 300
    world.wait(10_000)
    world.edit(suspend=False)
    await world.settle()
    world.start_pod()
    assert await world.settle() == 300, "the time that it was suspended does not count"
    world.wait(301)
    await world.settle()
    assert world.said("Failed")[:2] == ("True", "DeadlineExceeded")
    assert "spec.activeDeadlineSeconds (600 s)" in world.status.message
    assert "sql-r1-a2" not in world.jobs()
    assert world.status.error.field == "spec.activeDeadlineSeconds"
    assert world.said("Validated")[0] == "True"


async def test_what_ended_in_time_counts_although_it_is_seen_late(world):
    world.edit(activeDeadlineSeconds=600)
    await world.to_training()
    world.succeed()
    world.wait(700)
    await world.settle()
    assert world.status.phase == "Complete"


async def test_the_time_on_gpus_is_added_up_over_the_attempts():
    world = world_of(compute={"gpusPerNode": 2})
    await world.settle()
    world.succeed(seconds=50)
    await world.settle()
    assert world.status.usage.gpu_seconds == 0, "preflight holds none"
    world.end(1, seconds=100)
    world.wait(await world.settle())
    await world.settle()
    assert world.status.usage.gpu_seconds == 200
    world.succeed(seconds=30)
    await world.settle()
    assert world.status.usage.gpu_seconds == 260


async def test_a_new_attempt_takes_progress_back_and_a_failure_keeps_what_is_known(world):
    world.edit(backoffLimit=1)
    await world.to_training()
    shown = {"progress": {"percent": 30, "eta": "12m", "etaSeconds": 720}, "metrics": [{"name": "loss", "value": "1"}]}
    world.cluster.put(world.raw | {"status": world.raw["status"] | shown})
    world.end(1)
    world.wait(await world.settle())
    assert (world.status.progress, world.status.metrics) == (None, [])
    await world.settle()
    world.cluster.put(world.raw | {"status": world.raw["status"] | shown})
    world.end(1)
    await world.settle()
    assert (world.status.progress.percent, world.status.progress.eta) == (30, None)


async def test_resumption_is_not_counted_where_each_attempt_begins_anew(world):
    world.edit(checkpoint={"resume": "Never"})
    await world.to_training()
    world.end(1, failure("TrainingFailed", "x", digest=world.status.run.digest, checkpoint=checkpoint(12)))
    await world.settle()
    assert (world.status.checkpoint.step, world.status.run.resumes) == (12, 0)


async def test_nothing_changes_between_the_pods_end_and_the_jobs(world):
    await world.to_training()
    world.start_pod()
    await world.settle()
    before = world.status
    world.start_pod(code=0, message=result(digest=before.run.digest))
    await world.settle()
    assert world.status == before


async def test_a_job_of_an_earlier_run_that_comes_back_is_removed(world):
    await world.to_training()
    old = world.batch
    world.edit(training={"maxSteps": 5})
    await world.settle()
    world.cluster.put(finished(old, "Complete"))
    await world.settle()
    assert world.jobs() == ["sql-r2-p1"]


async def test_a_job_that_somebody_deletes_is_made_again(world):
    await world.to_training()
    world.cluster.drop(JOBS, "team", "sql-r1-a1")
    await world.settle()
    assert "sql-r1-a1" in world.jobs()
    assert world.status.run.failures == 0
