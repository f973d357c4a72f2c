"""What the tests of FineTuneJob stand on: a namespace, a claim with a small model, rows, and a hub in the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dev import images
from dev.install import namespace
from dev.kubectl import Manifest, apply, get, kubectl, wait_for
from dev.testing import HUB, RUNS_NAMESPACE
from largeforge.api.uri import parse_pvc
from largeforge.resources.pods import container_security, pod_security
from tests.e2e.pods.provide import TOKEN
from tests.e2e.story import tell

CLAIM = "runs"
ROOT = "/mnt/runs"
"""Where the pods of this module have the claim."""
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of each pod
ROWS = "configmap://rows/train.jsonl"
LONG_ROWS = "configmap://rows/long.jsonl"
BAD_ROWS = "configmap://rows/bad.jsonl"
SECRET, WRONG_SECRET = "hub-token", "hub-wrong-token"
BAD_LINE = 7
HERE = Path(__file__).parent


def provide() -> None:
    """Make all of it anew; what earlier tests left on the claim is removed."""
    apply(namespace(RUNS_NAMESPACE, team=False))
    for kind in ("finetunejobs", "experts"):
        kubectl("delete", kind, "--all", "--wait", "--timeout=120s", namespace=RUNS_NAMESPACE)
    kubectl("delete", "job/provide", "deployment/hub", "--ignore-not-found", "--wait", namespace=RUNS_NAMESPACE)
    kubectl("delete", "pods", "--all", "--wait", "--timeout=120s", namespace=RUNS_NAMESPACE)
    apply(claim(), rows(), scripts(), secret(SECRET, TOKEN), secret(WRONG_SECRET, "wrong"), namespace=RUNS_NAMESPACE)
    apply(provider(), namespace=RUNS_NAMESPACE)
    wait_for(
        "the small model",
        lambda: ((get("job", "provide", namespace=RUNS_NAMESPACE) or {}).get("status") or {}).get("succeeded") == 1,
        seconds=240,
        show=lambda: tell(RUNS_NAMESPACE),
    )
    apply(*hub(), namespace=RUNS_NAMESPACE)
    kubectl("rollout", "status", "deployment/hub", "--timeout=120s", namespace=RUNS_NAMESPACE)


def claim() -> Manifest:
    """One claim for all: base, outputs, cache, and the hub's repositories."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }


def conversation(question: str, answer: str) -> dict[str, Any]:
    """A row of format Messages."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rows() -> Manifest:
    """Rows that are right, rows of 500 tokens, and rows of which one is wrong."""
    right = [conversation(f"What comes after {i}?", f"After {i} comes {i + 1}.") for i in range(64)]
    long = [conversation(f"Say {i} again and again.", f"{i} and " * 250) for i in range(256)]
    bad = [*right[: BAD_LINE - 1], {"messages": [{"role": "narrator", "content": "It was a dark night."}]}, *right[7:]]
    files = {"train.jsonl": right, "long.jsonl": long, "bad.jsonl": bad}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "rows"},
        "data": {name: "".join(json.dumps(row) + "\n" for row in content) for name, content in files.items()},
    }


def scripts() -> Manifest:
    """The programs of the pods below."""
    files = (
        HERE / "pods" / "provide.py",
        HERE / "pods" / "compare.py",
        HERE / "pods" / "losses.py",
        HERE.parent / "hub.py",
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "scripts"},
        "data": {path.name: path.read_text() for path in files},
    }


def secret(name: str, token: str) -> Manifest:
    """A Secret with a token for the hub."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}}


def provider() -> Manifest:
    """The Job that makes the small model; its tokenizer is that of the demo's model, which lies in an image."""
    base = {"name": "base", "mountPath": "/mnt/base"}
    fetch = container("fetch", image="demo-model", args=["/mnt/base/model"], mounts=[base])
    make = container(
        "make",
        image="trainer",
        command=["python", "/scripts/provide.py", ROOT, "/mnt/base/model", "/rows/train.jsonl"],
        mounts=[base, claim_mount(), scripts_mount(), rows_mount()],
    )
    template = pod_template([make], init=[fetch], volumes=[{"name": "base", "emptyDir": {}}])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "provide"},
        "spec": {"backoffLimit": 2, "template": template},
    }


def hub() -> list[Manifest]:
    """The hub, and an address for it; the tests read the claim's files through its pod."""
    server = container(
        "hub",
        image="trainer",
        command=["python", "/scripts/hub.py", "--root", f"{ROOT}/hub", "--port", "8080"],
        mounts=[claim_mount(), scripts_mount()],
    )
    server["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    labels = {"app": "hub"}
    template = pod_template([server])
    template["metadata"] = {"labels": labels}
    template["spec"]["restartPolicy"] = "Always"
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "hub"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": HUB.partition(".")[0]},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return [deployment, service]


def container(name: str, *, image: str, mounts: list[Manifest], **more: Any) -> Manifest:
    """A restricted container of an image of ours."""
    return {
        "name": name,
        "image": images.references()[image],
        "imagePullPolicy": "Never",
        "env": [{"name": "HOME", "value": SCRATCH}],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}},
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": SCRATCH}],
        **more,
    }


def pod_template(
    containers: list[Manifest], *, init: list[Manifest] | None = None, volumes: list[Manifest] | None = None
) -> Manifest:
    """A restricted pod with the claim, the rows and the scripts."""
    return {
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": 1,
            "initContainers": init or [],
            "containers": containers,
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}},
                {"name": "scripts", "configMap": {"name": "scripts"}},
                {"name": "rows", "configMap": {"name": "rows"}},
                {"name": "tmp", "emptyDir": {}},
                *(volumes or []),
            ],
        }
    }


def claim_mount() -> Manifest:
    """All of the claim, at `ROOT`."""
    return {"name": "claim", "mountPath": ROOT}


def scripts_mount() -> Manifest:
    """The programs, at `/scripts`."""
    return _mount("scripts")


def rows_mount() -> Manifest:
    """The rows, at `/rows`."""
    return _mount("rows")


def _mount(name: str) -> Manifest:
    return {"name": name, "mountPath": f"/{name}", "readOnly": True}


def mounted(uri: str) -> str:
    """Where the pods of this module find what lies at *uri*."""
    return f"{ROOT}/{parse_pvc(uri).path}"


def read(uri: str) -> str:
    """The text of a file on the claim, `pvc://runs/...`."""
    return kubectl("exec", "deployment/hub", "--", "cat", mounted(uri), namespace=RUNS_NAMESPACE)


def names(uri: str) -> set[str]:
    """The entries of a folder on the claim, hidden ones too."""
    return set(kubectl("exec", "deployment/hub", "--", "ls", "-A", mounted(uri), namespace=RUNS_NAMESPACE).split())


def asked_of_hub() -> list[str]:
    """What was asked of the hub so far, `GET /api/models/...`."""
    call = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/requests').read().decode())"
    found: list[str] = json.loads(
        kubectl("exec", "deployment/hub", "--", "python", "-c", call, namespace=RUNS_NAMESPACE)
    )
    return found
