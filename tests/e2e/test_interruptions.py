"""Runs that are held, killed, or cannot begin: they go on where they were, or say what a person has to do."""

from __future__ import annotations

import re

import pytest

from dev.kubectl import Manifest, condition, kubectl
from dev.testing import RUNS_NAMESPACE
from tests.e2e import runs
from tests.e2e.ground import CLAIM, LONG_ROWS, names

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ground")]

MIDDLE = 7
"""A step after the first checkpoint, and not one of a checkpoint."""
RESUMED = re.compile(r"^resumed from step (\d+)$", re.MULTILINE)


def assert_went_on(job: Manifest) -> None:
    """The second attempt of training began where the first was told to stop, and nothing was counted."""
    record = job["status"]["run"]
    assert (record["number"], record["attempt"], record["resumes"]) == (1, 2, 1), record
    assert record.get("failures", 0) == 0
    found = RESUMED.search(runs.log(job["metadata"]["name"]))
    assert found is not None
    assert int(found[1]) >= MIDDLE


def test_a_suspended_run_frees_what_it_holds_and_goes_on_from_the_step_that_it_was_at():
    runs.begin("held", **runs.longer())
    runs.until_step("held", MIDDLE)
    runs.patch("held", suspend=True)
    held = runs.until_true("held", "Suspended", seconds=30)
    runs.until("held", "no pod", lambda _: not runs.pods("held", stage="Training"), seconds=150)
    assert held["status"]["phase"] == "Suspended"
    runs.patch("held", suspend=False)
    assert_went_on(runs.until_true("held", "Complete"))


def test_a_run_whose_pod_is_deleted_saves_and_the_next_attempt_goes_on():
    runs.begin("stopped", **runs.longer())
    pod = runs.until_step("stopped", MIDDLE)
    kubectl("delete", "pod", pod, "--wait=false", namespace=RUNS_NAMESPACE)
    job = runs.until_true("stopped", "Complete")
    assert_went_on(job)
    first = next(j for j in runs.jobs("stopped", stage="Training") if j["metadata"]["name"].endswith("-a1"))
    failed = next(c for c in first["status"]["conditions"] if c["type"] == "Failed")
    assert "exit code 75" in failed["message"]
    assert job["status"]["checkpoint"]["resumes"] == 1


@pytest.mark.long
def test_the_checkpoints_of_a_run_that_was_replaced_are_gone_when_the_next_one_trains():
    def kept() -> set[str]:
        return {name for name in names(f"pvc://{CLAIM}/out") if name.startswith(".replaced-")}

    def second_trains(job: Manifest) -> bool:
        record, progress = job["status"]["run"], job["status"].get("progress") or {}
        return (record["number"], record["stage"]) == (2, "Training") and progress.get("step", 0) >= 1

    runs.begin("replaced", **runs.longer())
    runs.until_step("replaced", MIDDLE)
    (first,) = kept()
    runs.patch("replaced", training={"learningRate": 0.02})
    runs.until("replaced", "a step of run 2", second_trains)
    assert first not in kept()
    runs.until_true("replaced", "Complete")
    assert kept() == set()


def test_an_operator_that_is_killed_while_it_trains_does_nothing_twice():
    runs.begin("watched", **runs.longer())
    runs.until_step("watched", 3)
    runs.kill_operator()
    job = runs.until_true("watched", "Complete")
    assert (job["status"]["run"]["number"], job["status"]["run"]["attempt"]) == (1, 1)
    assert job["status"]["run"].get("resumes", 0) == 0
    assert [len(runs.jobs("watched", stage=stage)) for stage in ("Preflight", "Training")] == [1, 1]
    assert job["status"]["progress"]["percent"] == 100


def test_a_run_that_needs_more_memory_than_its_limit_says_so_with_the_remedy():
    training = {"maxLength": 512, "globalBatchSize": None, "perDeviceTrainBatchSize": 128, "maxSteps": 2}
    limits = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}}
    runs.begin(
        "hungry",
        datasets=[{"uri": LONG_ROWS}],
        training=training,
        compute={"resources": limits},
        backoffLimit=0,
    )
    failed = runs.until_true("hungry", "Failed")
    assert failed["status"]["run"]["stage"] == "Training"
    assert failed["status"]["error"]["reason"] == "OutOfMemory"
    message = condition(failed, "Failed")["message"]
    assert "memory" in message
    assert "spec.compute.resources.limits.memory" in message


@pytest.fixture(scope="module")
def stuck(ground: None) -> None:
    """Runs that cannot begin, all at once: each waits for something else."""
    del ground
    runs.begin("no-claim", output={"uri": "pvc://nowhere/out"})
    runs.begin("no-image", image="localhost/nobody/made-this:1")
    runs.begin("no-secret", base={"uri": "hf://tests/private", "secretRef": {"name": "no-such-secret"}})
    runs.begin("no-gpu", compute={"gpusPerNode": 16}, training={"globalBatchSize": 16})


@pytest.mark.usefixtures("stuck")
def test_a_claim_that_is_missing_is_named_before_a_pod_is_made():
    message = runs.until_reason("no-claim", "StorageReachable", "ClaimNotFound", seconds=60)
    assert "spec.output.uri" in message
    assert "'nowhere'" in message
    assert runs.jobs("no-claim") == []
    assert runs.look("no-claim")["status"]["message"] == message


@pytest.mark.usefixtures("stuck")
def test_an_image_that_cannot_be_pulled_is_named():
    message = runs.until_reason("no-image", "Running", "ImagePullFailed", seconds=90)
    assert "localhost/nobody/made-this:1" in message


@pytest.mark.usefixtures("stuck")
def test_a_secret_that_is_missing_is_named():
    message = runs.until_reason("no-secret", "Running", "SecretMissing", seconds=90)
    assert "'no-such-secret'" in message


@pytest.mark.usefixtures("stuck")
def test_a_gpu_that_no_node_has_is_named_after_preflight_has_passed():
    message = runs.until_reason("no-gpu", "Running", "Unschedulable")
    assert "nvidia.com/gpu" in message
    assert len(runs.jobs("no-gpu", stage="Training")) == 1


@pytest.mark.usefixtures("stuck")
def test_a_run_that_waited_for_a_claim_begins_when_it_is_there():
    assert condition(runs.look("no-claim"), "StorageReachable")["status"] == "False"
    runs.patch("no-claim", output={"uri": f"pvc://{CLAIM}/found"})
    runs.until("no-claim", "a preflight", lambda _: len(runs.jobs("no-claim", stage="Preflight")) == 1, seconds=60)
    for name in ("no-claim", "no-image", "no-secret", "no-gpu"):
        runs.remove(name)
