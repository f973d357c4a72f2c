"""A QuantizeJob with real libraries and the real engine: measured, made smaller, judged, served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from openai import OpenAI

from dev.install import api_key, base_url
from dev.kubectl import apply, condition, get, is_true, kubectl, wait_true
from tests.e2e.imagejobs import names_in
from tests.e2e.quantizing import DATA, names_of_jobs, quantizejob, until, until_true
from tests.e2e.story import tell

pytestmark = [pytest.mark.cluster]

SMALL, SERVER, REFUSED = "small", "small-server", "small-refused"


@dataclass
class Followed:
    """A job that was looked at from its beginning to its end, each second."""

    phases: list[str] = field(default_factory=list)

    def look(self, namespace: str) -> bool:
        """Keep what is new; whether it is complete."""
        job = get("quantizejob", SMALL, namespace=namespace) or {}
        phase = (job.get("status") or {}).get("phase") or ""
        if phase and phase not in self.phases[-1:]:
            self.phases.append(phase)
        if is_true(job, "Failed"):
            raise AssertionError(f"{condition(job, 'Failed')}\n{tell(namespace, SMALL, kind='quantizejob')}")
        return is_true(job, "Complete")


@pytest.fixture(scope="module")
def followed(quantizing: str) -> Followed:
    seen = Followed()
    expert = {"name": SMALL, "inferenceServiceRef": {"name": SERVER}, "version": "1.0.0"}
    apply(quantizejob(SMALL, publish={"expert": expert}), namespace=quantizing)
    until(quantizing, SMALL, "the end", lambda: seen.look(quantizing))
    return seen


def test_the_first_method_loses_too_much_and_the_second_is_taken(followed: Followed, quantizing: str):
    status = (get("quantizejob", SMALL, namespace=quantizing) or {})["status"]
    first, second = status["attempts"]
    assert (first["method"], first["verdict"], first["reason"]) == ("AWQ", "Failed", "GateFailed")
    assert (second["method"], second["verdict"]) == ("FP8Dynamic", "Passed")
    before, after = float(second["perplexityBefore"]), float(second["perplexityAfter"])
    assert 0.8 * before < after < 1.08 * before, (
        "of so little text 8 bits can be better by chance: 114 after 122 was seen"
    )
    assert after < float(first["perplexityAfter"])
    assert float(status["compressionRatio"]) > 1.4
    assert status["chosenMethod"] == "FP8Dynamic"
    assert [phase for phase in followed.phases if phase != "Pending"][:3] == ["Preflight", "Evaluating", "Quantizing"]


@pytest.mark.usefixtures("followed")
def test_what_the_rejected_method_wrote_is_removed_and_its_figures_stay(quantizing: str):
    status = wait_true("quantizejob", SMALL, "LeftoversRemoved", namespace=quantizing, seconds=180)["status"]
    first, second = status["attempts"]
    assert (first["removed"], second.get("removed", False)) == (True, False)
    assert float(first["perplexityAfter"]) > 0
    there = names_in(f"pvc://models/{SMALL}", namespace=quantizing)
    kept = [uri.rpartition("/")[2] for uri in (status["artifact"]["uri"], status["run"]["preparedUri"])]
    assert there == sorted(kept)


@pytest.mark.usefixtures("followed")
def test_the_columns_say_what_it_is_and_how_far(quantizing: str):
    header, row = kubectl("get", "qj", SMALL, namespace=quantizing).splitlines()
    columns = ["NAME", "SOURCE", "METHOD", "PHASE", "PROGRESS", "ETA", "PPL-BEFORE", "PPL-AFTER", "RATIO", "AGE"]
    assert header.split() == columns
    for word in ("pvc://models/smollm2-135m-instruct", "FP8Dynamic", "Complete"):
        assert word in row


def test_the_result_is_served_by_the_engine_and_asked_through_the_router(followed: Followed, quantizing: str):
    del followed
    compute = {"gpusPerReplica": 0, "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}}}
    service = {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": SERVER},
        "spec": {"model": {"expertRef": {"name": SMALL}}, "engine": {"maxModelLen": 512}, "compute": compute},
    }
    apply(service, namespace=quantizing)
    try:
        expert = wait_true("expert", SMALL, "Ready", namespace=quantizing, seconds=300)
        assert expert["status"]["lineage"]["quantizeJob"] == SMALL
        with OpenAI(base_url=base_url(quantizing), api_key=api_key(quantizing), max_retries=0, timeout=120) as client:
            message: Any = {"role": "user", "content": "What is the capital of France?"}
            answer = client.chat.completions.create(model=SMALL, messages=[message], max_tokens=8, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")
    finally:
        kubectl("delete", f"inferenceservice/{SERVER}", f"expert/{SMALL}", "--wait=false", namespace=quantizing)


def test_data_that_is_too_little_is_refused_before_anything_is_quantized(quantizing: str):
    calibration = {"datasets": [{"uri": f"configmap://{DATA}/train.jsonl"}], "numSamples": 4000}
    apply(quantizejob(REFUSED, calibration=calibration), namespace=quantizing)
    job = until_true(quantizing, REFUSED, "Failed")
    assert condition(job, "DatasetValid")["reason"] == "CalibrationInvalid"
    assert "numSamples asks for 4000" in condition(job, "Failed")["message"]
    assert names_of_jobs(quantizing, REFUSED) == {f"{REFUSED}-q1-p-a1"}
