from __future__ import annotations

import json

import pytest

from largeforge.api.finetunejob import RunRecord
from largeforge.api.run import RunConfig
from largeforge.resources.training import run_config, run_config_map, training_job
from tests.unit.training import finetunejob

RUN = RunRecord(number=3, attempt=1, digest="d" * 64, job_name="sql-r3-a1")


def pod_of(job):
    return training_job(job, RUN, image="trainer:1", pull_policy="Always")["spec"]["template"]["spec"]


def test_the_config_map_is_read_back_as_it_was():
    job = finetunejob(training={"learningRate": 2e-4})
    text = run_config_map(job, RUN)["data"]["config.json"]
    assert RunConfig.model_validate_json(text) == run_config(job, RUN)
    assert json.loads(text)["training"]["learningRate"] == 0.0002


def test_files_are_where_the_mounts_are():
    job = finetunejob(datasets=[{"uri": "pvc://data/a/b/rows.jsonl"}, {"uri": "pvc://data/x.jsonl"}])
    assert [d.path for d in run_config(job, RUN).datasets] == ["/mnt/datasets/0/rows.jsonl", "/mnt/datasets/1/x.jsonl"]
    mounts = {m["mountPath"]: m for m in pod_of(job)["containers"][0]["volumeMounts"]}
    assert mounts["/mnt/datasets/0"]["subPath"] == "a/b"
    assert "subPath" not in mounts["/mnt/datasets/1"]


def test_only_the_output_and_scratch_can_be_written():
    mounts = pod_of(finetunejob())["containers"][0]["volumeMounts"]
    assert {m["mountPath"] for m in mounts if not m.get("readOnly")} == {"/mnt/output", "/tmp", "/dev/shm"}  # noqa: S108


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_pod_is_restricted(gpus):
    pod = pod_of(finetunejob(compute={"gpusPerNode": gpus}))
    security = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 2000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "1", "memory": "4Gi"}, {"cpu": "1", "memory": "4Gi"}),
        ({"limits": {"memory": "2Gi"}}, {"cpu": "1", "memory": "2Gi"}, {"cpu": "1", "memory": "2Gi"}),
        ({"requests": {"memory": "9Gi"}}, {"cpu": "1", "memory": "9Gi"}, {"cpu": "1", "memory": "9Gi"}),
        (
            {"requests": {"cpu": "500m"}, "limits": {"memory": "8Gi"}},
            {"cpu": "500m", "memory": "8Gi"},
            {"cpu": "1", "memory": "8Gi"},
        ),
    ],
)
def test_requests_and_limits_are_always_there_and_never_cross(given, requests, limits):
    resources = pod_of(finetunejob(compute={"gpusPerNode": 0, "resources": given}))["containers"][0]["resources"]
    assert resources == {"requests": requests, "limits": limits}


def test_gpus_are_requested_by_their_resource():
    job = finetunejob(compute={"gpusPerNode": 4, "gpuResource": "amd.com/gpu"})
    resources = pod_of(job)["containers"][0]["resources"]
    assert resources["limits"]["amd.com/gpu"] == resources["requests"]["amd.com/gpu"] == "4"


def test_the_longest_names_fit():
    job = finetunejob(name="a" * 40)
    name = training_job(job, RunRecord(number=99999, attempt=99999, digest=""), image="i", pull_policy="Never")
    assert len(name["metadata"]["name"]) <= 63
