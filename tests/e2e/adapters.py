"""Adapters for the tests of Expert: trained on one sentence each, and changed, by a Job on the example's claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dev.install import CLAIM
from dev.kubectl import Manifest, apply, condition, describe_pods, get, items, kubectl, wait_for
from largeforge.api.uri import parse_pvc
from largeforge.resources.pods import pod_security
from tests.e2e.ground import SCRATCH, container

ROOT = "/mnt/claim"
FOLDER = f"pvc://{CLAIM}/uploads"
JOB = "adapters"
SECONDS = 120
"""For a Job that looks, a copy, and a load, on a busy machine."""


def provide(base: str, store: str, *, versions: int, namespace: str) -> dict[str, str]:
    """Make them anew; the digests of the versions in *store*, by their folders' names."""
    kubectl("delete", "job", JOB, "--ignore-not-found", "--wait", namespace=namespace)
    script = Path(__file__).parent / "pods" / "adapters.py"
    data = {script.name: script.read_text()}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": JOB}, "data": data}, namespace=namespace)
    apply(_job([_mounted(base), base, _mounted(FOLDER), _mounted(store), str(versions)]), namespace=namespace)
    wait_for(
        "the adapters",
        lambda: ((get("job", JOB, namespace=namespace) or {}).get("status") or {}).get("succeeded") == 1,
        seconds=420,
        show=lambda: describe_pods(namespace) + kubectl("logs", f"job/{JOB}", namespace=namespace),
    )
    pods = items("pods", namespace=namespace, selector=f"batch.kubernetes.io/job-name={JOB}")
    ended = [p["status"]["containerStatuses"][0]["state"].get("terminated", {}) for p in pods]
    digests: dict[str, str] = json.loads(next(each["message"] for each in ended if each.get("exitCode") == 0))
    return digests


def _mounted(uri: str) -> str:
    return f"{ROOT}/{parse_pvc(uri).path}"


def _job(arguments: list[str]) -> Manifest:
    mounts = [{"name": "claim", "mountPath": ROOT}, {"name": "script", "mountPath": "/script", "readOnly": True}]
    maker = container("make", image="trainer", command=["python", "/script/adapters.py", *arguments], mounts=mounts)
    maker["env"].append({"name": "OMP_WAIT_POLICY", "value": "PASSIVE"})
    maker["resources"] = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [maker],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "script", "configMap": {"name": JOB}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    assert SCRATCH == "/tmp"  # noqa: S108 - what `container` mounts as tmp
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": JOB},
        "spec": {"backoffLimit": 2, "template": {"spec": spec}},
    }


def expert(name: str, uri: str, service: str, **spec: Any) -> Manifest:
    """An Expert of the adapter at *uri*."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": name},
        "spec": {"type": "Adapter", "artifact": {"uri": uri}, "inferenceServiceRef": {"name": service}, **spec},
    }


def until_reason(name: str, reason: str | tuple[str, ...], *, namespace: str, seconds: float = SECONDS) -> str:
    """Wait until Ready has *reason*, or one of them; its message."""
    wanted = (reason,) if isinstance(reason, str) else reason

    def seen() -> Manifest:
        return condition(get("expert", name, namespace=namespace), "Ready")

    wait_for(
        f"{' or '.join(wanted)} of Expert {name}",
        lambda: seen().get("reason") in wanted,
        seconds=seconds,
        show=lambda: tell(name, namespace=namespace),
    )
    return str(seen()["message"])


def tell(name: str, *, namespace: str) -> str:
    """What a person would look at where an Expert does not come."""
    logs = kubectl("logs", "-l", "app.kubernetes.io/component=operator", "--tail=30", namespace="largeforge-system")
    return "\n".join(
        [json.dumps(get("expert", name, namespace=namespace), indent=1), describe_pods(namespace), "operator:", logs]
    )


def remove(*names: str, namespace: str) -> None:
    """Delete Experts, and wait until they are gone."""
    kubectl("delete", "expert", *names, "--ignore-not-found", "--wait", "--timeout=90s", namespace=namespace)
