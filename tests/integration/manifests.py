"""Good manifests, and the table of bad ones: a good one with one thing changed, and what the server must say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
REMOVED: Any = object()


def finetunejob() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "sql-sft"},
        "spec": {
            "method": "SFT",
            "base": {"uri": "pvc://models/qwen2.5-7b"},
            "peft": {"type": "LoRA", "r": 16},
            "datasets": [{"uri": "pvc://data/sql/train.jsonl"}],
            "evalSplitRatio": 0.02,
            "training": {"learningRate": 2e-4, "globalBatchSize": 32},
            "compute": {"gpusPerNode": 1},
            "output": {"uri": "pvc://models/sql"},
            "publish": {
                "expert": {
                    "name": "sql",
                    "inferenceServiceRef": {"name": "qwen-7b"},
                    "routing": {"keywords": [{"pattern": "sql"}]},
                }
            },
        },
    }


def inferenceservice() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen-7b"},
        "spec": {
            "model": {"uri": "pvc://models/qwen2.5-7b"},
            "replicas": 2,
            "engine": {"maxModelLen": 8192, "extraArgs": {"max-num-seqs": "64"}},
            "lora": {"store": "pvc://models", "maxLoras": 4, "maxLoraRank": 64},
            "compute": {"gpusPerReplica": 1},
        },
    }


def adapter_expert() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "sql"},
        "spec": {
            "type": "Adapter",
            "sourceRef": {"kind": "FineTuneJob", "name": "sql-sft"},
            "inferenceServiceRef": {"name": "qwen-7b"},
            "version": "1.2.0",
            "routing": {"domains": ["sql"], "keywords": [{"pattern": "select", "type": "Word"}]},
        },
    }


def model_expert() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "general"},
        "spec": {
            "type": "Model",
            "artifact": {"uri": "pvc://models/qwen2.5-7b"},
            "inferenceServiceRef": {"name": "qwen-7b"},
            "routing": {"fallback": True},
        },
    }


GOOD = {
    "finetunejob": finetunejob,
    "inferenceservice": inferenceservice,
    "adapter expert": adapter_expert,
    "model expert": model_expert,
}


@dataclass(frozen=True)
class Bad:
    """A good manifest with the values at some paths changed, and a part of the message that refuses it."""

    good: str
    changes: dict[str, Any]
    message: str

    def manifest(self) -> Manifest:
        manifest = copy.deepcopy(GOOD[self.good]())
        for path, value in self.changes.items():
            *parents, last = path.split(".")
            node: Any = manifest
            for part in parents:
                node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
            if value is REMOVED:
                del node[last]
            elif isinstance(node, list):
                node[int(last)] = value
            else:
                node[last] = value
        return manifest

    @property
    def title(self) -> str:
        changed = ", ".join(
            f"{path}={'(removed)' if value is REMOVED else value!r}" for path, value in self.changes.items()
        )
        return f"{self.good}: {changed}"[:120]


JOB, SERVICE, ADAPTER, MODEL = GOOD

BAD = [
    # FineTuneJob
    Bad(JOB, {"metadata.name": "a" * 41}, "at most 40 characters"),
    Bad(JOB, {"metadata.name": "qwen2.5-7b"}, "for example qwen2-5-7b, not qwen2.5-7b"),
    Bad(JOB, {"metadata.name": "7b-sql"}, "a letter first"),
    Bad(JOB, {"spec": REMOVED}, "spec: Required value"),
    Bad(JOB, {"spec.method": REMOVED}, "spec.method: Required value"),
    Bad(JOB, {"spec.method": "PPO"}, 'supported values: "SFT"'),
    Bad(JOB, {"spec.base": REMOVED}, "spec.base: Required value"),
    Bad(JOB, {"spec.base.uri": "s3://bucket/model"}, "spec.base.uri"),
    Bad(JOB, {"spec.base.uri": "pvc://models/../secrets"}, "spec.base.uri"),
    Bad(JOB, {"spec.base.uri": "pvc://models//double"}, "spec.base.uri"),
    Bad(JOB, {"spec.base.uri": "pvc://Models/x"}, "spec.base.uri"),
    Bad(JOB, {"spec.base.uri": "pvc://models/" + "a" * 600}, "may not be more than 512"),
    Bad(JOB, {"spec.peft.type": "QLoRA"}, 'supported values: "LoRA", "None"'),
    Bad(JOB, {"spec.peft.r": 0}, "spec.peft.r"),
    Bad(JOB, {"spec.peft.r": 1024}, "should be less than or equal to 512"),
    Bad(JOB, {"spec.peft.loraDropout": 1.5}, "spec.peft.loraDropout"),
    Bad(JOB, {"spec.peft": {"type": "None", "r": 8}, "spec.publish": REMOVED}, "remove them or set type: LoRA"),
    Bad(JOB, {"spec.peft": {"type": "None"}}, "only an adapter can be published as an Expert"),
    Bad(JOB, {"spec.peft.targetModules": []}, "should have at least 1 items"),
    Bad(JOB, {"spec.datasets": []}, "should have at least 1 items"),
    Bad(JOB, {"spec.datasets": [{"uri": "pvc://data/x.jsonl"}] * 17}, "must have at most 16 items"),
    Bad(JOB, {"spec.datasets.0.uri": "pvc://data"}, "spec.datasets[0].uri"),
    Bad(JOB, {"spec.datasets.0.uri": "configmap://data"}, "spec.datasets[0].uri"),
    Bad(JOB, {"spec.datasets.0.uri": "/etc/passwd"}, "spec.datasets[0].uri"),
    Bad(JOB, {"spec.evalSplitRatio": 0.9}, "spec.evalSplitRatio"),
    Bad(JOB, {"spec.training": {"maxSteps": 10, "numTrainEpochs": 2}}, "set maxSteps or numTrainEpochs, not both"),
    Bad(
        JOB,
        {"spec.training": {"globalBatchSize": 8, "perDeviceTrainBatchSize": 2}},
        "or perDeviceTrainBatchSize with gradientAccumulationSteps, not both",
    ),
    Bad(JOB, {"spec.training": {"gradientAccumulationSteps": 2}}, "needs perDeviceTrainBatchSize beside it"),
    Bad(JOB, {"spec.training.learningRate": "2e-4"}, "spec.training.learningRate"),
    Bad(JOB, {"spec.training.learningRate": 0}, "learningRate must be above 0, for example 2e-4"),
    Bad(JOB, {"spec.training.learningRate": -1e-4}, "spec.training.learningRate"),
    Bad(JOB, {"spec.training": {"numTrainEpochs": 0}}, "numTrainEpochs must be above 0"),
    Bad(JOB, {"spec.training.maxLength": 4}, "spec.training.maxLength"),
    Bad(JOB, {"spec.training.precision": "INT8"}, 'supported values: "Auto", "BF16", "FP16", "FP32"'),
    Bad(
        JOB,
        {"spec.compute.gpusPerNode": 0, "spec.training.precision": "FP16"},
        "FP16 needs a GPU; use FP32, BF16 or Auto",
    ),
    Bad(
        JOB,
        {"spec.compute": {"gpusPerNode": 0, "processesPerNode": 3}},
        "must be divisible by the number of ranks",
    ),
    Bad(JOB, {"spec.compute.processesPerNode": 2}, "processesPerNode is the number of GPUs"),
    Bad(JOB, {"spec.compute.gpusPerNode": 17}, "spec.compute.gpusPerNode"),
    Bad(JOB, {"spec.compute.resources.requests": {"memory": "8 GB"}}, "spec.compute.resources.requests"),
    Bad(JOB, {"spec.compute.podTemplate.env": [{"name": "PET_NNODES", "value": "9"}]}, "set by LargeForge"),
    Bad(JOB, {"spec.compute.podTemplate.env": [{"name": "LD_PRELOAD", "value": "x"}]}, "choose another name"),
    Bad(JOB, {"spec.compute.podTemplate.env": [{"name": "A"}]}, "set either value or valueFrom"),
    Bad(JOB, {"spec.output": REMOVED}, "spec.output: Required value"),
    Bad(JOB, {"spec.output.uri": "configmap://a/b"}, "spec.output.uri"),
    Bad(JOB, {"spec.publish.expert.name": "auto"}, "'auto' is the router's own name"),
    Bad(JOB, {"spec.publish.expert.name": "x" * 41}, "spec.publish.expert.name"),
    Bad(JOB, {"spec.publish.expert.inferenceServiceRef": REMOVED}, "inferenceServiceRef: Required value"),
    Bad(JOB, {"spec.backoffLimit": -1}, "spec.backoffLimit"),
    # InferenceService
    Bad(SERVICE, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(SERVICE, {"metadata.name": "b" * 41}, "at most 40 characters"),
    Bad(SERVICE, {"spec.model.uri": "hf://org/model"}, "spec.model.uri"),
    Bad(SERVICE, {"spec.replicas": 65}, "spec.replicas"),
    Bad(SERVICE, {"spec.engine.maxModelLen": 0}, "spec.engine.maxModelLen"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"api-key": "x"}}, "remove it from extraArgs"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"max-model-len": "9"}}, "set by LargeForge or by a field of its own"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"--host": "0.0.0.0"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"Max_Seqs": "1"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"ssl-ca-certs": "/x"}}, "remove it from extraArgs"),
    Bad(SERVICE, {"spec.lora.maxLoraRank": 48}, "supported values"),
    Bad(SERVICE, {"spec.lora.maxCpuLoras": 4}, "one slot stays free for swapping versions"),
    Bad(SERVICE, {"spec.lora.store": REMOVED}, "spec.lora.store: Required value"),
    Bad(SERVICE, {"spec.service": {"type": "ExternalName"}}, 'supported values: "ClusterIP"'),
    # Expert
    Bad(ADAPTER, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(ADAPTER, {"spec.type": "External"}, 'supported values: "Adapter", "Model"'),
    Bad(ADAPTER, {"spec.sourceRef": REMOVED}, "set sourceRef {kind: FineTuneJob, name}"),
    Bad(ADAPTER, {"spec.artifact": {"uri": "pvc://models/x"}}, "leave out artifact"),
    Bad(ADAPTER, {"spec.sourceRef.kind": "QuantizeJob"}, 'supported values: "FineTuneJob"'),
    Bad(ADAPTER, {"spec.sourceRef.name": "other-ns/sql-sft"}, "spec.sourceRef.name"),
    Bad(ADAPTER, {"spec.inferenceServiceRef": REMOVED}, "spec.inferenceServiceRef: Required value"),
    Bad(ADAPTER, {"spec.version": "-1"}, "spec.version"),
    Bad(ADAPTER, {"spec.routing.keywords.0.pattern": ""}, "spec.routing.keywords[0].pattern"),
    Bad(ADAPTER, {"spec.routing.keywords.0.type": "Regex"}, 'supported values: "Word", "Literal"'),
    Bad(ADAPTER, {"spec.routing.domains": ["x"] * 17}, "must have at most 16 items"),
    Bad(MODEL, {"spec.artifact": REMOVED}, "set artifact.uri"),
    Bad(MODEL, {"spec.sourceRef": {"kind": "FineTuneJob", "name": "sql-sft"}}, "leave out sourceRef"),
]
