"""Programs that run in an image of ours, in a Job, and say one line of JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dev import images
from dev.kubectl import Manifest, apply, get, kubectl, wait_for
from largeforge.api.uri import parse_pvc
from largeforge.resources.pods import container_security, pod_security
from tests.e2e.story import tell

PODS = Path(__file__).parent / "pods"
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod
CLAIM_PATH = "/mnt/claim"


def names_in(uri: str, *, namespace: str) -> list[str]:
    """The entries of a folder on a claim, hidden ones too."""
    folder = parse_pvc(uri)
    command = ("listing.py", f"{CLAIM_PATH}/{folder.path}")
    found: list[str] = said_in("trainer", *command, namespace=namespace, claim=folder.claim)
    return found


def said_in(image: str, script: str, *arguments: str, namespace: str, claim: str = "", seconds: float = 300) -> Any:
    """The JSON that the program *script* of `pods/` prints in *image*; it may read *claim*, at `CLAIM_PATH`."""
    name = f"says-{Path(script).stem}"
    kubectl("delete", "job", name, "--ignore-not-found", "--wait", namespace=namespace)
    content = {script: (PODS / script).read_text()}
    scripts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}
    container: Manifest = {
        "name": name,
        "image": images.references()[image],
        "imagePullPolicy": "Never",
        "command": ["python", f"/scripts/{script}", *arguments],
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}, {"name": "tmp", "mountPath": SCRATCH}],
    }
    volumes: list[Manifest] = [{"name": "scripts", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}]
    if claim:
        container["volumeMounts"].append({"name": "claim", "mountPath": CLAIM_PATH, "readOnly": True})
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim}})
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    apply(scripts, {**job, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}, namespace=namespace)
    wait_for(
        f"job {name}",
        lambda: ((get("job", name, namespace=namespace) or {}).get("status") or {}).get("succeeded") == 1,
        seconds=seconds,
        show=lambda: tell(namespace),
    )
    return last_json(kubectl("logs", f"job/{name}", namespace=namespace))


def last_json(log: str) -> Any:
    """The last line that is a JSON object or list: what a library writes to standard error may come after it."""
    for line in reversed(log.splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict | list):
                return found
    raise AssertionError(f"no line of JSON in:\n{log}")
