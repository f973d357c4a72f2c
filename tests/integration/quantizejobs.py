"""QuantizeJobs that are good, which set every field between them, and the table of bad ones."""

from __future__ import annotations

from tests.integration.finetunejobs import REMOVED, Manifest


def quantizejob() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "QuantizeJob",
        "metadata": {"name": "sql-small"},
        "spec": {
            "source": {"expertRef": {"name": "sql"}},
            "methods": ["AWQ", "GPTQ"],
            "scheme": {"groupSize": 64, "symmetric": True, "ignore": ["lm_head", "re:.*mlp.gate$"]},
            "calibration": {
                "datasets": [{"uri": "pvc://data/calib.jsonl", "format": "Messages", "maxSamples": 1000}],
                "numSamples": 128,
                "maxLength": 512,
                "seed": 7,
                "applyChatTemplate": False,
            },
            "qualityGate": {
                "dataset": {"uri": "configmap://held-out/rows.jsonl", "columns": {"text": "body"}},
                "maxPerplexityIncreasePercent": 1.5,
                "maxPerplexity": 12,
                "onFailure": "Fail",
            },
            "compute": {
                "gpusPerNode": 2,
                "gpuResource": "amd.com/gpu",
                "resources": {"requests": {"memory": "64Gi"}, "limits": {"memory": "96Gi"}},
                "sharedMemory": "16Gi",
                "podTemplate": {"nodeSelector": {"gpu": "a100"}},
            },
            "output": {"uri": "pvc://models/sql-small"},
            "publish": {"expert": {"name": "sql-small", "inferenceServiceRef": {"name": "sql-small"}}},
            "suspend": False,
            "backoffLimit": 1,
            "activeDeadlineSeconds": 7200,
            "ttlSecondsAfterFinished": 3600,
            "rerunPolicy": "Never",
            "image": "registry.example/quantizer:1",
            "imagePullSecrets": [{"name": "registry"}],
            "serviceAccountName": "default",
        },
    }


def hub_job() -> Manifest:
    """From the hub, without data to calibrate on."""
    job = quantizejob()
    job["metadata"]["name"] = "from-hub"
    return job | {
        "spec": {
            "source": {
                "uri": "hf://Qwen/Qwen2.5-7B-Instruct",
                "revision": "main",
                "secretRef": {"name": "hub", "key": "token"},
                "trustRemoteCode": False,
            },
            "methods": ["FP8Dynamic"],
            "qualityGate": {
                "dataset": {
                    "uri": "hf://org/rows",
                    "revision": "main",
                    "config": "small",
                    "split": "test",
                    "secretRef": {"name": "hub"},
                }
            },
            "cache": {"uri": "pvc://cache/hub"},
            "output": {"uri": "pvc://models/qwen-fp8"},
        }
    }


def autoawq_job() -> Manifest:
    """A fine-tuned run, by AutoAWQ."""
    job = quantizejob()
    job["metadata"]["name"] = "by-autoawq"
    return job | {
        "spec": {
            "source": {"fineTuneJobRef": {"name": "sql-sft", "run": 2}},
            "methods": ["AWQ"],
            "engine": "AutoAWQ",
            "calibration": {"datasets": [{"uri": "hf://org/rows", "split": "train"}]},
            "output": {"uri": "pvc://models/sql-awq"},
        }
    }


GOOD_QUANTIZEJOBS = {
    "quantizejob": quantizejob,
    "quantizejob from the hub": hub_job,
    "quantizejob by AutoAWQ": autoawq_job,
}
JOB, HUB, AUTOAWQ = GOOD_QUANTIZEJOBS

BAD_QUANTIZEJOBS: list[tuple[str, Manifest, str]] = [
    (JOB, {"metadata.name": "qwen2.5-7b"}, "for example qwen2-5-7b, not qwen2.5-7b"),
    (JOB, {"metadata.name": "a" * 41}, "at most 40 characters"),
    (JOB, {"spec.source": {}}, "source needs exactly one of uri, fineTuneJobRef and expertRef"),
    (JOB, {"spec.source.uri": "pvc://models/x"}, "source needs exactly one of uri, fineTuneJobRef and expertRef"),
    (JOB, {"spec.source.revision": "main"}, "revision and secretRef belong to an hf:// source; remove them"),
    (JOB, {"spec.source": {"uri": "s3://bucket/model"}}, "spec.source.uri"),
    (AUTOAWQ, {"spec.source.fineTuneJobRef.run": 0}, "spec.source.fineTuneJobRef.run"),
    (HUB, {"spec.cache": REMOVED}, "set cache.uri to a pvc:// folder"),
    (HUB, {"spec.cache.uri": "hf://org/x"}, "spec.cache.uri"),
    (JOB, {"spec.methods": []}, "should have at least 1 items"),
    (JOB, {"spec.methods": REMOVED}, "spec.methods: Required value"),
    (JOB, {"spec.methods": ["NVFP4"]}, 'supported values: "AWQ", "GPTQ", "W8A8", "FP8Dynamic"'),
    (JOB, {"spec.methods": ["AWQ", "AWQ"]}, "duplicate entries for key"),
    (JOB, {"spec.engine": "GGUF"}, 'supported values: "LLMCompressor", "AutoAWQ"'),
    (AUTOAWQ, {"spec.methods": ["AWQ", "GPTQ"]}, "set methods: [AWQ], or engine: LLMCompressor"),
    (AUTOAWQ, {"spec.scheme": {"symmetric": True}}, "remove scheme.symmetric, or set engine: LLMCompressor"),
    (JOB, {"spec.scheme.groupSize": 100}, "spec.scheme.groupSize"),
    (JOB, {"spec.methods": ["W8A8"]}, "belong to the methods AWQ and GPTQ; remove them"),
    (JOB, {"spec.scheme.ignore": [""]}, "spec.scheme.ignore[0]"),
    (JOB, {"spec.scheme.ignore": ["lm_head; rm"]}, "spec.scheme.ignore[0]"),
    (JOB, {"spec.calibration": REMOVED}, "set calibration.datasets, or methods: [FP8Dynamic]"),
    (JOB, {"spec.calibration.datasets": []}, "should have at least 1 items"),
    (JOB, {"spec.calibration.datasets": [{"uri": "pvc://data"}]}, "spec.calibration.datasets[0].uri"),
    (JOB, {"spec.calibration.datasets": [{"uri": "pvc://d/x.jsonl", "split": "a"}]}, "belong to an hf:// data set"),
    (JOB, {"spec.calibration.numSamples": 0}, "spec.calibration.numSamples"),
    (JOB, {"spec.calibration.maxLength": 8}, "spec.calibration.maxLength"),
    (JOB, {"spec.calibration.seed": -1}, "spec.calibration.seed"),
    (HUB, {"spec.qualityGate.dataset": REMOVED}, "set qualityGate.dataset, or calibration.datasets"),
    (JOB, {"spec.qualityGate.maxPerplexity": 0.5}, "maxPerplexity is at least 1, for example 12"),
    (JOB, {"spec.qualityGate.maxPerplexityIncreasePercent": -1}, "spec.qualityGate.maxPerplexityIncreasePercent"),
    (JOB, {"spec.qualityGate.onFailure": "Block"}, 'supported values: "TryNext", "Fail", "Warn"'),
    (JOB, {"spec.compute.gpusPerNode": 9}, "spec.compute.gpusPerNode"),
    (JOB, {"spec.compute.gpuResource": "gpu"}, "spec.compute.gpuResource"),
    (JOB, {"spec.compute.podTemplate.env": [{"name": "LD_PRELOAD", "value": "x"}]}, "choose another name"),
    (JOB, {"spec.output": REMOVED}, "spec.output: Required value"),
    (JOB, {"spec.output.uri": "pvc://models/.hidden"}, "spec.output.uri"),
    (JOB, {"spec.publish.expert.name": "auto"}, "'auto' is the router's own name"),
    (JOB, {"spec.backoffLimit": 21}, "spec.backoffLimit"),
    (JOB, {"spec.activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    (JOB, {"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
    (JOB, {"spec.rerunPolicy": "Always"}, 'supported values: "OnSpecChange", "Never"'),
    (JOB, {"spec.image": "quantizer latest"}, "spec.image"),
    (JOB, {"spec.serviceAccountName": "Trainer"}, "spec.serviceAccountName"),
]
"""Which good one, what is changed of it by path, and a part of the message that refuses it."""
