"""What is killed, deleted or wrong: the chain mends itself, or says what a person has to do."""

from __future__ import annotations

import json

import pytest

from dev import demo, training
from dev.ask import ask
from dev.install import SYSTEM_NAMESPACE
from dev.kubectl import Manifest, get, is_true, items, kubectl, wait_for, wait_true
from tests.e2e.chain import Chain

pytestmark = pytest.mark.cluster

OPERATOR = "largeforge-operator"


def engine_pod(namespace: str) -> Manifest:
    selector = f"largeforge.ai/inferenceservice={demo.SERVICE}"
    found = [
        p for p in items("pods", namespace=namespace, selector=selector) if "deletionTimestamp" not in p["metadata"]
    ]
    return found[0]


def test_an_operator_that_restarts_changes_nothing(chain: Chain, namespace: str):
    jobs = {item["metadata"]["uid"] for item in items("jobs", namespace=namespace)}
    versions = {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"]
        for kind in ("finetunejobs", "inferenceservices", "experts", "deployments", "services")
        for item in items(kind, namespace=namespace)
    }
    kubectl(
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/component=operator",
        "--grace-period=0",
        "--force",
        namespace=SYSTEM_NAMESPACE,
    )
    kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=90s", namespace=SYSTEM_NAMESPACE)
    kubectl("annotate", "finetunejob", demo.JOB, "seen=again", "--overwrite", namespace=namespace)
    assert {item["metadata"]["uid"] for item in items("jobs", namespace=namespace)} == jobs
    after = {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"]
        for kind in ("inferenceservices", "experts", "deployments", "services")
        for item in items(kind, namespace=namespace)
    }
    assert {name: version for name, version in versions.items() if name != demo.JOB} == after
    del chain


def test_an_adapter_is_loaded_again_by_a_new_engine(chain: Chain, namespace: str):
    old = engine_pod(namespace)["metadata"]["uid"]
    kubectl(
        "delete", "pod", "-l", f"largeforge.ai/inferenceservice={demo.SERVICE}", "--wait=false", namespace=namespace
    )

    def moved() -> bool:
        expert = get("expert", demo.EXPERT, namespace=namespace) or {}
        loaded = [pod["uid"] for pod in expert["status"]["placement"]["pods"] if pod["loaded"]]
        return is_true(expert, "Ready") and bool(loaded) and old not in loaded

    wait_for(
        "the adapter on the new engine",
        moved,
        seconds=180,
        show=lambda: json.dumps(get("expert", demo.EXPERT, namespace=namespace), indent=2),
    )
    wait_true("expert", demo.FALLBACK, "Ready", namespace=namespace, seconds=60)
    wait_for(
        "an answer of the expert",
        lambda: demo.SIGNATURE in ask(chain.client, demo.EXPERT_QUESTION, model=demo.EXPERT, show=False).text,
        seconds=30,
        show=lambda: kubectl("get", "experts", "-o", "wide", namespace=namespace),
    )


def test_a_job_that_is_deleted_and_made_again_takes_over_what_it_wrote(chain: Chain, namespace: str):
    kubectl("delete", "finetunejob", demo.JOB, "--timeout=30s", namespace=namespace)
    assert is_true(get("expert", demo.EXPERT, namespace=namespace), "Ready"), "a served expert outlives its job"
    kubectl("apply", "-f", demo.EXAMPLE / "finetunejob.yaml", namespace=namespace)
    again = training.watch(demo.JOB, namespace=namespace, seconds=240)
    assert again["status"]["artifact"] == chain.job["status"]["artifact"]
    assert is_true(get("expert", demo.EXPERT, namespace=namespace), "Ready")


def test_everything_can_be_deleted_while_the_operator_is_down_and_is_unloaded_when_it_is_back(
    chain: Chain, namespace: str
):
    before = {model.id for model in chain.client.models.list()}
    kubectl("scale", f"deployment/{OPERATOR}", "--replicas=0", namespace=SYSTEM_NAMESPACE)
    try:
        kubectl(
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/component=operator",
            "--timeout=60s",
            namespace=SYSTEM_NAMESPACE,
        )
        kubectl("delete", "expert", demo.EXPERT, "--timeout=10s", namespace=namespace)
        kubectl("delete", "finetunejob", demo.JOB, "--timeout=10s", namespace=namespace)
    finally:
        kubectl("scale", f"deployment/{OPERATOR}", "--replicas=1", namespace=SYSTEM_NAMESPACE)
    kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=90s", namespace=SYSTEM_NAMESPACE)

    def unloaded() -> bool:
        service = get("inferenceservice", demo.SERVICE, namespace=namespace) or {}
        return not service["status"].get("adapters")

    wait_for(
        "the adapter to be unloaded",
        unloaded,
        seconds=60,
        show=lambda: json.dumps(get("inferenceservice", demo.SERVICE, namespace=namespace), indent=2),
    )
    assert demo.EXPERT in before
    assert {model.id for model in chain.client.models.list()} == before - {demo.EXPERT}
