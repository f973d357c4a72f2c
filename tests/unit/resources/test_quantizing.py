"""The Jobs of a QuantizeJob's run and what they are told."""

from __future__ import annotations

import pytest

from largeforge.api.quantize import EvaluateConfig, QuantizeConfig
from largeforge.resources.quantizeconfig import preflight_config, quantize_config, step_config_map
from largeforge.resources.quantizepod import step_job
from largeforge.resources.quantizestorage import needed_claims
from tests.golden.quantizing.test_quantizing import COMMIT, IMAGES, at
from tests.unit.quantizing import SOURCE

STEPS = [("Preflight", None), ("Evaluate", None), ("Quantize", 0), ("Evaluate", 0)]


def pod_at(stage, method=None, **spec):
    job, run = at(stage, method, **spec)
    return step_job(job, run, images=IMAGES)["spec"]["template"]["spec"]


def main_of(pod):
    return pod["containers"][0]


def mounts_of(container):
    return {m["mountPath"]: m for m in container["volumeMounts"]}


@pytest.mark.parametrize(("stage", "method"), STEPS)
def test_the_config_maps_are_read_back_as_they_were(stage, method):
    text = step_config_map(*at(stage, method), progress=None)["data"]["config.json"]
    model = EvaluateConfig if stage == "Evaluate" else QuantizeConfig
    assert model.model_validate_json(text).stage == stage


@pytest.mark.parametrize(("stage", "method"), STEPS)
def test_only_the_work_holds_gpus(stage, method):
    pod = pod_at(stage, method, compute={"gpusPerNode": 2, "podTemplate": {"runtimeClassName": "nvidia"}})
    holders = [c["name"] for c in [*pod.get("initContainers", []), *pod["containers"]] if "nvidia.com/gpu" in str(c)]
    assert holders == {"Preflight": [], "Quantize": ["quantizer"], "Evaluate": ["engine"]}[stage]
    assert ("runtimeClassName" in pod) == (stage != "Preflight")


@pytest.mark.parametrize(("stage", "method"), STEPS)
def test_nothing_of_the_users_can_be_written_but_the_output(stage, method):
    pod = pod_at(stage, method)
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    writable = {m["mountPath"] for c in containers for m in c["volumeMounts"] if not m.get("readOnly")}
    output = {"/mnt/output"} if stage != "Evaluate" else set()
    assert writable == output | {"/tmp", "/dev/shm"}  # noqa: S108


def test_autoawq_has_an_image_of_its_own_for_its_work_alone():
    images = {
        stage: main_of(pod_at(stage, method, engine="AutoAWQ", methods=["AWQ"]))["image"] for stage, method in STEPS
    }
    assert images == {"Preflight": "quantizer:1", "Quantize": "quantizer-autoawq:1", "Evaluate": "quantizer:1"}


def test_a_users_image_takes_the_place_of_the_library_that_it_is_for():
    mine = {"image": "mine:1"}
    assert {main_of(pod_at(stage, method, **mine))["image"] for stage, method in STEPS} == {"mine:1"}
    awq = mine | {"engine": "AutoAWQ", "methods": ["AWQ"]}
    images = {stage: main_of(pod_at(stage, method, **awq))["image"] for stage, method in STEPS}
    assert images == {"Preflight": "quantizer:1", "Quantize": "mine:1", "Evaluate": "quantizer:1"}


def test_the_engine_is_that_of_the_device_and_serves_to_its_own_pod_alone():
    for gpus, image in ((0, "engine-cpu:1"), (1, "engine:1")):
        (engine,) = pod_at("Evaluate", 0, compute={"gpusPerNode": gpus})["initContainers"]
        assert engine["image"] == image
        assert "--host=127.0.0.1" in engine["command"]
        assert not any("lora" in flag for flag in engine["command"])
        assert engine["restartPolicy"] == "Always"
    assert "--tensor-parallel-size=4" in str(pod_at("Evaluate", 0, compute={"gpusPerNode": 4}))


def test_a_source_of_the_hub_is_read_from_its_snapshot_in_the_cache():
    job, run = at("Quantize", 0, hub=True)
    config = quantize_config(job, run)
    snapshot = f"/mnt/cache/models--org--model/snapshots/{COMMIT}"
    assert (config.source.path, config.cache_path) == (snapshot, "/mnt/cache")
    assert mounts_of(main_of(pod_at("Quantize", 0, hub=True)))["/mnt/cache"]["readOnly"] is True
    (engine,) = pod_at("Evaluate", hub=True)["initContainers"]
    assert f"--model={snapshot}" in engine["command"]


def test_preflight_alone_asks_the_hub_and_has_the_tokens():
    env = {v["name"]: v.get("value", v.get("valueFrom")) for v in main_of(pod_at("Preflight", hub=True))["env"]}
    assert (env["HF_HUB_OFFLINE"], env["HF_HUB_CACHE"]) == ("0", "/mnt/cache")
    assert env["LARGEFORGE_HUB_TOKEN_BASE"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    for stage, method in STEPS[1:]:
        assert "LARGEFORGE_HUB_TOKEN" not in str(pod_at(stage, method, hub=True))


def test_every_setting_of_the_spec_is_in_the_configuration():
    config = preflight_config(*at("Preflight", hub=True))
    assert [(m.method, m.group_size, m.symmetric) for m in config.methods] == [("AWQ", 64, False), ("GPTQ", 64, True)]
    assert config.methods[0].ignore == ["lm_head", "re:.*gate$"]
    calibration = config.calibration
    assert (calibration.num_samples, calibration.max_length, calibration.seed) == (128, 512, 42)
    assert [rows.field for rows in calibration.datasets] == [f"spec.calibration.datasets[{i}]" for i in range(2)]
    held_out = config.evaluation.dataset
    assert (held_out.field, held_out.path, held_out.max_samples) == (
        "spec.qualityGate.dataset",
        "/mnt/datasets/eval/rows.jsonl",
        50,
    )
    eight = preflight_config(*at("Preflight", methods=["W8A8", "FP8Dynamic"])).methods
    assert [(m.group_size, m.symmetric) for m in eight] == [(None, True), (None, True)]


def test_a_stage_needs_the_claims_that_it_mounts_and_no_others():
    spec = {"source": {"uri": "pvc://base/x"}, "output": {"uri": "pvc://models/small"}}
    job, run = at("Preflight", **spec)
    run = run.model_copy(update={"base": run.base.model_copy(update={"uri": "pvc://base/x"})})
    assert set(needed_claims(job, run)) == {"base", "data", "models"}
    job, run = at("Evaluate", 0)
    assert set(needed_claims(job, run)) == {"models"}


def test_a_merged_source_is_mounted_from_the_output():
    merged = SOURCE | {"uri": "pvc://models/small/small-0-source", "merged": True}
    job, run = at("Quantize", 0)
    job = job.model_copy(
        update={"status": job.status.model_copy(update={"source": job.status.source.model_validate(merged)})}
    )
    pod = step_job(job, run, images=IMAGES)["spec"]["template"]["spec"]
    assert mounts_of(main_of(pod))["/mnt/source"]["subPath"] == "small/small-0-source"
    assert needed_claims(job, run) == {"models": "spec.output.uri"}
