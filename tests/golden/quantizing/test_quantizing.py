"""The objects of a QuantizeJob's run, as files; `make generate` writes them anew."""

from __future__ import annotations

from largeforge.resources.attemptpod import Installation
from largeforge.resources.progress import ProgressTarget
from largeforge.resources.publishing import QUANTIZED, published_expert
from largeforge.resources.quantizeconfig import step_config_map
from largeforge.resources.quantizepod import Images, step_job
from tests.unit.quantizing import BEFORE, PUBLISH, SOURCE, artifact, quantizejob

IMAGES = Images(
    installation=Installation(image="quantizer:1", pull_policy="IfNotPresent", hub_endpoint="https://hub.example"),
    autoawq="quantizer-autoawq:1",
    engine="engine:1",
    engine_cpu="engine-cpu:1",
)
TARGET = ProgressTarget("https://largeforge-progress.system.svc/v1/progress", "the certificate of the CA\n")
HUB = {
    "source": {"uri": "hf://org/model", "revision": "v1", "secretRef": {"name": "hub"}},
    "cache": {"uri": "pvc://cache/hub"},
    "scheme": {"groupSize": 64, "ignore": ["lm_head", "re:.*gate$"]},
    "calibration": {
        "datasets": [{"uri": "pvc://data/rows/calibration.jsonl"}, {"uri": "hf://org/rows", "split": "train"}],
        "numSamples": 128,
        "maxLength": 512,
    },
    "qualityGate": {"dataset": {"uri": "configmap://held-out/rows.jsonl", "maxSamples": 50}},
    "compute": {
        "gpusPerNode": 2,
        "podTemplate": {
            "labels": {"team": "search"},
            "nodeSelector": {"gpu": "a100"},
            "runtimeClassName": "nvidia",
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        },
    },
    "serviceAccountName": "quantizer",
    "imagePullSecrets": [{"name": "registry"}],
}
COMMIT = "c" * 40


def at(stage, method=None, *, hub=False, **spec):
    """A job whose run is at *stage* of *method*."""
    step = {
        "Preflight": "p",
        "Quantize": f"m{(method or 0) + 1}",
        "Evaluate": f"e{0 if method is None else method + 1}",
    }
    source = SOURCE | ({"uri": "hf://org/model", "commit": COMMIT} if hub else {})
    run = {
        "number": 1,
        "digest": "d" * 64,
        "stage": stage,
        "jobName": f"small-q1-{step[stage]}-a2",
        "attempt": 2,
        "base": {"uri": source["uri"]},
        **({"method": method} if method is not None else {}),
        **({"preparedUri": "pvc://models/small/small-0123456789ab-tokens"} if stage != "Preflight" else {}),
        **({"windowsDigest": "e" * 64} if stage != "Preflight" else {}),
    }
    after = {
        "source": source,
        "calibration": {"digest": "c" * 64, "samples": 256, "tokens": 100_000},
        "evaluation": BEFORE,
        "attempts": [{"method": "AWQ", "artifact": artifact("AWQ")}, {"method": "GPTQ"}],
    }
    job = quantizejob(**(HUB if hub else {}) | spec, status={"run": run} | (after if stage != "Preflight" else {}))
    return job, job.status.run


def objects(job, run, *, progress=None):
    return [step_config_map(job, run, progress=progress), step_job(job, run, images=IMAGES, progress=progress)]


def test_preflight(golden):
    golden("preflight", *objects(*at("Preflight", hub=True)))


def test_a_method_on_a_cpu(golden):
    golden("cpu", *objects(*at("Quantize", 0), progress=TARGET))


def test_a_method_on_gpus(golden):
    golden("gpu", *objects(*at("Quantize", 1, hub=True)))


def test_the_evaluation_of_the_source(golden):
    golden("source", *objects(*at("Evaluate", hub=True)))


def test_the_evaluation_of_a_result(golden):
    golden("result", *objects(*at("Evaluate", 0), progress=TARGET))


def test_the_expert(golden):
    job, _ = at("Evaluate", 0, publish=PUBLISH)
    golden("expert", published_expert(job, job.spec.publish.expert, how=QUANTIZED))
