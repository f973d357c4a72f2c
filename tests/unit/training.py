"""FineTuneJobs, their Jobs and pods, as tests need them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from largeforge.api.finetunejob import FineTuneJob
from largeforge.controllers.settings import Settings

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings(
    trainer_image="trainer:1",
    engine_image="engine:1",
    engine_cpu_image="engine-cpu:1",
    quantizer_image="quantizer:1",
    quantizer_autoawq_image="quantizer-autoawq:1",
)
DIGEST = "d" * 64
ARTIFACT = {
    "kind": "Adapter",
    "uri": "pvc://models/out/sql-0123456789ab",
    "digest": "a" * 64,
    "sizeBytes": 1000,
    "rank": 16,
    "base": "pvc://models/base",
}


def manifest(*, name="sql", generation=1, labels=None, **spec):
    """A FineTuneJob as the API server hands it out; *spec* is laid over a small one."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": "uid-of-sql",
            "generation": generation,
            "resourceVersion": "1",
            "labels": labels or {},
        },
        "spec": {
            "method": "SFT",
            "base": {"uri": "pvc://models/base"},
            "datasets": [{"uri": "pvc://data/rows/train.jsonl"}],
            "compute": {"gpusPerNode": 0},
            "output": {"uri": "pvc://models/out"},
        }
        | spec,
    }


def finetunejob(*, status=None, **spec):
    return FineTuneJob.model_validate(manifest(**spec) | ({"status": status} if status else {}))


PUBLISH = {"expert": {"name": "sql", "inferenceServiceRef": {"name": "qwen"}, "version": "1.0.0"}}


def claim(name, *, phase="Bound", mode="ReadWriteMany"):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"accessModes": [mode]},
        "status": {"phase": phase},
    }


def user_pod(name, claim_name, *, node="node-1", phase="Running"):
    """A pod of somebody else that uses a claim."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"nodeName": node, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]},
        "status": {"phase": phase},
    }


BOUND = "b" * 64
"""The digest of the base's weights, as preflight finds it."""


def passed(*, digest=DIGEST, **fields):
    """What a preflight that found nothing wrong leaves as its termination message."""
    return json.dumps(
        {
            "outcome": "Succeeded",
            "stage": "Preflight",
            "runDigest": digest,
            "dataset": {"digest": "e" * 64, "samples": 190, "evalSamples": 10},
            "sources": {"baseDigest": BOUND, "datasetCommits": [""]},
        }
        | fields
    )


def result(*, digest=DIGEST, **fields):
    """What a run leaves as its termination message."""
    return json.dumps(
        {
            "outcome": "Succeeded",
            "runDigest": digest,
            "artifact": ARTIFACT,
            "dataset": {"digest": "e" * 64, "samples": 190, "evalSamples": 10},
            "metrics": [{"name": "train_loss", "value": "1.5"}, {"name": "eval_loss", "value": "1.2"}],
            "facts": {"strategy": "DDP", "precision": "FP32", "ranks": 2, "versions": []},
        }
        | fields
    )


def failure(reason, message, field=None, *, digest=DIGEST, **fields):
    error = {"reason": reason, "message": message} | ({"field": field} if field else {})
    return json.dumps({"outcome": "Failed", "runDigest": digest, "error": error} | fields)


def checkpoint(step, *, resumes=0):
    return {"step": step, "uri": f"pvc://models/out/.sql-checkpoints/checkpoint-{step}", "resumes": resumes}


def finished(job, kind, *, message="", time="2026-11-25T12:00:00Z"):
    """*job* (a batch Job) once its controller says that it is Complete or Failed."""
    condition = {"type": kind, "status": "True", "lastTransitionTime": time, "message": message, "reason": "X"}
    return job | {"status": {"conditions": [condition]}}


def pod(job, *, code=None, message="", phase="Running", waiting=None, conditions=(), seconds=60, node="node-1"):
    """The pod of *job*: running, waiting, or ended with *code* and a termination message *seconds* after its start."""
    started = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"running": {"startedAt": started}}
    if waiting:
        state, phase = {"waiting": waiting}, "Pending"
    if code is not None:
        finished_at = (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        state = {"terminated": {"exitCode": code, "message": message, "startedAt": started, "finishedAt": finished_at}}
        phase = "Failed" if code else "Succeeded"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-0-abcde",
            "namespace": job["metadata"]["namespace"],
            "uid": f"uid-of-the-pod-of-{job['metadata']['name']}",
            "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": job["metadata"]["name"],
                    "uid": job["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {"nodeName": node},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": [{"name": "trainer", "image": "trainer:1", "state": state}],
        },
    }
