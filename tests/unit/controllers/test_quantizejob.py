"""Runs of a QuantizeJob: what follows from what its pods left, from its spec, and from what the cluster lacks."""

from __future__ import annotations

import pytest

from largeforge.api.expert import Expert
from largeforge.api.names import ExitCode
from largeforge.controllers.expertsource import of_job
from largeforge.controllers.quantizejob import reconcile
from largeforge.kube.cluster import EVENTS, EXPERTS, PERSISTENTVOLUMECLAIMS
from tests.unit.fakes import Killed
from tests.unit.quantizing import (
    KEY,
    PUBLISH,
    artifact,
    engine_pod,
    prepared,
    quantized,
    quantizejob,
    trained,
    world_of,
)
from tests.unit.training import SETTINGS, finished

CRASH = {"exitCode": 1, "reason": "Error", "message": "INFO starting\nValueError: Quantization method is not supported"}


def service(*, lora=False, gpus=0):
    """The InferenceService that is to serve the result."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen", "namespace": "team"},
        "spec": {
            "model": {"uri": "pvc://models/base"},
            "compute": {"gpusPerReplica": gpus},
            **({"lora": {"store": "pvc://models"}} if lora else {}),
        },
    }


async def test_the_first_method_that_loses_little_is_published_and_then_nothing_is_written():
    world = await world_of(publish=PUBLISH).complete(20.2)
    status = world.status
    assert (status.phase, status.chosen_method, status.run.chosen_method) == ("Complete", "AWQ", "AWQ")
    assert (status.method, status.evaluation.perplexity, status.perplexity_after) == ("AWQ", "20", "20.2")
    assert status.compression_ratio == "2.31"
    assert [a.verdict for a in status.attempts] == ["Passed"]
    assert status.artifact.uri == "pvc://models/small/small-awq"
    assert status.artifact_run == 1
    (expert,) = world.experts()
    assert expert["spec"]["type"] == "Model"
    assert expert["spec"]["sourceRef"] == {"kind": "QuantizeJob", "name": "small"}
    assert "ownerReferences" not in expert["metadata"]
    assert world.jobs() == ["small-q1-e0-a1", "small-q1-e1-a1", "small-q1-m1-a1", "small-q1-p-a1"]
    assert (await world.plan()).empty
    assert (await world.plan()).status == status


async def test_a_method_that_loses_too_much_is_followed_by_the_next():
    world = await world_of().complete(24, 20.2)
    first, second = world.status.attempts
    assert (first.verdict, first.reason, first.increase_percent) == ("Failed", "GateFailed", "20.00")
    assert "20.00 % is above 2 %" in first.message
    assert (second.verdict, world.status.chosen_method) == ("Passed", "GPTQ")
    assert world.said("GatePassed")[:2] == ("True", "GatePassed")
    assert ("Warning", "GateFailed") in world.events()


async def test_a_gate_that_no_result_passes_blocks_all_and_keeps_them():
    world = await world_of(publish=PUBLISH).complete(24, 30)
    status = world.status
    assert (status.phase, status.run.outcome, status.chosen_method) == ("Failed", "Succeeded", None)
    assert world.said("Failed")[1] == "GateFailed"
    assert "AWQ: perplexity 20 became 24" in status.message
    assert "GPTQ: perplexity 20 became 30" in status.message
    assert "loosen spec.qualityGate" in status.message
    assert (world.said("Published")[0], world.experts()) == ("False", [])
    assert (await world.plan()).empty


async def test_a_looser_gate_lets_a_kept_result_out_without_a_new_run():
    world = await world_of(publish=PUBLISH).complete(24, 30)
    jobs = world.jobs()
    world.edit(qualityGate={"maxPerplexityIncreasePercent": 60})
    await world.settle()
    status = world.status
    assert (status.phase, status.run.number, status.chosen_method) == ("Complete", 1, "AWQ")
    assert [job for job in world.jobs() if "-remove-" not in job] == jobs
    assert len(world.experts()) == 1


async def test_a_stricter_gate_is_said_and_takes_no_expert_down():
    world = await world_of(publish=PUBLISH).complete(20.2)
    world.edit(qualityGate={"maxPerplexityIncreasePercent": 0.5})
    await world.settle()
    assert world.status.phase == "Complete"
    assert world.said("GatePassed")[:2] == ("False", "GateFailed")
    assert "it was let out before the gate changed" in world.said("GatePassed")[2]
    assert len(world.experts()) == 1


async def test_on_failure_fail_ends_at_the_first_method_that_loses_too_much_and_try_next_goes_on_later():
    world = await world_of(qualityGate={"onFailure": "Fail"}).complete(24)
    assert (world.status.phase, len(world.status.attempts)) == ("Failed", 1)
    world.edit(qualityGate={"onFailure": "TryNext"})
    await world.settle()
    assert (world.status.run.number, world.status.run.stage, world.method) == (1, "Quantize", "GPTQ")
    assert world.status.run.outcome is None
    world.succeed()
    await world.settle()
    world.succeed(perplexity=20.1)
    await world.settle()
    assert (world.status.phase, world.status.chosen_method) == ("Complete", "GPTQ")


async def test_on_failure_warn_takes_the_first_result_and_says_what_it_loses():
    world = await world_of(publish=PUBLISH, qualityGate={"onFailure": "Warn"}).complete(24)
    assert (world.status.phase, world.status.attempts[0].verdict) == ("Complete", "Warned")
    assert world.said("GatePassed")[:2] == ("False", "GateFailed")
    assert "onFailure is Warn" in world.said("GatePassed")[2]
    assert len(world.experts()) == 1


async def test_an_absolute_limit_holds_too():
    world = await world_of(methods=["AWQ"], qualityGate={"maxPerplexity": 20.1}).complete(20.2)
    assert world.status.phase == "Failed"
    assert "spec.qualityGate.maxPerplexity: 20.2 is above 20.1" in world.status.message


@pytest.mark.parametrize("broken", ["nan", "inf"])
async def test_a_perplexity_that_is_no_number_passes_no_gate(broken):
    world = await world_of(methods=["AWQ"], qualityGate={"maxPerplexityIncreasePercent": 100000}).complete(broken)
    assert (world.status.phase, world.status.attempts[0].verdict) == ("Failed", "Failed")


async def test_a_method_that_cannot_work_hides_no_other():
    world = await world_of().go_to("Quantize", "AWQ")
    world.fail(ExitCode.INVALID_CONFIG, "InvalidConfig", "spec.scheme.groupSize: 128 does not divide 576")
    await world.settle()
    first = world.status.attempts[0]
    assert (first.verdict, first.reason) == ("Error", "InvalidConfig")
    assert "576" in first.message
    assert (world.status.run.stage, world.method) == ("Quantize", "GPTQ")
    assert ("Warning", "InvalidConfig") in world.events()
    world.succeed()
    await world.settle()
    world.succeed(perplexity=20.2)
    await world.settle()
    assert (world.status.phase, world.status.chosen_method) == ("Complete", "GPTQ")


async def test_when_no_method_comes_to_a_result_the_run_has_failed():
    world = await world_of().go_to("Quantize", "AWQ")
    for _ in range(2):
        world.fail(ExitCode.INVALID_CONFIG, "InvalidConfig", "no")
        await world.settle()
    assert (world.status.phase, world.status.run.outcome) == ("Failed", "Failed")
    assert world.said("Failed")[1] == "QuantizeFailed"
    assert "AWQ: no; GPTQ: no" in world.status.message
    assert (await world.plan()).empty


async def test_an_engine_that_does_not_load_a_result_fails_that_method_with_its_own_words():
    world = await world_of().go_to("Evaluate", "AWQ")
    world.cluster.put(engine_pod(world.batch))
    await world.settle()
    assert "waits for its engine to load the model" in world.status.message
    world.cluster.put(engine_pod(world.batch, state={"waiting": {"reason": "CrashLoopBackOff"}}, last=CRASH))
    await world.settle()
    assert world.method == "AWQ", "an engine that has ended once is tried again by the kubelet"
    job = world.batch
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    world.cluster.put(engine_pod(job, state=waiting, restarts=1, last=CRASH))
    await world.settle()
    first = world.status.attempts[0]
    assert (first.verdict, first.reason) == ("Error", "EngineFailed")
    assert "ValueError: Quantization method is not supported" in first.message
    assert (world.status.run.stage, world.method) == ("Quantize", "GPTQ")
    assert job["metadata"]["name"] not in world.jobs(), "its pod would restart the engine for ever"


async def test_an_engine_without_memory_is_tried_again():
    world = await world_of().go_to("Evaluate", "AWQ")
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": ""}}
    world.cluster.put(engine_pod(world.batch, state=killed, restarts=1))
    await world.settle()
    assert (world.status.run.attempt, world.status.run.failures, world.method) == (2, 1, "AWQ")
    assert world.status.error.reason == "OutOfMemory"


async def test_a_source_that_the_engine_does_not_load_ends_the_run():
    world = await world_of().go_to("Evaluate")
    world.cluster.put(engine_pod(world.batch, state={"terminated": CRASH}, restarts=1))
    await world.settle()
    assert (world.status.phase, world.said("Failed")[1]) == ("Failed", "EngineFailed")
    assert "the source cannot be measured" in world.status.message


async def test_a_pod_that_dies_is_followed_by_the_next_attempt_of_the_same_method():
    world = await world_of().go_to("Quantize", "AWQ")
    world.end(1, "")
    await world.settle()
    run = world.status.run
    assert (run.attempt, run.failures, world.method, run.job_name) == (2, 1, "AWQ", "small-q1-m1-a2")
    assert ("Warning", "Retrying") in world.events()
    assert run.job_name not in world.jobs(), "it waits a moment"
    world.wait(10)
    await world.settle()
    assert run.job_name in world.jobs()


async def test_a_disruption_is_not_counted():
    world = await world_of(backoffLimit=0).go_to("Quantize", "AWQ")
    world.end(143, "", said="exit code 143", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    await world.settle()
    assert (world.status.run.attempt, world.status.run.failures, world.method) == (2, 0, "AWQ")


async def test_after_too_many_failures_the_next_method_is_tried():
    world = await world_of(backoffLimit=1).go_to("Quantize", "AWQ")
    for _ in range(2):
        world.end(1, "")
        await world.settle()
        world.wait(600)
        await world.settle()
    assert world.status.attempts[0].reason == "BackoffLimitExceeded"
    assert (world.method, world.status.run.failures) == ("GPTQ", 0)


async def test_a_calibration_set_that_is_refused_ends_the_run_before_anything_is_quantized():
    world = world_of()
    await world.settle()
    world.fail(ExitCode.INVALID_DATA, "DatasetInvalid", "spec.calibration.datasets: 12 samples, 256 are asked for")
    await world.settle()
    assert (world.status.phase, world.said("DatasetValid")[:2]) == ("Failed", ("False", "DatasetInvalid"))
    assert world.jobs() == ["small-q1-p-a1"]


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ({"uri": "pvc://other/tokens"}, "prepared tokens outside pvc://models/small"),
        ({"source": {"uri": "pvc://models/other", "digest": "b", "sizeBytes": 1}}, "of another source"),
        ({"source": {"uri": "pvc://models/base", "digest": "b", "sizeBytes": 1, "merged": True}}, "was merged"),
    ],
)
async def test_what_preflight_says_is_not_taken_for_more_than_it_was_asked(left, why):
    world = world_of()
    await world.settle()
    world.end(0, prepared(digest=world.status.run.digest, **left))
    await world.settle()
    assert (world.status.run.stage, world.status.run.attempt) == ("Preflight", 2)
    assert world.status.error.reason == "ResultMissing"
    assert why in world.status.error.message


@pytest.mark.parametrize(
    "left",
    [
        "",
        "{not json",
        quantized("AWQ", digest="0" * 64),
        quantized("AWQ", digest="{digest}", artifact=None),
        quantized("AWQ", digest="{digest}", stage="Evaluate"),
    ],
)
async def test_a_success_without_its_own_result_is_none(left):
    world = await world_of().go_to("Quantize", "AWQ")
    world.end(0, left.replace("{digest}", world.status.run.digest))
    await world.settle()
    assert (world.status.run.stage, world.status.run.attempt) == ("Quantize", 2)
    assert world.status.error.reason == "ResultMissing"


async def test_an_artifact_outside_the_output_is_refused():
    world = await world_of().go_to("Quantize", "AWQ")
    world.succeed(artifact={"kind": "Model", "uri": "pvc://secret/x", "digest": "a", "sizeBytes": 1, "base": "b"})
    await world.settle()
    assert "outside pvc://models/small" in world.status.error.message


async def test_suspend_frees_everything_and_resume_goes_on_with_the_method_at_work():
    world = await world_of().go_to("Quantize", "GPTQ")
    world.edit(suspend=True)
    await world.settle()
    assert (world.status.phase, world.said("Suspended")[0]) == ("Suspended", "True")
    assert "small-q1-m2-a1" not in world.jobs()
    world.edit(suspend=False)
    await world.settle()
    run = world.status.run
    assert (run.number, run.attempt, run.failures, world.method) == (1, 2, 0, "GPTQ")
    assert "small-q1-m2-a2" in world.jobs()
    assert world.status.attempts[0].verdict == "Failed"


async def test_a_deadline_stops_what_runs_and_keeps_what_is_whole():
    world = await world_of(activeDeadlineSeconds=100).go_to("Quantize", "GPTQ")
    world.start_pod()
    assert await world.settle() == 100
    world.wait(101)
    await world.settle()
    assert (world.status.phase, world.said("Failed")[1]) == ("Failed", "DeadlineExceeded")
    assert "small-q1-m2-a1" not in world.jobs()
    assert world.status.attempts[0].artifact is not None


async def test_children_are_removed_after_their_time_and_the_record_stays():
    world = await world_of(ttlSecondsAfterFinished=60, publish=PUBLISH).complete(20.2)
    assert world.jobs() != []
    world.wait(61)
    await world.settle()
    assert (world.jobs(), world.configs()) == ([], [])
    assert (world.status.phase, world.status.chosen_method) == ("Complete", "AWQ")
    assert len(world.experts()) == 1


async def test_what_decides_the_result_starts_the_next_run_and_nothing_else_does():
    world = await world_of().complete(20.2)
    world.edit(backoffLimit=1, qualityGate={"maxPerplexityIncreasePercent": 3}, ttlSecondsAfterFinished=9999)
    await world.settle()
    assert world.status.run.number == 1
    world.edit(methods=["GPTQ"])
    await world.settle()
    status = world.status
    assert (status.run.number, [r.number for r in status.history]) == (2, [1])
    assert status.history[0].chosen_method == "AWQ"
    assert status.history[0].artifact.uri == "pvc://models/small/small-awq"
    assert status.artifact.uri == "pvc://models/small/small-awq", "until the new run has its own"
    assert world.jobs() == ["small-q2-p-a1"]
    assert world.configs() == ["small-q2-p"]
    messages = [e["note"] for e in world.cluster.all(EVENTS)]
    assert any("spec.methods changed" in m for m in messages)


async def test_rerun_policy_never_says_what_changed_and_keeps_the_run():
    world = await world_of(rerunPolicy="Never").complete(20.2)
    world.edit(methods=["GPTQ"])
    await world.settle()
    assert (world.status.run.number, world.said("Validated")[:2]) == (1, ("False", "RerunRefused"))


async def test_what_the_installation_does_not_allow_starts_nothing():
    world = world_of(source={"uri": "pvc://models/base", "trustRemoteCode": True})
    await world.settle()
    assert (world.said("Validated")[:2], world.jobs()) == (("False", "RemoteCodeNotAllowed"), [])
    assert "spec.source.trustRemoteCode" in world.status.message
    world = world_of(serviceAccountName="admin")
    await world.settle()
    assert (world.said("Validated")[1], world.jobs()) == ("ServiceAccountNotAllowed", [])
    world.settings = SETTINGS.model_copy(update={"service_accounts": frozenset({"admin"})})
    await world.settle()
    assert world.jobs() == ["small-q1-p-a1"]


async def test_what_the_service_cannot_serve_is_refused_before_work_starts():
    world = world_of(service(lora=True), methods=["AWQ", "W8A8"], publish=PUBLISH)
    await world.settle()
    assert (world.said("Validated")[:2], world.jobs()) == (("False", "NotServable"), [])
    assert "spec.methods[1]: W8A8 cannot be served by InferenceService 'qwen'" in world.status.message
    assert "without spec.lora" in world.status.message
    world.edit(methods=["AWQ"])
    await world.settle()
    assert world.jobs() == ["small-q1-p-a1"]
    world = world_of(service(), methods=["W8A8"], publish=PUBLISH)
    await world.settle()
    assert world.jobs() == ["small-q1-p-a1"]


async def test_a_name_that_another_expert_holds_is_left_alone():
    other = {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "small", "namespace": "team"},
        "spec": {"type": "Model"},
    }
    world = await world_of(other, publish=PUBLISH).complete(20.2)
    assert (world.said("Published")[:2], world.status.phase) == (("False", "NameTaken"), "Pending")
    assert world.experts()[0]["spec"] == {"type": "Model"}
    world.cluster.drop(EXPERTS, "team", "small")
    await world.settle()
    assert world.status.phase == "Complete"


async def test_a_missing_claim_is_waited_for_with_the_field_that_names_it():
    world = world_of(claims=("models",))
    assert await world.settle() == 15
    assert world.said("StorageReachable")[:2] == ("False", "ClaimNotFound")
    assert "spec.calibration.datasets[0].uri" in world.status.message
    assert world.jobs() == []


async def test_calibration_data_is_needed_by_preflight_alone():
    world = await world_of().go_to("Quantize", "AWQ")
    world.cluster.drop(PERSISTENTVOLUMECLAIMS, "team", "data")
    world.end(1, "")
    await world.settle()
    world.wait(10)
    await world.settle()
    assert "small-q1-m1-a2" in world.jobs()


async def test_a_configmap_without_the_key_is_waited_for():
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows", "namespace": "team"}, "data": {}}
    world = world_of(rows, qualityGate={"dataset": {"uri": "configmap://rows/held.jsonl"}})
    await world.settle()
    assert "spec.qualityGate.dataset.uri: ConfigMap 'rows' has no key 'held.jsonl'" in world.status.message


@pytest.mark.parametrize("kill_at", range(36))
async def test_a_kill_before_any_write_changes_nothing_of_the_end(kill_at):
    world = world_of(publish=PUBLISH)
    world.cluster.kill_at = kill_at
    perplexities = [24, 20.2]
    for _ in range(40):
        try:
            await world.settle()
        except Killed:
            world.cluster.kill_at = None
            continue
        run = world.status.run
        if run.outcome is not None and not world.removals():
            break
        at_result = run.stage == "Evaluate" and run.method is not None
        if run.outcome is not None:
            world.removed()
        elif at_result:
            world.succeed(perplexity=perplexities.pop(0))
        else:
            world.succeed()
    assert (world.status.phase, world.status.chosen_method) == ("Complete", "GPTQ")
    assert [attempt.removed for attempt in world.status.attempts] == [True, False]
    jobs = [name for name in world.jobs() if "-remove-" not in name]
    assert all(name.endswith("-a1") for name in jobs)
    assert (len(jobs), len(world.jobs())) == (6, 7)
    assert len(world.experts()) == 1


async def test_the_pod_of_the_attempt_before_has_to_be_over():
    world = await world_of().go_to("Quantize", "AWQ")
    world.start_pod()
    batch = world.batch
    world.cluster.put(finished(batch, "Failed", time=world.time.isoformat()))
    await world.settle()
    world.wait(60)
    await world.settle()
    assert "waits for pod" in world.status.message
    assert "small-q1-m1-a2" not in world.jobs()


async def test_the_source_of_a_run_is_waited_for_and_its_adapter_is_merged_by_preflight():
    world = world_of(source={"fineTuneJobRef": {"name": "sql"}})
    assert await world.settle() == 15
    assert world.said("Running")[:2] == ("False", "SourceNotFound")
    assert "spec.source.fineTuneJobRef: no FineTuneJob 'sql'" in world.status.message
    world.cluster.put(trained())
    await world.settle()
    base = world.status.run.base
    assert (base.uri, base.adapter) == ("pvc://models/base", "pvc://models/out/sql-1")
    config = world.cluster.objects["configmaps", "team", "small-q1-p"]["data"]["config.json"]
    assert '"path": "/mnt/adapter"' in config
    merged = {
        "uri": "pvc://models/small/small-0123456789ab-source",
        "digest": "b",
        "sizeBytes": 100,
        "merged": True,
    }
    world.succeed(source=merged)
    await world.settle()
    assert (world.status.run.stage, world.status.source.merged) == ("Evaluate", True)
    (engine,) = world.batch["spec"]["template"]["spec"]["initContainers"]
    assert engine["volumeMounts"][0]["subPath"] == "small/small-0123456789ab-source"


async def test_the_words_of_the_phases_follow_the_step():
    world = await world_of().go_to("Evaluate")
    world.start_pod()
    await world.settle()
    assert (world.status.phase, world.status.message) == ("Evaluating", "attempt 1 measures the source")
    world.succeed()
    await world.settle()
    world.start_pod()
    await world.settle()
    assert (world.status.phase, world.status.method) == ("Quantizing", "AWQ")
    assert world.status.message == "attempt 1 quantizes by method 1 of 2, AWQ"


async def test_a_refusal_of_the_api_server_is_a_condition():
    world = world_of()
    world.cluster.refuse = ("create", "Job")
    for _ in range(2):
        again = await reconcile(KEY, world)
    assert again == 60
    assert (world.said("Running")[:2], world.said("Stalled")[0]) == (("False", "Refused"), "True")


def test_an_expert_takes_its_model_from_the_job_and_keeps_it_when_the_job_is_gone():
    expert = Expert.model_validate(
        {
            "metadata": {"name": "small", "namespace": "team"},
            "spec": {
                "type": "Model",
                "sourceRef": {"kind": "QuantizeJob", "name": "small"},
                "inferenceServiceRef": {"name": "qwen"},
            },
        }
    )
    run = {"number": 3, "digest": "d", "outcome": "Succeeded", "chosenMethod": "AWQ", "artifact": artifact("AWQ")}
    figures = {"perplexityBefore": "20", "perplexityAfter": "20.2", "increasePercent": "1.00", "verdict": "Passed"}
    status = {"run": run, "artifact": run["artifact"], "artifactRun": 3, "chosenMethod": "AWQ"}
    job = quantizejob(status=status | {"attempts": [{"method": "AWQ"} | figures]})

    found = of_job(expert, expert.spec.source_ref, job)

    assert found.resolved.uri == "pvc://models/small/small-awq"
    assert found.resolved.engine_name == "qwen"
    assert (found.lineage.quantize_job, found.lineage.fine_tune_job, found.lineage.run) == ("small", None, 3)
    assert found.evaluation.gate == "Passed"
    assert [(m.name, m.value) for m in found.evaluation.metrics][1] == ("perplexity", "20.2")
    known = {"resolved": found.resolved, "lineage": found.lineage}
    later = expert.model_copy(update={"status": expert.status.model_copy(update=known)})
    assert of_job(later, expert.spec.source_ref, None).resolved == found.resolved
    missing = of_job(expert, expert.spec.source_ref, None).condition
    assert (missing.reason, "no QuantizeJob 'small'" in missing.message) == ("SourceNotFound", True)
