"""A base from the tests' hub, served from the cache: part of `make test-long`, since it takes an engine of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.kubectl import apply, get, items, kubectl, wait_for, wait_true
from dev.testing import RUNS_NAMESPACE
from tests.e2e.ground import CLAIM, SECRET, asked_of_hub, names
from tests.e2e.story import tell

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NAME = "from-hub"
CACHE = f"pvc://{CLAIM}/engine-cache"


@pytest.fixture
def service(ground: None) -> Iterator[str]:
    spec = {
        "model": {"uri": "hf://tests/served", "secretRef": {"name": SECRET}},
        "engine": {"maxModelLen": 512, "enforceEager": True},
        "compute": {
            "gpusPerReplica": 0,
            "resources": {"requests": {"cpu": "250m", "memory": "2Gi"}, "limits": {"memory": "6Gi"}},
        },
        "cache": {"uri": CACHE},
    }
    kind = {"apiVersion": "largeforge.ai/v1alpha1", "kind": "InferenceService", "metadata": {"name": NAME}}
    apply(kind | {"spec": spec}, namespace=RUNS_NAMESPACE)
    yield NAME
    kubectl("delete", "inferenceservice", NAME, "--wait=false", namespace=RUNS_NAMESPACE)
    del ground


def test_a_base_of_the_hub_is_read_once_and_served_from_the_cache_without_a_question(service: str):
    found = wait_true("inferenceservice", service, "Ready", namespace=RUNS_NAMESPACE, seconds=400)
    model = found["status"]["model"]
    assert len(model["commit"]) == 40
    assert model["architecture"] == "LlamaForCausalLM"
    asked = len(asked_of_hub())
    assert "models--tests--served" in names(CACHE)
    (pod,) = items("pods", namespace=RUNS_NAMESPACE, selector=f"largeforge.ai/inferenceservice={service}")
    engine = pod["spec"]["containers"][0]
    assert f"--revision={model['commit']}" in engine["command"]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in engine["env"]
    kubectl("delete", "pod", pod["metadata"]["name"], "--wait", namespace=RUNS_NAMESPACE)
    wait_for(
        "an answer of the next pod",
        lambda: bool(proven(service) - {pod["metadata"]["name"]}),
        seconds=400,
        show=lambda: tell(RUNS_NAMESPACE),
    )
    assert (get("inferenceservice", service, namespace=RUNS_NAMESPACE) or {})["status"]["model"] == model
    assert len(asked_of_hub()) == asked


def proven(service: str) -> set[str]:
    found = get("inferenceservice", service, namespace=RUNS_NAMESPACE) or {}
    return {pod["name"] for pod in found["status"]["pods"] if pod["proven"]}
