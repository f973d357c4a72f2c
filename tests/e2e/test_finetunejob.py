"""A FineTuneJob with real pods, as a person follows it: preflight, training, the gate, the Expert."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dev.kubectl import Manifest, condition, get, is_true, kubectl
from dev.testing import RUNS_NAMESPACE
from tests.e2e import runs
from tests.e2e.ground import BAD_LINE, BAD_ROWS, names

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ground")]

STEPS = 30


@dataclass
class Followed:
    """A run that was looked at from its beginning to its end, each second."""

    job: Manifest = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    tokens_per_second: set[int] = field(default_factory=set)

    def saw(self, job: Manifest) -> bool:
        """Keep what is new; whether it is complete."""
        status = job.get("status") or {}
        phase, progress = status.get("phase") or "", status.get("progress") or {}
        if phase and phase not in self.phases[-1:]:
            self.phases.append(phase)
        if "step" in progress and progress["step"] not in self.steps[-1:]:
            self.steps.append(progress["step"])
        self.tokens_per_second.add(progress.get("tokensPerSecond") or 0)
        if is_true(job, "Failed"):
            raise AssertionError(condition(job, "Failed"))
        return is_true(job, "Complete")


@pytest.fixture(scope="module")
def followed(ground: None) -> Followed:
    del ground
    seen = Followed()
    expert = {"name": "followed", "inferenceServiceRef": {"name": "elsewhere"}, "version": "1.0.0"}
    runs.begin("followed", **runs.longer(gate={"compareWith": "Base"}, publish={"expert": expert}))
    seen.job = runs.until("followed", "the end", seen.saw)
    return seen


def test_preflight_then_training_then_the_end_are_seen_in_this_order(followed: Followed):
    assert [phase for phase in followed.phases if phase != "Pending"] == ["Preflight", "Running", "Complete"]
    assert len(runs.jobs("followed", stage="Preflight")) == 1
    assert len(runs.jobs("followed", stage="Training")) == 1


def test_progress_moves_while_it_trains(followed: Followed):
    assert followed.steps == sorted(followed.steps)
    assert len([step for step in followed.steps if 0 < step < STEPS]) >= 2, followed.steps
    assert max(followed.tokens_per_second) > 0
    progress = followed.job["status"]["progress"]
    assert (progress["step"], progress["totalSteps"], progress["percent"]) == (STEPS, STEPS, 100)


def test_every_condition_of_a_complete_job_is_told_with_reason_and_message(followed: Followed):
    good = {"Complete", "Validated", "StorageReachable", "DatasetValid", "GatePassed", "Published"}
    bad = {"Failed", "Suspended", "Stalled", "Running"}
    told = {one["type"]: one for one in followed.job["status"]["conditions"]}
    assert {kind for kind, one in told.items() if one["status"] == "True"} == good
    assert {kind for kind, one in told.items() if one["status"] == "False"} == bad
    assert all(one["reason"] for one in told.values()), told
    assert all(told[kind]["message"] for kind in good), told


def test_the_columns_say_what_it_is_and_how_far(followed: Followed):
    header, row = kubectl("get", "ftj", "followed", namespace=RUNS_NAMESPACE).splitlines()
    assert header.split() == ["NAME", "METHOD", "BASE", "PHASE", "PROGRESS", "LOSS", "ETA", "AGE"]
    loss = runs.metrics(followed.job)["eval_loss"]
    for word in ("followed", "SFT", "pvc://runs/tiny", "Complete", f"100% {STEPS}/{STEPS}", f"{loss:.2f}"[:4]):
        assert word in row, (word, row)
    wide = kubectl("get", "ftj", "followed", "-o", "wide", namespace=RUNS_NAMESPACE)
    assert "Passed" in wide
    assert followed.job["status"]["artifact"]["uri"] in wide


def test_status_has_what_preflight_found_in_the_data(followed: Followed):
    dataset = followed.job["status"]["dataset"]
    assert dataset["samples"] + dataset["evalSamples"] == 64
    assert dataset["formats"] == ["Messages"]
    assert (dataset["invalid"], dataset["duplicates"], dataset["overlap"]) == (0, 0, 0)
    assert dataset["tokens"] > 64 * 10
    folder, _, report = dataset["report"].rpartition("/")
    assert report in names(folder)


def test_the_artifact_is_whole_and_the_checkpoints_are_gone(followed: Followed):
    uri = followed.job["status"]["artifact"]["uri"]
    whole = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "chat_template.jinja",
        "loss.png",
        "preflight.json",
        "result.json",
        "tokenizer.json",
        "trainer_state.json",
    }
    assert whole <= names(uri)
    beside = names(uri.rpartition("/")[0])
    assert [name for name in beside if name.startswith(".followed")] == []
    assert [probe["name"] for probe in followed.job["status"]["artifact"]["probes"]] == ["greeting", "fact", "task"]


def test_a_gate_that_passes_lets_the_expert_be_made(followed: Followed):
    measured = runs.metrics(followed.job)
    assert measured["eval_loss"] < measured["eval_loss_before"]
    (result,) = followed.job["status"]["gate"]["results"]
    assert (followed.job["status"]["gate"]["verdict"], result["check"]) == ("Passed", "compareWith")
    expert = get("expert", "followed", namespace=RUNS_NAMESPACE) or {}
    assert expert["spec"]["sourceRef"] == {"kind": "FineTuneJob", "name": "followed"}
    assert expert["spec"]["version"] == "1.0.0"
    assert "ownerReferences" not in expert["metadata"]


def test_events_tell_each_transition_once(followed: Followed):
    assert runs.reasons_of_events("followed") == ["Started", "Checked", "Succeeded"]
    del followed


def test_a_bad_row_ends_the_run_in_preflight_and_is_named():
    runs.begin("bad-rows", suspend=True, datasets=[{"uri": BAD_ROWS}])
    runs.until_true("bad-rows", "Suspended", seconds=30)
    assert runs.jobs("bad-rows") == []
    runs.patch("bad-rows", suspend=False)
    failed = runs.until_true("bad-rows", "Failed")
    assert condition(failed, "Failed")["reason"] == "DatasetInvalid"
    assert condition(failed, "DatasetValid")["status"] == "False"
    assert is_true(failed, "Stalled")
    message = failed["status"]["error"]["message"]
    assert f"{BAD_ROWS} line {BAD_LINE}: messages[0].role" in message
    assert failed["status"]["error"]["field"] == "spec.datasets[0]"
    assert "dark night" not in str(failed["status"])
    assert failed["status"]["run"]["stage"] == "Preflight"
    assert failed["status"]["run"]["attempt"] == 1
    assert runs.jobs("bad-rows", stage="Training") == []


def test_a_gate_that_fails_keeps_the_artifact_and_a_looser_one_publishes_it_without_a_new_run():
    expert = {"name": "gated", "inferenceServiceRef": {"name": "elsewhere"}}
    runs.begin("gated", gate={"maxEvalLoss": 0.5}, publish={"expert": expert})
    failed = runs.until_true("gated", "Failed")
    assert condition(failed, "Failed")["reason"] == "GateFailed"
    assert "spec.gate.maxEvalLoss" in condition(failed, "GatePassed")["message"]
    assert failed["status"]["gate"]["verdict"] == "Failed"
    assert get("expert", "gated", namespace=RUNS_NAMESPACE) is None
    uri = failed["status"]["run"]["artifact"]["uri"]
    assert "adapter_model.safetensors" in names(uri)
    before = {job["metadata"]["uid"] for job in runs.jobs("gated")}

    runs.patch("gated", gate={"maxEvalLoss": 50})
    complete = runs.until_true("gated", "Complete", seconds=30)
    assert complete["status"]["run"]["number"] == 1
    assert complete["status"]["artifact"]["uri"] == uri
    assert {job["metadata"]["uid"] for job in runs.jobs("gated")} == before
    assert get("expert", "gated", namespace=RUNS_NAMESPACE) is not None
