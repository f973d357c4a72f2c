"""FineTuneJobs that are good, which set every field between them, and the table of bad ones."""

from __future__ import annotations

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


def hub_job() -> Manifest:
    """An adapter on four GPUs, from the hub, with a gate; together with the next ones it sets every field."""
    token = {"name": "hub-token", "key": "token"}
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "from-hub"},
        "spec": {
            "method": "SFT",
            "base": {"uri": "hf://org/model", "revision": "main", "secretRef": token, "trustRemoteCode": False},
            "peft": {
                "type": "LoRA",
                "r": 32,
                "loraAlpha": 64,
                "loraDropout": 0,
                "targetModules": ["q_proj", "v_proj"],
                "useRslora": True,
                "useDora": False,
            },
            "datasets": [
                {
                    "uri": "hf://org/rows",
                    "revision": "refs/pr/1",
                    "config": "default",
                    "split": "train",
                    "secretRef": token,
                    "format": "Messages",
                    "columns": {"messages": "chat"},
                    "weight": 0.5,
                    "maxSamples": 10000,
                },
                {"uri": "pvc://data/share", "format": "ShareGPT", "columns": {"conversations": "turns", "system": "s"}},
            ],
            "evalDataset": {
                "uri": "hf://org/rows",
                "revision": "main",
                "config": "default",
                "split": "test",
                "secretRef": token,
                "format": "Messages",
                "columns": {"messages": "chat"},
                "maxSamples": 100,
            },
            "dataPolicy": {"mode": "Warn", "maxInvalidRatio": 0.01, "onTooLong": "Drop"},
            "training": {
                "numTrainEpochs": 1.5,
                "learningRate": 1,
                "lrSchedulerType": "linear",
                "warmupRatio": 0,
                "weightDecay": 0.01,
                "maxGradNorm": 1,
                "optim": "adamw_torch_fused",
                "perDeviceTrainBatchSize": 2,
                "gradientAccumulationSteps": 4,
                "maxLength": 4096,
                "packing": True,
                "assistantOnlyLoss": True,
                "precision": "FP16",
                "gradientCheckpointing": False,
                "attnImplementation": "flash_attention_2",
                "seed": 0,
                "evalSteps": 50,
                "loggingSteps": 10,
                "earlyStopping": {"patience": 3, "threshold": 0.01},
            },
            "extraArgs": {
                "neftune_noise_alpha": 5,
                "adam_beta2": 0.95,
                "optim_args": "a=1",
                "label_names": ["x"],
                "torch_compile": False,
                "lr_scheduler_kwargs": {"num_cycles": 2},
            },
            "compute": {
                "nodes": 1,
                "gpusPerNode": 4,
                "gpuResource": "amd.com/gpu",
                "processesPerNode": 4,
                "strategy": "FSDP",
                "fsdp": {"reshardAfterForward": False, "cpuOffload": True},
                "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"memory": "128Gi"}},
                "sharedMemory": "16Gi",
                "podTemplate": pod_template(),
            },
            "cache": {"uri": "pvc://hub-cache"},
            "checkpoint": {"uri": "pvc://fast/checkpoints", "everyMinutes": 0.5, "keep": 3, "resume": "Never"},
            "output": {"uri": "pvc://models/hub"},
            "gate": {"maxEvalLoss": 2.5, "maxPerplexity": 12, "compareWith": "Base", "onFailure": "Warn"},
            "publish": {
                "expert": {
                    "name": "from-hub",
                    "inferenceServiceRef": {"name": "qwen-7b"},
                    "version": "1.0.0",
                    "routing": {"domains": ["sql"], "fallback": False, "enabled": True},
                    "defaults": {"temperature": 0.2},
                    "limits": {"maxConcurrentRequests": 8},
                    "access": {"clients": ["team-a"]},
                    "stage": "Staging",
                    "probe": {"prompt": "How many rows has orders?", "expectRegex": "SELECT"},
                    "deletionPolicy": "Delete",
                }
            },
            "tracking": {
                "reportTo": "WandB",
                "project": "sql experiments",
                "uri": "https://wandb.internal",
                "secretRef": {"name": "wandb", "key": "api-key"},
            },
            "suspend": True,
            "backoffLimit": 0,
            "activeDeadlineSeconds": 86400,
            "ttlSecondsAfterFinished": 0,
            "rerunPolicy": "Never",
            "image": "registry.internal:5000/team/trainer@sha256:" + "0" * 64,
            "imagePullSecrets": [{"name": "registry.internal"}],
            "serviceAccountName": "team.trainer",
        },
    }


def pod_template() -> Manifest:
    return {
        "labels": {"team.example/name": "sql"},
        "nodeSelector": {"nvidia.com/gpu.product": "H100"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "runtimeClassName": "nvidia",
        "priorityClassName": "low",
        "volumes": [
            {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"sizeLimit": "10Gi"}},
            {"name": "more", "mountPath": "/more", "persistentVolumeClaim": {"claimName": "more", "readOnly": True}},
            {"name": "settings", "mountPath": "/settings", "configMap": {"name": "settings"}},
            {"name": "own", "mountPath": "/own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "driver", "mountPath": "/driver", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}},
        ],
        "env": [
            {"name": "NCCL_DEBUG", "value": "INFO"},
            {"name": "MY_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "token"}}},
        ],
    }


def cpu_job() -> Manifest:
    """All weights on two ranks without a GPU, on rows of every other format."""
    job = finetunejob()
    job["metadata"]["name"] = "whole"
    job["spec"] |= {
        "peft": {"type": "None"},
        "datasets": [
            {
                "uri": "configmap://rows/a.jsonl",
                "format": "PromptCompletion",
                "columns": {"prompt": "q", "completion": "a"},
            },
            {
                "uri": "pvc://data/alpaca.json",
                "format": "Alpaca",
                "columns": {"instruction": "task", "input": "about", "output": "answer", "system": "system"},
            },
            {"uri": "pvc://data/text.parquet", "format": "Text", "columns": {"text": "content"}},
        ],
        "training": {"maxSteps": 100, "globalBatchSize": 8, "completionOnlyLoss": False, "precision": "BF16"},
        "compute": {"gpusPerNode": 0, "processesPerNode": 2, "strategy": "DDP"},
        "checkpoint": {"everySteps": 100},
        "tracking": {"reportTo": "TensorBoard"},
    }
    del job["spec"]["publish"]
    return job


def continued_job() -> Manifest:
    """Goes on from a run, and writes a whole model of what engines could not serve as an adapter."""
    job = finetunejob()
    job["metadata"]["name"] = "goes-on"
    job["spec"] |= {
        "base": {"fineTuneJobRef": {"name": "sql-sft", "run": 2}},
        "peft": {"useDora": True, "modulesToSave": ["lm_head"]},
        "output": {"uri": "pvc://models/merged", "merge": True},
        "tracking": {"reportTo": "MLflow", "uri": "http://mlflow:5000"},
    }
    del job["spec"]["publish"]
    return job


def from_expert() -> Manifest:
    job = finetunejob()
    job["metadata"]["name"] = "from-expert"
    return job | {"spec": job["spec"] | {"base": {"expertRef": {"name": "sql"}}}}


GOOD_JOBS = {
    "finetunejob": finetunejob,
    "finetunejob from the hub": hub_job,
    "finetunejob without a GPU": cpu_job,
    "finetunejob that goes on from a run": continued_job,
    "finetunejob that goes on from an expert": from_expert,
}
JOB, HUB, CPU, CONTINUED, _ = GOOD_JOBS

BAD_JOBS: list[tuple[str, Manifest, str]] = [
    (JOB, {"metadata.name": "a" * 41}, "at most 40 characters"),
    (JOB, {"metadata.name": "qwen2.5-7b"}, "for example qwen2-5-7b, not qwen2.5-7b"),
    (JOB, {"metadata.name": "7b-sql"}, "a letter first"),
    (JOB, {"spec": REMOVED}, "spec: Required value"),
    (JOB, {"spec.method": REMOVED}, "spec.method: Required value"),
    (JOB, {"spec.method": "PPO"}, 'supported values: "SFT"'),
    (JOB, {"spec.base": REMOVED}, "spec.base: Required value"),
    (JOB, {"spec.base.uri": "s3://bucket/model"}, "spec.base.uri"),
    (JOB, {"spec.base.uri": "pvc://models/../secrets"}, "spec.base.uri"),
    (JOB, {"spec.base.uri": "pvc://models//double"}, "spec.base.uri"),
    (JOB, {"spec.base.uri": "pvc://Models/x"}, "spec.base.uri"),
    (JOB, {"spec.base.uri": "pvc://models/" + "a" * 600}, "may not be more than 512"),
    (JOB, {"spec.peft.type": "QLoRA"}, 'supported values: "LoRA", "None"'),
    (JOB, {"spec.peft.r": 0}, "spec.peft.r"),
    (JOB, {"spec.peft.r": 1024}, "should be less than or equal to 512"),
    (JOB, {"spec.peft.loraDropout": 1.5}, "spec.peft.loraDropout"),
    (JOB, {"spec.peft": {"type": "None", "r": 8}, "spec.publish": REMOVED}, "remove them or set type: LoRA"),
    (JOB, {"spec.peft": {"type": "None"}}, "only an adapter can be published as an Expert"),
    (JOB, {"spec.peft.targetModules": []}, "should have at least 1 items"),
    (JOB, {"spec.datasets": []}, "should have at least 1 items"),
    (JOB, {"spec.datasets": [{"uri": "pvc://data/x.jsonl"}] * 17}, "must have at most 16 items"),
    (JOB, {"spec.datasets.0.uri": "pvc://data"}, "spec.datasets[0].uri"),
    (JOB, {"spec.datasets.0.uri": "configmap://data"}, "spec.datasets[0].uri"),
    (JOB, {"spec.datasets.0.uri": "/etc/passwd"}, "spec.datasets[0].uri"),
    (JOB, {"spec.evalSplitRatio": 0.9}, "spec.evalSplitRatio"),
    (JOB, {"spec.training": {"maxSteps": 10, "numTrainEpochs": 2}}, "set maxSteps or numTrainEpochs, not both"),
    (
        JOB,
        {"spec.training": {"globalBatchSize": 8, "perDeviceTrainBatchSize": 2}},
        "or perDeviceTrainBatchSize with gradientAccumulationSteps, not both",
    ),
    (JOB, {"spec.training": {"gradientAccumulationSteps": 2}}, "needs perDeviceTrainBatchSize beside it"),
    (JOB, {"spec.training.learningRate": "2e-4"}, "spec.training.learningRate"),
    (JOB, {"spec.training.learningRate": 0}, "learningRate must be above 0, for example 2e-4"),
    (JOB, {"spec.training.learningRate": -1e-4}, "spec.training.learningRate"),
    (JOB, {"spec.training": {"numTrainEpochs": 0}}, "numTrainEpochs must be above 0"),
    (JOB, {"spec.training.maxLength": 4}, "spec.training.maxLength"),
    (JOB, {"spec.training.precision": "INT8"}, 'supported values: "Auto", "BF16", "FP16", "FP32"'),
    (
        JOB,
        {"spec.compute.gpusPerNode": 0, "spec.training.precision": "FP16"},
        "FP16 needs a GPU; use FP32, BF16 or Auto",
    ),
    (
        JOB,
        {"spec.compute": {"gpusPerNode": 0, "processesPerNode": 3}},
        "must be divisible by the number of ranks",
    ),
    (JOB, {"spec.compute.processesPerNode": 2}, "processesPerNode is the number of GPUs"),
    (JOB, {"spec.compute.gpusPerNode": 17}, "spec.compute.gpusPerNode"),
    (JOB, {"spec.compute.resources.requests": {"memory": "8 GB"}}, "spec.compute.resources.requests"),
    (JOB, {"spec.compute.podTemplate.env": [{"name": "PET_NNODES", "value": "9"}]}, "set by LargeForge"),
    (JOB, {"spec.compute.podTemplate.env": [{"name": "LD_PRELOAD", "value": "x"}]}, "choose another name"),
    (JOB, {"spec.compute.podTemplate.env": [{"name": "A"}]}, "set either value or valueFrom"),
    (JOB, {"spec.output": REMOVED}, "spec.output: Required value"),
    (JOB, {"spec.output.uri": "configmap://a/b"}, "spec.output.uri"),
    (JOB, {"spec.publish.expert.name": "auto"}, "'auto' is the router's own name"),
    (JOB, {"spec.publish.expert.name": "x" * 41}, "spec.publish.expert.name"),
    (JOB, {"spec.publish.expert.inferenceServiceRef": REMOVED}, "inferenceServiceRef: Required value"),
    (JOB, {"spec.backoffLimit": -1}, "spec.backoffLimit"),
    # Its base
    (JOB, {"spec.base": {}}, "base needs exactly one of uri, fineTuneJobRef and expertRef"),
    (JOB, {"spec.base.expertRef": {"name": "sql"}}, "base needs exactly one of uri, fineTuneJobRef and expertRef"),
    (JOB, {"spec.base.uri": "hf://model"}, "spec.base.uri"),
    (JOB, {"spec.base.uri": "hf://org/model/file"}, "spec.base.uri"),
    (JOB, {"spec.base.revision": "main"}, "revision and secretRef belong to an hf:// base; remove them"),
    (JOB, {"spec.base.secretRef": {"name": "x"}}, "revision and secretRef belong to an hf:// base; remove them"),
    (HUB, {"spec.base.revision": "-x"}, "spec.base.revision"),
    (HUB, {"spec.base.secretRef": {"name": "other/secret"}}, "spec.base.secretRef.name"),
    (CONTINUED, {"spec.base.fineTuneJobRef.run": 0}, "spec.base.fineTuneJobRef.run"),
    (CONTINUED, {"spec.base.fineTuneJobRef.name": "other/job"}, "spec.base.fineTuneJobRef.name"),
    (CONTINUED, {"spec.base.revision": "main"}, "revision and secretRef belong to an hf:// base; remove them"),
    # Its adapter
    (HUB, {"spec.peft.useDora": True}, "remove publish and set output.merge: true"),
    (HUB, {"spec.peft.modulesToSave": ["lm_head"]}, "remove publish and set output.merge: true"),
    (CPU, {"spec.peft.useRslora": True}, "remove them or set type: LoRA"),
    (CPU, {"spec.peft.modulesToSave": ["lm_head"]}, "remove them or set type: LoRA"),
    (JOB, {"spec.peft.loraAlpha": 0}, "spec.peft.loraAlpha"),
    (JOB, {"spec.peft.targetModules": [""]}, "spec.peft.targetModules[0]"),
    # Its data
    (JOB, {"spec.datasets": REMOVED}, "spec.datasets: Required value"),
    (JOB, {"spec.datasets.0.split": "train"}, "belong to an hf:// data set; remove them"),
    (JOB, {"spec.datasets.0.secretRef": {"name": "x"}}, "belong to an hf:// data set; remove them"),
    (JOB, {"spec.datasets.0.format": "DPO"}, 'supported values: "Auto", "Messages", "PromptCompletion", "Text"'),
    (
        JOB,
        {"spec.datasets.0.format": "Messages", "spec.datasets.0.columns": {"text": "t"}},
        "columns names columns of another format; remove them, or set format to theirs",
    ),
    (CPU, {"spec.datasets.1.columns.conversations": "c"}, "columns names columns of another format"),
    (JOB, {"spec.datasets.0.columns": {"messages": ""}}, "spec.datasets[0].columns.messages"),
    (JOB, {"spec.datasets.0.weight": 0}, "weight must be above 0, for example 0.5 or 2"),
    (JOB, {"spec.datasets.0.weight": 101}, "spec.datasets[0].weight"),
    (JOB, {"spec.datasets.0.maxSamples": 0}, "spec.datasets[0].maxSamples"),
    (HUB, {"spec.datasets.0.split": "train[:10%]"}, "spec.datasets[0].split"),
    (JOB, {"spec.evalDataset": {"uri": "pvc://data/e.jsonl"}}, "set evalDataset or evalSplitRatio, not both"),
    (HUB, {"spec.evalDataset.columns": {"prompt": "p"}}, "columns names columns of another format"),
    (CPU, {"spec.evalDataset": {"uri": "pvc://data/e.jsonl", "config": "x"}}, "belong to an hf:// data set"),
    (JOB, {"spec.dataPolicy": {"mode": "Ignore"}}, 'supported values: "Enforce", "Warn"'),
    (JOB, {"spec.dataPolicy": {"maxInvalidRatio": 1.5}}, "spec.dataPolicy.maxInvalidRatio"),
    (JOB, {"spec.dataPolicy": {"onTooLong": "Keep"}}, 'supported values: "Truncate", "Drop", "Fail"'),
    # How it is trained
    (JOB, {"spec.training.lrSchedulerType": "Cosine"}, "spec.training.lrSchedulerType"),
    (JOB, {"spec.training.warmupRatio": 1}, "warmupRatio is a share of the steps and must be below 1"),
    (JOB, {"spec.training.weightDecay": -0.1}, "spec.training.weightDecay"),
    (JOB, {"spec.training.maxGradNorm": 0}, "maxGradNorm must be above 0, for example 1"),
    (JOB, {"spec.training.optim": "adam w"}, "spec.training.optim"),
    (JOB, {"spec.training.maxSteps": 0}, "spec.training.maxSteps"),
    (JOB, {"spec.training.seed": -1}, "spec.training.seed"),
    (JOB, {"spec.training.loggingSteps": 0}, "spec.training.loggingSteps"),
    (
        JOB,
        {"spec.training.assistantOnlyLoss": True, "spec.training.completionOnlyLoss": True},
        "set assistantOnlyLoss (for messages) or completionOnlyLoss (for prompt and completion), not both",
    ),
    (
        JOB,
        {"spec.training.earlyStopping": {"patience": 2}},
        "earlyStopping needs evalSteps beside it, for example evalSteps: 50",
    ),
    (HUB, {"spec.training.earlyStopping": {"threshold": 1}}, "spec.training.earlyStopping.patience: Required value"),
    (
        JOB,
        {"spec.training.evalSteps": 5, "spec.evalSplitRatio": REMOVED},
        "measure held-out rows; set evalDataset, or evalSplitRatio, for example 0.02",
    ),
    (
        CPU,
        {"spec.training.attnImplementation": "flash_attention_2"},
        "flash_attention needs a GPU; use sdpa or eager with compute.gpusPerNode: 0",
    ),
    (CPU, {"spec.training.precision": "FP16"}, "FP16 needs a GPU; use FP32, BF16 or Auto"),
    (JOB, {"spec.extraArgs": {"output_dir": "x"}}, "hub_model_id are set by spec.output.uri"),
    (JOB, {"spec.extraArgs": {"bf16": True}}, "bf16, fp16 are set by spec.training.precision"),
    (JOB, {"spec.extraArgs": {"learning_rate": 1}}, "learning_rate is set by spec.training.learningRate"),
    (JOB, {"spec.extraArgs": {"hub_token": "x"}}, "hub_token is set by spec.base.secretRef"),
    (JOB, {"spec.extraArgs": {"fsdp_config": {"a": 1}}}, "fsdp_config is set by spec.compute.fsdp"),
    (JOB, {"spec.extraArgs": {f"a{n}": 1 for n in range(65)}}, "must have at most 64 items"),
    # What it gets
    (JOB, {"spec.compute.nodes": 2}, "spec.compute.nodes"),
    (JOB, {"spec.compute.gpuResource": "gpu"}, "spec.compute.gpuResource"),
    (JOB, {"spec.compute.strategy": "DDP"}, "need two processes or more; raise gpusPerNode or processesPerNode"),
    (JOB, {"spec.compute.strategy": "FSDP"}, "need two processes or more; raise gpusPerNode or processesPerNode"),
    (HUB, {"spec.compute.strategy": "Single"}, "strategy Single is one process"),
    (HUB, {"spec.compute.strategy": "DDP"}, "fsdp holds options of strategy FSDP; set strategy: FSDP, or remove fsdp"),
    (JOB, {"spec.compute.strategy": "Horovod"}, 'supported values: "Auto", "Single", "DDP", "FSDP"'),
    (JOB, {"spec.compute.sharedMemory": "8 GB"}, "spec.compute.sharedMemory"),
    (HUB, {"spec.compute.podTemplate.volumes.0.mountPath": "/mnt/base"}, "are LargeForge's; choose another path"),
    (HUB, {"spec.compute.podTemplate.volumes.0.mountPath": "/a/../mnt"}, "are LargeForge's; choose another path"),
    (HUB, {"spec.compute.podTemplate.volumes.0.emptyDir": REMOVED}, "a volume needs exactly one of emptyDir"),
    (HUB, {"spec.compute.podTemplate.volumes.1.emptyDir": {}}, "a volume needs exactly one of emptyDir"),
    (HUB, {"spec.compute.podTemplate.tolerations.0.effect": "Never"}, 'supported values: "NoSchedule"'),
    (HUB, {"spec.compute.podTemplate.env.0.valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}, "set either"),
    # Where its results go
    (JOB, {"spec.cache": {"uri": "hf://org/x"}}, "spec.cache.uri"),
    (JOB, {"spec.cache": {}}, "spec.cache.uri: Required value"),
    (JOB, {"spec.checkpoint": {"everySteps": 5, "everyMinutes": 5}}, "set everySteps or everyMinutes, not both"),
    (JOB, {"spec.checkpoint": {"everyMinutes": 0}}, "everyMinutes must be above 0, for example 30"),
    (JOB, {"spec.checkpoint": {"keep": 0}}, "spec.checkpoint.keep"),
    (JOB, {"spec.checkpoint": {"resume": "Always"}}, 'supported values: "Auto", "Never"'),
    (JOB, {"spec.checkpoint": {"uri": "configmap://a/b"}}, "spec.checkpoint.uri"),
    (JOB, {"spec.output.uri": "pvc://models/.hidden"}, "spec.output.uri"),
    (JOB, {"spec.output.merge": True}, "only an adapter can be published as an Expert"),
    (CPU, {"spec.output.merge": True}, "output.merge merges an adapter; remove it, or set type: LoRA"),
    (JOB, {"spec.gate": {}}, "a gate needs maxEvalLoss, maxPerplexity or compareWith: Base"),
    (JOB, {"spec.gate": {"maxEvalLoss": 0}}, "maxEvalLoss must be above 0, for example 2.5"),
    (JOB, {"spec.gate": {"maxPerplexity": 0.5}}, "maxPerplexity is at least 1, for example 12"),
    (JOB, {"spec.gate": {"compareWith": "Expert"}}, 'supported values: "Base"'),
    (JOB, {"spec.gate": {"maxEvalLoss": 2, "onFailure": "Ignore"}}, 'supported values: "Block", "Warn"'),
    (
        JOB,
        {"spec.gate": {"maxEvalLoss": 2}, "spec.evalSplitRatio": 0},
        "measure held-out rows; set evalDataset, or evalSplitRatio, for example 0.02",
    ),
    (JOB, {"spec.publish.expert": REMOVED}, "spec.publish.expert: Required value"),
    (JOB, {"spec.publish.expert.version": "-1"}, "spec.publish.expert.version"),
    (JOB, {"spec.tracking": {"reportTo": "WandB"}}, "reportTo WandB needs secretRef"),
    (JOB, {"spec.tracking": {"reportTo": "MLflow"}}, "reportTo MLflow needs uri"),
    (JOB, {"spec.tracking": {"reportTo": "TensorBoard", "uri": "http://x"}}, "remove secretRef and uri"),
    (JOB, {"spec.tracking": {"reportTo": "Comet"}}, 'supported values: "TensorBoard", "WandB", "MLflow"'),
    (HUB, {"spec.tracking.uri": "ftp://wandb"}, "spec.tracking.uri"),
    (HUB, {"spec.tracking.project": "../x"}, "spec.tracking.project"),
    # How it runs
    (JOB, {"spec.suspend": "yes"}, "spec.suspend"),
    (JOB, {"spec.backoffLimit": 21}, "spec.backoffLimit"),
    (JOB, {"spec.activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    (JOB, {"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
    (JOB, {"spec.rerunPolicy": "Always"}, 'supported values: "OnSpecChange", "Never"'),
    (JOB, {"spec.image": "trainer latest"}, "spec.image"),
    (JOB, {"spec.imagePullSecrets": [{"name": "x"}] * 9}, "must have at most 8 items"),
    (JOB, {"spec.serviceAccountName": "Trainer"}, "spec.serviceAccountName"),
]
"""Which good one, what is changed of it by path, and a part of the message that refuses it."""
