"""The objects of a run, as files; `make generate` writes them anew."""

from __future__ import annotations

from largeforge.api.finetunejobstatus import ResolvedBase, RunRecord
from largeforge.resources.attemptpod import Installation
from largeforge.resources.preflight import preflight_config_map, preflight_job
from largeforge.resources.progress import ProgressTarget
from largeforge.resources.publishing import published_expert
from largeforge.resources.training import run_config_map, training_job
from tests.unit.training import PUBLISH, finetunejob

HERE = Installation(
    image="trainer:1",
    pull_policy="IfNotPresent",
    hub_endpoint="https://hub.example",
    hub_hosts=("files.hub.example",),
)
TARGET = ProgressTarget("https://largeforge-progress.system.svc/v1/progress", "the certificate of the CA\n")
EVERYTHING = {
    "base": {"uri": "hf://org/model", "revision": "v1", "secretRef": {"name": "hub"}},
    "peft": {"type": "LoRA", "r": 8, "targetModules": ["q_proj"]},
    "datasets": [{"uri": "hf://org/rows", "split": "train", "secretRef": {"name": "hub"}, "weight": 2}],
    "evalDataset": {"uri": "pvc://data/held-out.jsonl", "columns": {"messages": "turns"}},
    "cache": {"uri": "pvc://cache/hub"},
    "checkpoint": {"uri": "pvc://state/sql", "everySteps": 100},
    "tracking": {"reportTo": "MLflow", "uri": "https://mlflow.example", "secretRef": {"name": "mlflow"}},
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "compute": {
        "gpusPerNode": 2,
        "strategy": "FSDP",
        "fsdp": {"cpuOffload": True},
        "sharedMemory": "16Gi",
        "podTemplate": {
            "labels": {"team": "search", "largeforge.ai/run": "9", "app.kubernetes.io/managed-by": "me"},
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "runtimeClassName": "nvidia",
            "priorityClassName": "batch",
            "volumes": [{"name": "ca", "mountPath": "/certificates", "configMap": {"name": "ca"}}],
            "env": [
                {"name": "NCCL_DEBUG", "value": "WARN"},
                {"name": "HF_HUB_OFFLINE", "value": "0"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
            ],
        },
    },
}


def record(stage, **fields):
    number, letter = 2, "p" if stage == "Preflight" else "a"
    return RunRecord(
        number=1, attempt=number, digest="d" * 64, stage=stage, job_name=f"sql-r1-{letter}{number}", **fields
    )


def trained(job, **fields):
    run = record("Training", **fields)
    return run_config_map(job, run, progress=TARGET), training_job(job, run, installation=HERE, progress=TARGET)


def test_a_run_on_two_cpu_ranks_with_data_in_a_config_map(golden):
    job = finetunejob(
        datasets=[{"uri": "configmap://rows/train.jsonl"}, {"uri": "pvc://data/more.jsonl"}],
        compute={"gpusPerNode": 0, "processesPerNode": 2, "resources": {"limits": {"cpu": "2", "memory": "6Gi"}}},
        training={"maxSteps": 60, "learningRate": 2e-4, "maxLength": 512},
        evalSplitRatio=0.1,
    )
    golden("cpu", *trained(job, base=ResolvedBase(uri="pvc://models/base", digest="b" * 64)))


def test_a_run_on_gpus_with_everything_set(golden):
    job = finetunejob(**EVERYTHING)
    base = ResolvedBase(uri="hf://org/model", commit="c" * 40, digest="c" * 40)
    golden("gpu", *trained(job, base=base, dataset_commits=["e" * 40, ""], cached=True))


def test_the_preflight_of_that_run(golden):
    job = finetunejob(**EVERYTHING)
    run = record("Preflight", base=ResolvedBase(uri="hf://org/model"))
    golden("preflight", preflight_config_map(job, run), preflight_job(job, run, installation=HERE))


def test_a_run_that_goes_on_from_an_adapter(golden):
    job = finetunejob(base={"fineTuneJobRef": {"name": "first"}})
    base = ResolvedBase(uri="pvc://models/base", adapter="pvc://models/out/first-0123456789ab", digest="b" * 64)
    golden("adapter", *trained(job, base=base))


def test_the_expert_that_is_published(golden):
    publish = {
        "expert": PUBLISH["expert"]
        | {
            "routing": {"domains": ["databases"], "keywords": [{"pattern": "sql"}]},
            "defaults": {"temperature": 0.2},
            "limits": {"timeoutSeconds": 60},
            "access": {"clients": ["web"]},
        },
    }
    job = finetunejob(publish=publish)
    golden("expert", published_expert(job, job.spec.publish.expert))
