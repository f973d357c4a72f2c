"""The manifests of an InferenceService, as reviewers read them. `make generate` writes them anew."""

from __future__ import annotations

import pytest

from largeforge.resources.serving import engine_key_secret, serving_deployment, serving_service
from tests.unit.serving import inferenceservice_of

SERVICES = {
    "cpu": inferenceservice_of(engine={"maxModelLen": 2048}),
    "gpu": inferenceservice_of(
        replicas=2,
        lora=None,
        compute={"gpusPerReplica": 2, "podTemplate": {"runtimeClassName": "nvidia", "nodeSelector": {"gpu": "h100"}}},
        engine={"extraArgs": {"enable-prefix-caching": "", "gpu-memory-utilization": "0.9"}},
    ),
}


@pytest.mark.parametrize("name", SERVICES)
def test_manifests(name, golden):
    service, key = SERVICES[name], "0" * 64
    golden(
        name,
        engine_key_secret(service, key=key),
        serving_service(service),
        serving_deployment(service, image=f"engine-{name}:1", pull_policy="IfNotPresent", key=key),
    )
