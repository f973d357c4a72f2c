"""What is killed, deleted or wrong: the chain mends itself, or says what a person has to do."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from dev import demo, training
from dev.ask import ask
from dev.install import SYSTEM_NAMESPACE
from dev.kubectl import Manifest, apply, condition, get, is_true, items, kubectl, wait_for, wait_true
from tests.e2e.chain import Chain

pytestmark = pytest.mark.cluster

OPERATOR = "largeforge-operator"


def example(name: str) -> Manifest:
    return dict(yaml.safe_load((demo.EXAMPLE / name).read_text()))


def engine_pod(namespace: str) -> Manifest:
    selector = f"largeforge.ai/inferenceservice={demo.SERVICE}"
    found = [
        p for p in items("pods", namespace=namespace, selector=selector) if "deletionTimestamp" not in p["metadata"]
    ]
    return found[0]


def until(
    what: str, kind: str, name: str, *, namespace: str, expected: tuple[str, str], seconds: float = 60
) -> Manifest:
    """Wait until a condition has a reason; the object then."""
    kind_of_condition, reason = expected

    def seen() -> bool:
        return condition(get(kind, name, namespace=namespace), kind_of_condition).get("reason") == reason

    wait_for(what, seen, seconds=seconds, show=lambda: json.dumps(get(kind, name, namespace=namespace), indent=2))
    return get(kind, name, namespace=namespace) or {}


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


def test_a_suspended_job_holds_nothing_and_a_bad_row_is_found_when_it_goes_on(chain: Chain, namespace: str):
    rows = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"text": 3}\n'
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad-data"}, "data": {"train.jsonl": rows}}
    job = copy.deepcopy(example("finetunejob.yaml"))
    job["metadata"]["name"] = "bad-rows"
    job["spec"] |= {"suspend": True, "datasets": [{"uri": "configmap://bad-data/train.jsonl"}]}
    del job["spec"]["publish"]
    apply(data, job, namespace=namespace)
    wait_true("finetunejob", "bad-rows", "Suspended", namespace=namespace, seconds=30)
    selector = "largeforge.ai/finetunejob=bad-rows"
    assert items("jobs", namespace=namespace, selector=selector) == []

    kubectl("patch", "finetunejob", "bad-rows", "--type=merge", "-p", '{"spec":{"suspend":false}}', namespace=namespace)
    failed = wait_true("finetunejob", "bad-rows", "Failed", namespace=namespace, seconds=150)
    assert condition(failed, "Failed")["reason"] == "DatasetInvalid"
    assert condition(failed, "DatasetValid")["status"] == "False"
    assert is_true(failed, "Stalled")
    assert failed["status"]["error"]["field"] == "spec.datasets[0].uri"
    assert "configmap://bad-data/train.jsonl" in failed["status"]["error"]["message"]
    assert "line 2" in failed["status"]["error"]["message"]
    assert failed["status"]["run"]["attempt"] == 1
    assert len(items("jobs", namespace=namespace, selector=selector)) == 1
    kubectl("delete", "finetunejob", "bad-rows", "--timeout=30s", namespace=namespace)
    del chain


def test_a_claim_that_is_missing_is_named_before_a_pod_is_made(chain: Chain, namespace: str):
    job = copy.deepcopy(example("finetunejob.yaml"))
    job["metadata"]["name"] = "no-claim"
    job["spec"]["base"]["uri"] = "pvc://nowhere/base"
    del job["spec"]["publish"]
    apply(job, namespace=namespace)
    waiting = until(
        "a condition", "finetunejob", "no-claim", namespace=namespace, expected=("StorageReachable", "StorageNotReady")
    )
    assert "nowhere" in condition(waiting, "StorageReachable")["message"]
    assert items("jobs", namespace=namespace, selector="largeforge.ai/finetunejob=no-claim") == []
    kubectl("delete", "finetunejob", "no-claim", "--timeout=30s", namespace=namespace)
    del chain


def test_a_run_that_wants_a_gpu_where_there_is_none_says_that_it_is_unschedulable(chain: Chain, namespace: str):
    if any(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in items("nodes")):
        pytest.skip("this cluster has GPUs")
    job = copy.deepcopy(example("finetunejob.yaml"))
    job["metadata"]["name"] = "wants-gpu"
    job["spec"]["compute"] = {"gpusPerNode": 1}
    del job["spec"]["publish"]
    apply(job, namespace=namespace)
    waiting = until(
        "a condition", "finetunejob", "wants-gpu", namespace=namespace, expected=("Running", "Unschedulable")
    )
    assert "nvidia.com/gpu" in condition(waiting, "Running")["message"]
    kubectl("delete", "finetunejob", "wants-gpu", "--timeout=30s", namespace=namespace)
    del chain


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
    assert {model.id for model in chain.client.models.list()} == {"auto", demo.FALLBACK, demo.SERVICE}
