"""The objects of a run, as files; `make generate` writes them anew."""

from __future__ import annotations

from largeforge.api.finetunejob import RunRecord
from largeforge.resources.publishing import published_expert
from largeforge.resources.training import run_config_map, training_job
from tests.unit.training import PUBLISH, finetunejob

RUN = RunRecord(number=1, attempt=2, digest="d" * 64, job_name="sql-r1-a2")


def objects(job):
    return run_config_map(job, RUN), training_job(job, RUN, image="trainer:1", pull_policy="IfNotPresent")


def test_a_run_on_two_cpu_ranks_with_data_in_a_config_map(golden):
    job = finetunejob(
        datasets=[{"uri": "configmap://rows/train.jsonl"}, {"uri": "pvc://data/more.jsonl"}],
        compute={"gpusPerNode": 0, "processesPerNode": 2, "resources": {"limits": {"cpu": "2", "memory": "6Gi"}}},
        training={"maxSteps": 60, "learningRate": 2e-4, "maxLength": 512},
        evalSplitRatio=0.1,
    )
    golden("cpu", *objects(job))


def test_a_run_on_gpus_with_everything_set(golden):
    job = finetunejob(
        base={"uri": "pvc://models"},
        peft={"type": "LoRA", "r": 8, "targetModules": ["q_proj"]},
        compute={
            "gpusPerNode": 2,
            "podTemplate": {
                "labels": {"team": "search", "largeforge.ai/run": "9", "app.kubernetes.io/managed-by": "me"},
                "nodeSelector": {"gpu": "a100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
                "runtimeClassName": "nvidia",
                "priorityClassName": "batch",
                "env": [
                    {"name": "NCCL_DEBUG", "value": "WARN"},
                    {"name": "HF_HUB_OFFLINE", "value": "0"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
                ],
            },
        },
    )
    golden("gpu", *objects(job))


def test_the_expert_that_is_published(golden):
    publish = {
        "expert": PUBLISH["expert"] | {"routing": {"domains": ["databases"], "keywords": [{"pattern": "sql"}]}},
    }
    job = finetunejob(publish=publish)
    golden("expert", published_expert(job, job.spec.publish.expert))
