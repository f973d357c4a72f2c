"""The manifests of an InferenceService, as reviewers read them. `make generate` writes them anew."""

from __future__ import annotations

import pytest

from largeforge.resources.engineflags import Source
from largeforge.resources.serving import EngineInstallation, engine_key_secret, serving_deployment, serving_service
from largeforge.resources.servingguards import (
    disruption_budget,
    horizontal_pod_autoscaler,
    network_policy,
    scaled_object,
)
from tests.unit.serving import inferenceservice_of

SERVICES = {
    "cpu": inferenceservice_of(engine={"maxModelLen": 2048}),
    "gpu": inferenceservice_of(
        replicas=2,
        lora=None,
        compute={"gpusPerReplica": 2, "podTemplate": {"runtimeClassName": "nvidia", "nodeSelector": {"gpu": "h100"}}},
        engine={"enablePrefixCaching": True, "gpuMemoryUtilization": 0.9, "extraArgs": {"seed": "7"}},
    ),
    "hub": inferenceservice_of(
        model={
            "uri": "hf://Qwen/Qwen2.5-7B-Instruct",
            "revision": "main",
            "secretRef": {"name": "hub"},
            "tokenizer": "pvc://models/tokenizer",
        },
        servedModelNames=["qwen", "Qwen/Qwen2.5-7B-Instruct"],
        engine={
            "dtype": "bfloat16",
            "kvCacheDtype": "fp8",
            "maxModelLen": 8192,
            "maxNumSeqs": 64,
            "maxNumBatchedTokens": 8192,
            "pipelineParallelSize": 2,
            "enablePrefixCaching": False,
            "enforceEager": True,
            "chatTemplate": "configmap://templates/qwen.jinja",
            "toolCallParser": "hermes",
            "reasoningParser": "qwen3",
            "speculativeConfig": {"method": "eagle3", "model": "pvc://models/draft", "numSpeculativeTokens": 3},
            "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "WARNING"}],
        },
        compute={"gpusPerReplica": 4, "podTemplate": {"volumes": [{"name": "x", "mountPath": "/x", "emptyDir": {}}]}},
        autoscaling={"maxReplicas": 4},
        rollout={"maxSurge": 1},
        drainSeconds=120,
        startup={"timeoutSeconds": 3600},
        cache={"uri": "pvc://cache/engines"},
        networkPolicy={"allowFrom": [{"namespaceLabels": {"team": "monitoring"}, "podLabels": {"app": "prometheus"}}]},
    ),
}


def guards(service):
    """What stands around the engine, with either autoscaler."""
    yield disruption_budget(service)
    yield network_policy(service, operator_namespace="largeforge-system")
    if (scaling := service.spec.autoscaling) is not None:
        yield horizontal_pod_autoscaler(service, scaling)
        yield scaled_object(service, scaling, prometheus="http://prometheus.monitoring:9090")


@pytest.mark.parametrize("name", SERVICES)
def test_manifests(name, golden):
    service, key = SERVICES[name], "0" * 64
    golden(
        name,
        engine_key_secret(service, key=key),
        serving_service(service),
        serving_deployment(
            service,
            Source(service.spec.model.uri, service.spec.model.revision),
            installation=EngineInstallation(f"engine-{name}:1", "IfNotPresent", key, "https://hub.example"),
        ),
        *(m for m in guards(service) if m is not None),
    )
