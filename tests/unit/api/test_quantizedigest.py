from __future__ import annotations

from typing import Any

import pytest

from largeforge.api.digest import changed_fields
from largeforge.api.quantizedigest import field_digests, method_digest, run_digest
from largeforge.api.quantizejob import QuantizeJobSpec

ROWS = {"uri": "pvc://data/calibration.jsonl"}
HUB = {"uri": "hf://org/model"}


def spec(**changes: Any) -> QuantizeJobSpec:
    """A small one with *changes*, in the words of the manifest."""
    fields: dict[str, Any] = {
        "source": {"uri": "pvc://models/base"},
        "methods": ["AWQ", "GPTQ"],
        "calibration": {"datasets": [ROWS]},
        "output": {"uri": "pvc://models/out"},
    }
    return QuantizeJobSpec.model_validate(fields | changes)


DECIDING: list[dict[str, Any]] = [
    {"source": {"uri": "pvc://models/other"}},
    {"source": HUB},
    {"source": HUB | {"revision": "v2"}},
    {"source": {"expertRef": {"name": "sql"}}},
    {"source": {"fineTuneJobRef": {"name": "sql", "run": 2}}},
    {"methods": ["GPTQ", "AWQ"]},
    {"methods": ["AWQ"]},
    {"engine": "AutoAWQ", "methods": ["AWQ"]},
    {"scheme": {"groupSize": 64}},
    {"scheme": {"symmetric": True}},
    {"scheme": {"ignore": ["lm_head", "re:.*gate$"]}},
    {"calibration": {"datasets": [{"uri": "pvc://data/other.jsonl"}]}},
    {"calibration": {"datasets": [ROWS | {"maxSamples": 9}]}},
    {"calibration": {"datasets": [ROWS], "numSamples": 8}},
    {"calibration": {"datasets": [ROWS], "maxLength": 256}},
    {"calibration": {"datasets": [ROWS], "seed": 1}},
    {"calibration": {"datasets": [ROWS], "applyChatTemplate": False}},
    {"qualityGate": {"dataset": {"uri": "pvc://data/held-out.jsonl"}}},
    {"compute": {"gpusPerNode": 0}},
    {"output": {"uri": "pvc://models/elsewhere"}},
]

NOT_DECIDING: list[dict[str, Any]] = [
    {"qualityGate": {"maxPerplexityIncreasePercent": 9, "maxPerplexity": 30, "onFailure": "Warn"}},
    {"compute": {"gpusPerNode": 2}},
    {"compute": {"resources": {"limits": {"memory": "64Gi"}}, "sharedMemory": "9Gi"}},
    {"cache": {"uri": "pvc://cache/hub"}},
    {"publish": {"expert": {"name": "sql", "inferenceServiceRef": {"name": "svc"}}}},
    {"suspend": True, "backoffLimit": 9, "activeDeadlineSeconds": 9, "ttlSecondsAfterFinished": 9},
    {"rerunPolicy": "Never", "image": "mine:1", "imagePullSecrets": [{"name": "x"}], "serviceAccountName": "default"},
    {"scheme": {"groupSize": 128}},
    {"calibration": {"datasets": [ROWS | {"secretRef": {"name": "x"}}], "numSamples": 256}},
]


@pytest.mark.parametrize("changes", DECIDING, ids=str)
def test_what_decides_the_result_changes_the_digest_and_is_named(changes: dict[str, Any]) -> None:
    assert run_digest(spec(**changes)) != run_digest(spec())
    names = changed_fields(field_digests(spec()), field_digests(spec(**changes)))
    assert names
    assert all(name.startswith("spec.") for name in names)


@pytest.mark.parametrize("changes", NOT_DECIDING, ids=str)
def test_what_does_not_decide_the_result_starts_no_run(changes: dict[str, Any]) -> None:
    assert run_digest(spec(**changes)) == run_digest(spec())


def test_a_default_that_is_written_out_starts_no_run() -> None:
    written = {"symmetric": False, "groupSize": 128}
    assert run_digest(spec(methods=["AWQ"], scheme=written)) == run_digest(spec(methods=["AWQ"]))
    assert run_digest(spec(methods=["GPTQ"], scheme=written)) != run_digest(spec(methods=["GPTQ"]))


def test_a_method_is_found_again_whatever_stands_beside_it() -> None:
    alone = method_digest(spec(methods=["AWQ"]), "AWQ")
    assert alone == method_digest(spec(methods=["GPTQ", "AWQ"]), "AWQ")
    assert alone == method_digest(spec(qualityGate={"dataset": ROWS}, output={"uri": "pvc://x/y"}), "AWQ")
    assert alone != method_digest(spec(methods=["AWQ"], engine="AutoAWQ"), "AWQ")
    assert alone != method_digest(spec(scheme={"groupSize": 64}), "AWQ")
    assert alone != method_digest(spec(compute={"gpusPerNode": 0}), "AWQ")


def test_what_a_method_has_not_does_not_name_its_result() -> None:
    fp8 = method_digest(spec(methods=["FP8Dynamic"]), "FP8Dynamic")
    other = spec(methods=["AWQ", "FP8Dynamic"], scheme={"groupSize": 32})
    assert fp8 == method_digest(other, "FP8Dynamic")
    shorter = spec(methods=["FP8Dynamic"], calibration={"datasets": [ROWS], "maxLength": 64})
    assert fp8 == method_digest(shorter, "FP8Dynamic")
