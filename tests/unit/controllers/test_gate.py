"""The gate: pure, and as a run's object tells of it."""

from __future__ import annotations

import pytest

from largeforge.api.common import Metric
from largeforge.api.training import Gate
from largeforge.controllers.gate import is_measured, judge, words
from largeforge.kube.cluster import EXPERTS
from tests.unit.training import PUBLISH
from tests.unit.world import world_of

MEASURED = {"eval_loss": "2.0", "perplexity": "7.389", "eval_loss_before": "2.5"}


def judged(gate, **measured):
    metrics = [Metric(name=n, value=v) for n, v in (MEASURED | measured).items()]
    return judge(Gate.model_validate(gate), metrics)


@pytest.mark.parametrize(
    ("gate", "measured", "verdict"),
    [
        ({"maxEvalLoss": 2.0}, {}, "Passed"),
        ({"maxEvalLoss": 1.99}, {}, "Failed"),
        ({"maxEvalLoss": 1.99, "onFailure": "Warn"}, {}, "Warned"),
        ({"maxPerplexity": 7.5}, {}, "Passed"),
        ({"maxPerplexity": 7}, {}, "Failed"),
        ({"compareWith": "Base"}, {}, "Passed"),
        ({"compareWith": "Base"}, {"eval_loss_before": "2.0"}, "Failed"),
        ({"compareWith": "Base", "maxEvalLoss": 3, "maxPerplexity": 7}, {}, "Failed"),
        ({"maxEvalLoss": 3}, {"eval_loss": "nan"}, "Failed"),
        ({"maxEvalLoss": 3}, {"eval_loss": "inf"}, "Failed"),
        ({"maxEvalLoss": 3}, {"eval_loss": "much"}, "Failed"),
        ({"compareWith": "Base"}, {"eval_loss_before": "nan"}, "Failed"),
    ],
)
def test_each_comparison_decides(gate, measured, verdict):
    assert judged(gate, **measured).verdict == verdict


def test_without_a_measured_perplexity_it_is_the_exponential_of_the_loss():
    record = judge(Gate.model_validate({"maxPerplexity": 7.3}), [Metric(name="eval_loss", value="2")])
    assert (record.results[0].value, record.results[0].passed) == ("7.38906", False)
    large = judge(Gate.model_validate({"maxPerplexity": 7}), [Metric(name="eval_loss", value="1000")])
    assert large.verdict == "Failed"


def test_what_was_not_measured_is_told_from_what_failed():
    record = judge(Gate.model_validate({"maxEvalLoss": 3, "compareWith": "Base"}), [])
    assert (record.verdict, is_measured(record)) == ("Failed", False)
    assert "the run measured no held-out loss" in words(record)


def test_the_words_name_field_value_and_limit_the_failing_first():
    record = judged({"maxEvalLoss": 3, "maxPerplexity": 7, "compareWith": "Base"})
    assert words(record) == (
        "spec.gate.maxPerplexity: 7.389 is above 7; spec.gate.maxEvalLoss: 2 is at most 3;"
        " spec.gate.compareWith: held-out loss 2 is below the base's 2.5"
    )


def gated(**gate):
    return world_of(gate=gate, evalSplitRatio=0.1, publish=PUBLISH)


async def test_a_gate_that_passes_lets_the_result_out():
    world = await gated(maxEvalLoss=2).complete()  # the run measures 1.2
    assert world.said("GatePassed") == ("True", "GatePassed", "spec.gate.maxEvalLoss: 1.2 is at most 2")
    assert (world.status.gate.verdict, world.status.phase) == ("Passed", "Complete")


async def test_a_gate_that_fails_ends_the_job_as_failed_and_keeps_the_artifact():
    world = await gated(maxEvalLoss=1).complete()
    status, reason, message = world.said("Failed")
    assert (status, reason) == ("True", "GateFailed")
    assert "1.2 is above 1" in message
    assert "kept at pvc://models/out/sql-0123456789ab" in message
    assert (world.said("GatePassed")[0], world.said("Published")[:2]) == ("False", ("False", "GateFailed"))
    assert world.cluster.all(EXPERTS) == []
    assert (world.status.gate.verdict, world.status.phase) == ("Failed", "Failed")
    assert (world.status.run.outcome, world.status.run.artifact.digest) == ("Succeeded", "a" * 64)
    assert world.status.artifact is None, "an Expert follows this one"
    assert world.status.error.field == "spec.gate"
    assert world.events().count(("Warning", "GateFailed")) == 1


async def test_loosening_a_threshold_publishes_what_was_kept_without_a_new_run():
    world = await gated(maxEvalLoss=1).complete()
    jobs = world.jobs()
    world.edit(gate={"maxEvalLoss": 1.5})
    await world.settle()
    assert (world.status.phase, world.status.run.number, world.jobs()) == ("Complete", 1, jobs)
    assert [e["metadata"]["name"] for e in world.cluster.all(EXPERTS)] == ["sql"]
    assert (world.status.artifact.digest, world.status.error) == ("a" * 64, None)
    assert [world.said(kind)[0] for kind in ("Failed", "Stalled")] == ["False", "False"]


async def test_a_failed_gate_leaves_the_result_of_the_run_before_in_service():
    world = await gated(maxEvalLoss=2).complete()
    world.edit(training={"maxSteps": 5})
    await world.settle()
    world.succeed()
    await world.settle()
    worse = {"kind": "Adapter", "uri": "pvc://models/out/sql-2", "digest": "b" * 64, "sizeBytes": 1, "base": "x"}
    world.succeed(metrics=[{"name": "eval_loss", "value": "3"}], artifact=worse)
    await world.settle()
    assert world.said("Failed")[1] == "GateFailed"
    assert (world.status.artifact_run, world.status.artifact.digest) == (1, "a" * 64)
    assert world.status.run.artifact.digest == "b" * 64


async def test_tightening_says_so_and_takes_no_expert_down():
    world = await gated(maxEvalLoss=2).complete()
    world.edit(gate={"maxEvalLoss": 1})
    await world.settle()
    status, reason, message = world.said("GatePassed")
    assert (status, reason) == ("False", "GateFailed")
    assert "let out before the gate changed" in message
    assert (world.status.phase, len(world.cluster.all(EXPERTS))) == ("Complete", 1)
    world.cluster.drop(EXPERTS, "team", "sql")
    await world.settle()
    assert world.cluster.all(EXPERTS) == [], "no new one is made"
    assert world.said("Published")[:2] == ("False", "GateFailed")


async def test_warn_says_so_and_goes_on():
    world = await gated(maxEvalLoss=1, onFailure="Warn").complete()
    assert world.said("GatePassed")[:2] == ("False", "GateFailed")
    assert (world.status.gate.verdict, world.status.phase) == ("Warned", "Complete")
    assert world.events().count(("Warning", "GateFailed")) == 1
    assert len(world.cluster.all(EXPERTS)) == 1


async def test_a_run_without_measures_does_not_pass():
    world = await gated(maxEvalLoss=1).complete(metrics=[])
    assert world.said("Failed")[:2] == ("True", "NotEvaluated")


async def test_a_gate_that_is_taken_away_lets_out_what_it_held():
    world = await gated(maxEvalLoss=1).complete()
    world.edit(gate=None)
    await world.settle()
    assert (world.status.phase, world.said("GatePassed")[1], world.status.gate) == ("Complete", "NotRequested", None)


async def test_a_blocked_job_writes_nothing_more():
    world = await gated(maxEvalLoss=1).complete()
    plan = await world.plan()
    assert plan.empty
    assert (list(plan.events), plan.status) == ([], world.status)
