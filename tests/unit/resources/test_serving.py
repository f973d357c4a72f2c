from __future__ import annotations

import json

import pytest

from largeforge.api.uri import parse_pvc
from largeforge.resources.drift import covers
from largeforge.resources.engineflags import Source
from largeforge.resources.engineflags import engine_command as command_of
from largeforge.resources.serving import (
    EngineInstallation,
    adapter_path,
    engine_key_secret,
    serving_service,
)
from largeforge.resources.serving import serving_deployment as deployment_of
from tests.unit.serving import inferenceservice_of

KEY = "k" * 64
ENGINE = EngineInstallation("engine:1", "IfNotPresent", KEY, "https://hub.example")


def serving_deployment(service):
    return deployment_of(service, source(service), installation=ENGINE)


def engine_command(service):
    return command_of(service, source(service))


def source(service):
    return Source(service.spec.model.uri, service.spec.model.revision)


def container(service):
    return serving_deployment(service)["spec"]["template"]["spec"]["containers"][0]


def environment(service):
    return {e["name"]: e.get("value") for e in container(service)["env"]}


def test_flags_of_the_user_come_first_so_that_ours_hold():
    service = inferenceservice_of(
        engine={"maxModelLen": 2048, "enforceEager": True, "extraArgs": {"seed": "8", "async-scheduling": ""}}
    )
    assert engine_command(service) == [
        "python3",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--async-scheduling",
        "--seed=8",
        "--model=/mnt/model",
        "--served-model-name=smol",
        "--port=8000",
        "--load-format=safetensors",
        "--max-model-len=2048",
        "--enforce-eager",
        "--enable-lora",
        "--max-loras=2",
        "--max-lora-rank=64",
        "--max-cpu-loras=3",
        "--shutdown-timeout=50",
        "--disable-access-log-for-endpoints=/health,/metrics",
    ]


def test_a_value_that_looks_like_a_flag_stays_a_value():
    service = inferenceservice_of(engine={"extraArgs": {"block-size": "--api-key=x; rm -rf /"}})
    assert engine_command(service)[3] == "--block-size=--api-key=x; rm -rf /"


def test_a_value_that_names_a_variable_stays_as_it_is_written():
    service = inferenceservice_of(engine={"extraArgs": {"response-role": "$(VLLM_API_KEY)$$(x)"}})
    assert "--response-role=$$(VLLM_API_KEY)$$$$(x)" in engine_command(service), "the kubelet reads $$ as $"


def test_adapters_can_be_loaded_only_where_there_is_a_store():
    assert environment(inferenceservice_of())["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    without = inferenceservice_of(lora=None)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment(without)
    assert not any("lora" in flag for flag in engine_command(without))
    assert "/mnt/adapters" not in {m["mountPath"] for m in container(without)["volumeMounts"]}


def test_gpus_set_the_tensor_parallel_size_and_their_resource():
    service = inferenceservice_of(compute={"gpusPerReplica": 2})
    assert "--tensor-parallel-size=2" in engine_command(service)
    assert container(service)["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(service)
    assert not container(service)["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize(("memory", "space"), [("4Gi", "1"), ("8Gi", "2"), ("20Gi", "5"), ("512Mi", "1")])
def test_a_quarter_of_the_memory_is_kv_cache_on_a_cpu(memory, space):
    service = inferenceservice_of(compute={"gpusPerReplica": 0, "resources": {"limits": {"memory": memory}}})
    assert environment(service)["VLLM_CPU_KVCACHE_SPACE"] == space


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "1", "memory": "6Gi"}, {"cpu": "2", "memory": "6Gi"}),
        ({"limits": {"cpu": "2"}}, {"cpu": "2", "memory": "6Gi"}, {"cpu": "2", "memory": "6Gi"}),
        (
            {"requests": {"cpu": "500m", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "5Gi"}},
            {"cpu": "500m", "memory": "4Gi"},
            {"cpu": "2", "memory": "5Gi"},
        ),
        ({"requests": {"cpu": "500m"}}, {"cpu": "500m", "memory": "6Gi"}, {"cpu": "2", "memory": "6Gi"}),
        ({"requests": {"memory": "8Gi"}}, {"cpu": "1", "memory": "8Gi"}, {"cpu": "2", "memory": "8Gi"}),
    ],
)
def test_requests_and_limits_are_always_both_set(given, requests, limits):
    service = inferenceservice_of(compute={"gpusPerReplica": 0, "resources": given})
    assert container(service)["resources"] == {"requests": requests, "limits": limits}


def test_the_overlay_places_the_pod_and_can_loosen_nothing():
    overlay = {
        "labels": {"team": "a", "largeforge.ai/inferenceservice": "other"},
        "nodeSelector": {"disk": "ssd"},
        "env": [{"name": "TZ", "value": "UTC"}, {"name": "HF_HUB_OFFLINE", "value": "0"}],
        "securityContext": {"runAsUser": 0},
    }
    service = inferenceservice_of(compute={"gpusPerReplica": 0, "podTemplate": overlay})
    template = serving_deployment(service)["spec"]["template"]
    assert template["metadata"]["labels"]["largeforge.ai/inferenceservice"] == "smol"
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert template["spec"]["securityContext"]["runAsUser"] == 2000
    assert (environment(service)["TZ"], environment(service)["HF_HUB_OFFLINE"]) == ("UTC", "1")


def test_a_field_that_is_no_longer_set_is_seen_as_drift():
    overlay = {"nodeSelector": {"disk": "ssd"}}
    before = serving_deployment(inferenceservice_of(compute={"gpusPerReplica": 0, "podTemplate": overlay}))
    after = serving_deployment(inferenceservice_of())
    assert covers(before, before)
    assert not covers(before, after)
    service = inferenceservice_of(service={"annotations": {"lb": "internal"}})
    assert not covers(serving_service(service), serving_service(inferenceservice_of()))


def test_building_twice_gives_the_same_text():
    assert json.dumps(serving_deployment(inferenceservice_of())) == json.dumps(
        serving_deployment(inferenceservice_of())
    )


def test_the_key_is_in_the_secret_and_nowhere_else():
    service = inferenceservice_of()
    secret = engine_key_secret(service, key=KEY)
    deployment = serving_deployment(service)
    assert secret["stringData"] == {"key": KEY}
    assert KEY not in json.dumps(deployment)
    assert KEY not in secret["metadata"]["name"]
    reference = next(e for e in container(service)["env"] if e["name"] == "VLLM_API_KEY")["valueFrom"]["secretKeyRef"]
    assert reference == {"name": secret["metadata"]["name"], "key": "key"}


@pytest.mark.parametrize(
    ("store", "artifact", "path"),
    [
        ("pvc://models/out", "pvc://models/out/sql-1", "/mnt/adapters/sql-1"),
        ("pvc://models", "pvc://models/out/sql-1", "/mnt/adapters/out/sql-1"),
        ("pvc://models/out", "pvc://models/output/sql-1", None),
        ("pvc://models/out", "pvc://others/out/sql-1", None),
        ("pvc://models/out", "pvc://models/out", None),
    ],
)
def test_an_adapter_lies_in_the_store_or_nowhere(store, artifact, path):
    assert adapter_path(parse_pvc(store), parse_pvc(artifact)) == path


@pytest.mark.parametrize(("cpu", "threads"), [("500m", "1"), ("3", "3"), ("2500m", "2")])
def test_threads_follow_the_cpu_limit(cpu, threads):
    service = inferenceservice_of(compute={"gpusPerReplica": 0, "resources": {"limits": {"cpu": cpu}}})
    assert environment(service)["OMP_NUM_THREADS"] == threads
