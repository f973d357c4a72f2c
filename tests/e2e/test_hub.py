"""Base and rows from a hub: downloaded by preflight, pinned, and asked for no more when a GPU would be held."""

from __future__ import annotations

import re

import pytest

from dev.kubectl import condition
from tests.e2e import runs
from tests.e2e.ground import CLAIM, SECRET, WRONG_SECRET, asked_of_hub, names

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ground")]

COMMIT = re.compile(r"[0-9a-f]{40}")


def test_a_private_base_is_downloaded_by_preflight_and_training_asks_the_hub_for_nothing():
    runs.begin(
        "from-hub",
        base={"uri": "hf://tests/private", "secretRef": {"name": SECRET}},
        datasets=[{"uri": "hf://tests/rows", "split": "train"}],
        cache={"uri": f"pvc://{CLAIM}/cache"},
    )
    runs.until("from-hub", "the end of preflight", lambda _: bool(runs.jobs("from-hub", stage="Training")))
    asked = asked_of_hub()
    assert any("/tests/private/resolve/" in call and call.endswith("model.safetensors") for call in asked), asked
    job = runs.until_true("from-hub", "Complete")
    assert asked_of_hub() == asked
    assert COMMIT.fullmatch(job["status"]["run"]["base"]["commit"])
    assert job["status"]["resolved"]["baseCommit"] == job["status"]["run"]["base"]["commit"]
    (commit,) = job["status"]["run"]["datasetCommits"]
    assert COMMIT.fullmatch(commit)
    assert {"models--tests--private", "datasets--tests--rows"} <= names(f"pvc://{CLAIM}/cache")
    assert job["status"]["artifact"]["base"] == "hf://tests/private"


def test_a_wrong_token_ends_the_run_before_anything_is_downloaded():
    runs.begin("wrong-token", base={"uri": "hf://tests/private", "secretRef": {"name": WRONG_SECRET}})
    failed = runs.until_true("wrong-token", "Failed")
    assert condition(failed, "Failed")["reason"] == "HubUnauthorized"
    assert "spec.base.secretRef" in str(failed["status"]["error"])
    assert "hf://tests/private" in failed["status"]["error"]["message"]
    assert runs.jobs("wrong-token", stage="Training") == []
