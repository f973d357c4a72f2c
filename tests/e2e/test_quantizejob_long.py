"""A QuantizeJob with real libraries and the real engine, where something goes wrong in the middle: `make test-long`."""

from __future__ import annotations

import json

import pytest

from dev.kubectl import apply, condition, items, kubectl, pod_logs, wait_for, wait_true
from tests.e2e.imagejobs import names_in
from tests.e2e.quantizing import SECONDS, gate, names_of_jobs, quantizejob, until_true
from tests.e2e.story import tell

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ALL, KILLED, UNLOADED = "small-all", "small-killed", "small-unloaded"


def kill_at_work(namespace: str, name: str, *, step: str) -> None:
    """Delete the pod of *step* as soon as its log names the first block of the model: it listens to signals then."""
    selector = f"batch.kubernetes.io/job-name={name}-q1-{step}-a1"
    found: list[str] = []

    def at_work() -> bool:
        for pod in items("pods", namespace=namespace, selector=selector):
            log = pod_logs(pod["metadata"]["name"], namespace=namespace, lines=50)
            if any(line.startswith("block ") for line in log):
                found.append(pod["metadata"]["name"])
        return bool(found)

    wait_for(f"work of {step}", at_work, seconds=SECONDS, show=lambda: tell(namespace, name, kind="quantizejob"))
    kubectl("delete", "pod", found[0], "--wait=false", namespace=namespace)


def test_a_pod_that_is_killed_goes_on_with_its_method_and_the_one_before_stays_done(quantizing: str):
    # AWQ takes most of a minute of two free processors here: it is seen at work on a fast machine too.
    methods = ["W8A8", "AWQ"]
    apply(quantizejob(KILLED, methods=methods, qualityGate=gate(maxPerplexity=1)), namespace=quantizing)
    kill_at_work(quantizing, KILLED, step="m2")
    job = until_true(quantizing, KILLED, "Failed")
    assert condition(job, "Failed")["reason"] == "GateFailed"
    assert [float(attempt["perplexityAfter"]) > 1 for attempt in job["status"]["attempts"]] == [True, True]
    steps = {"p-a1", "e0-a1", "m1-a1", "e1-a1", "m2-a1", "m2-a2", "e2-a1"}
    assert names_of_jobs(quantizing, KILLED) == {f"{KILLED}-q1-{step}" for step in steps}
    uid = job["metadata"]["uid"]
    events = [e for e in items("events", namespace=quantizing) if e["involvedObject"].get("uid") == uid]
    (retried,) = [event["message"] for event in events if event["reason"] == "Retrying"]
    assert "attempt 1 of run 1, which quantizes by method 2 of 2, AWQ, ended (Disrupted)" in retried


def test_a_result_that_the_engine_does_not_load_is_an_attempt_that_failed_in_its_own_words(quantizing: str):
    # vLLM computes the three projections of attention as one: a scheme for two of them it does not load.
    apply(
        quantizejob(
            UNLOADED,
            methods=["FP8Dynamic"],
            scheme={"ignore": ["lm_head", "re:.*q_proj"]},
            calibration=None,
        ),
        namespace=quantizing,
    )
    job = until_true(quantizing, UNLOADED, "Failed")
    (attempt,) = job["status"]["attempts"]
    assert (attempt["verdict"], attempt["reason"]) == ("Error", "EngineFailed")
    assert "the engine does not load it (exit code 1)" in attempt["message"]
    assert "different quantization schemes for the shards of model.layers.0.self_attn.qkv_proj" in attempt["message"]
    assert condition(job, "Failed")["reason"] == "QuantizeFailed"


def test_every_method_is_measured_where_none_may_pass_and_a_looser_gate_lets_one_out(quantizing: str):
    methods = ["AWQ", "GPTQ", "W8A8", "FP8Dynamic"]
    apply(quantizejob(ALL, methods=methods, qualityGate=gate(maxPerplexity=1)), namespace=quantizing)
    job = until_true(quantizing, ALL, "Failed")
    attempts = job["status"]["attempts"]
    assert condition(job, "Failed")["reason"] == "GateFailed"
    assert [(a["method"], a["verdict"]) for a in attempts] == [(method, "Failed") for method in methods]
    assert all(float(a["perplexityAfter"]) > 1 for a in attempts)
    assert len(names_in(f"pvc://models/{ALL}", namespace=quantizing)) == len(["tokens", *methods])
    made = names_of_jobs(quantizing, ALL)
    loose = json.dumps({"spec": {"qualityGate": {"maxPerplexity": None, "maxPerplexityIncreasePercent": 100}}})
    kubectl("patch", "quantizejob", ALL, "--type=merge", "-p", loose, namespace=quantizing)
    job = wait_true("quantizejob", ALL, "Complete", namespace=quantizing, seconds=60)
    assert job["status"]["run"]["number"] == 1
    assert job["status"]["chosenMethod"] == "AWQ"
    assert {name for name in names_of_jobs(quantizing, ALL) if "-remove-" not in name} == made
    status = wait_true("quantizejob", ALL, "LeftoversRemoved", namespace=quantizing, seconds=180)["status"]
    assert [attempt.get("removed", False) for attempt in status["attempts"]] == [False, True, True, True]
    assert len(names_in(f"pvc://models/{ALL}", namespace=quantizing)) == len(["tokens", "AWQ"])
