"""What is learnt does not depend on how: ranks, interruptions, merging. Part of `make test-long`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dev.kubectl import Manifest, apply, get, kubectl, wait_for
from dev.testing import RUNS_NAMESPACE
from tests.e2e import runs
from tests.e2e.ground import (
    CLAIM,
    ROOT,
    ROWS,
    claim_mount,
    container,
    mounted,
    pod_template,
    read,
    rows_mount,
    scripts_mount,
)
from tests.e2e.story import tell

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("ground")]

STEPS = 20
SAME = {"maxSteps": STEPS, "globalBatchSize": 4, "learningRate": 0.005, "precision": "FP32"}
PODS = Path(__file__).parent / "pods"


def trained(name: str, **changes: object) -> Manifest:
    """A complete run of `SAME`."""
    runs.begin(name, **runs.laid_over({"training": SAME}, changes))
    return runs.until_true(name, "Complete")


def losses(job: Manifest, *, first: int = STEPS) -> list[float]:
    """The losses of the first steps, from the artifact's own record."""
    state = json.loads(read(job["status"]["artifact"]["uri"] + "/trainer_state.json"))
    found = [float(entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    assert len(found) == STEPS
    return found[:first]


def ranks(strategy: str) -> dict[str, object]:
    return {"processesPerNode": 2, "strategy": strategy}


@pytest.fixture(scope="module")
def alone(ground: None) -> Manifest:
    del ground
    return trained("alone")


@pytest.fixture(scope="module")
def two_ranks(ground: None) -> Manifest:
    del ground
    return trained("two-ranks", compute=ranks("DDP"))


def test_two_ranks_with_ddp_learn_what_one_process_does(alone: Manifest, two_ranks: Manifest):
    assert (two_ranks["status"]["resolved"]["strategy"], two_ranks["status"]["resolved"]["ranks"]) == ("DDP", 2)
    assert losses(two_ranks, first=10) == pytest.approx(losses(alone, first=10), rel=1e-4)


def test_two_ranks_with_fsdp_learn_what_one_process_does(alone: Manifest):
    sharded = trained("sharded", compute=ranks("FSDP"))
    assert (sharded["status"]["resolved"]["strategy"], sharded["status"]["resolved"]["ranks"]) == ("FSDP", 2)
    assert losses(sharded, first=10) == pytest.approx(losses(alone, first=10), rel=1e-4)


def test_full_weights_sharded_by_fsdp_learn_what_one_process_does():
    whole = {"type": "None", "r": None, "loraDropout": None}
    one = trained("whole", peft=whole)
    two = trained("whole-sharded", peft=whole, compute=ranks("Auto"))
    assert two["status"]["resolved"]["strategy"] == "FSDP"
    assert (one["status"]["artifact"]["kind"], two["status"]["artifact"]["kind"]) == ("Model", "Model")
    assert losses(two, first=10) == pytest.approx(losses(one, first=10), rel=1e-4)


@pytest.mark.parametrize("strategy", ["DDP", "FSDP"])
def test_a_run_one_of_whose_ranks_was_killed_goes_on_as_if_nothing_had_happened(strategy: str, two_ranks: Manifest):
    # The same data in the same steps, but slow enough for a middle.
    name = f"killed-{strategy.lower()}"
    slow = {"globalBatchSize": None, "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 16}
    changes = {"training": slow, "compute": ranks(strategy), "checkpoint": {"everySteps": 5}}
    undisturbed = trained(f"whole-{name}", **changes)
    runs.begin(name, **runs.laid_over({"training": SAME}, changes))
    pod = runs.until_step(name, 8)
    program = (PODS / "kill_rank.py").read_text()
    kubectl("exec", pod, "--", "python", "-c", program, "1", namespace=RUNS_NAMESPACE)
    job = runs.until_true(name, "Complete")
    record = job["status"]["run"]
    assert (record["attempt"], record["failures"], record["resumes"]) == (2, 1, 1)
    assert losses(job) == pytest.approx(losses(undisturbed), rel=1e-5)
    del two_ranks


def test_a_merged_model_gives_the_logits_of_base_and_adapter(alone: Manifest):
    merged = trained("merged", output={"merge": True})
    assert merged["status"]["artifact"]["kind"] == "Model"
    folders = [
        mounted(uri) for uri in (f"pvc://{CLAIM}/tiny", *(job["status"]["artifact"]["uri"] for job in (alone, merged)))
    ]
    assert float(said_by("compare", ["python", "/scripts/compare.py", *folders])) < 1e-4


def test_with_assistant_only_loss_nothing_but_what_the_assistant_says_is_learnt():
    # A row at a time and the same rows held out: what the run measures first is the mean that the program below takes.
    one_row = {"globalBatchSize": None, "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 4}
    job = trained(
        "assistant",
        base={"uri": f"pvc://{CLAIM}/marked"},
        evalSplitRatio=None,
        evalDataset={"uri": ROWS},
        training={**one_row, "assistantOnlyLoss": True},
    )
    command = ["python", "/scripts/losses.py", f"{ROOT}/marked", "/rows/train.jsonl"]
    said, whole = map(float, said_by("losses", command).split())
    found = runs.metrics(job)
    assert found["eval_loss_before"] == pytest.approx(said, abs=1e-3)
    assert abs(said - whole) > 0.01
    assert found["eval_loss"] < said - 0.1


def test_a_run_that_goes_on_from_another_begins_where_that_one_ended(alone: Manifest):
    on = trained("goes-on", base={"uri": None, "fineTuneJobRef": {"name": "alone"}})
    before, after = runs.metrics(on)["eval_loss_before"], runs.metrics(on)["eval_loss"]
    assert before == pytest.approx(runs.metrics(alone)["eval_loss"], rel=1e-3)
    assert after < before
    assert on["status"]["run"]["base"]["adapter"] == alone["status"]["artifact"]["uri"]


def test_a_loss_that_gets_no_better_ends_the_run_early():
    stopping = {"evalSteps": 2, "earlyStopping": {"patience": 2, "threshold": 50}}
    runs.begin("stops-early", training={**SAME, **stopping})
    job = runs.until_true("stops-early", "Complete")
    assert runs.metrics(job)["steps"] == 6  # the first of three evaluations is the best; two brought no better


def said_by(name: str, command: list[str]) -> str:
    """The last line of a Job of the trainer image that runs *command*."""
    kubectl("delete", "job", name, "--ignore-not-found", "--wait", namespace=RUNS_NAMESPACE)
    mounts = [claim_mount(), scripts_mount(), rows_mount()]
    pod = pod_template([container(name, image="trainer", command=command, mounts=mounts)])
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    apply({**job, "spec": {"backoffLimit": 0, "template": pod}}, namespace=RUNS_NAMESPACE)
    wait_for(
        f"job {name}",
        lambda: ((get("job", name, namespace=RUNS_NAMESPACE) or {}).get("status") or {}).get("succeeded") == 1,
        seconds=120,
        show=lambda: tell(RUNS_NAMESPACE),
    )
    return kubectl("logs", f"job/{name}", namespace=RUNS_NAMESPACE).splitlines()[-1]
