"""LargeForge on the cluster that is up: the chart with the images that were built, and a namespace's base model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dev import images
from dev.kubectl import Manifest, apply, describe_pods, get, helm, items, kubectl, wait_for
from dev.paths import CACHE, REPO
from dev.steps import step

RELEASE = "largeforge"
SYSTEM_NAMESPACE = "largeforge-system"
CHART = REPO / "charts" / "largeforge"
ROUTER_SERVICE = "largeforge-router"
TEAM_LABEL = "dev.largeforge.ai/team"
"""Marks the namespaces that this module made; each of them gets a router."""
EXAMPLE = REPO / "examples" / "01-fine-tune"
MODEL_FOLDER = "smollm2-135m-instruct"
"""Where the example expects its base, on the claim of its claims.yaml."""
CLAIM = "models"


def namespace(name: str, *, team: bool) -> Manifest:
    """A namespace that enforces Pod Security *restricted*."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels | ({TEAM_LABEL: "true"} if team else {})},
    }


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of an image reference."""
    repository, _, tag = reference.rpartition(":")
    return repository, tag


def chart_values(references: Mapping[str, str], namespaces: list[str], *, hub: str = "") -> dict[str, Any]:
    """The chart's values for locally built images, with a router on a node port in each of *namespaces*.

    *hub* is the address of a hub; empty: the client's own.
    """

    def image(name: str) -> dict[str, str]:
        repository, tag = split_reference(references[name])
        return {"repository": repository, "tag": tag}

    jobs = {"trainer": "trainer", "engineCpu": "engine-cpu", "quantizer": "quantizer"}
    if "quantizer-autoawq" in references:  # built only where it is asked for
        jobs["quantizerAutoawq"] = "quantizer-autoawq"
    return {
        "imagePullPolicy": "Never",
        "operator": {"image": image("operator")},
        "router": {"image": image("router"), "namespaces": namespaces, "service": {"type": "NodePort"}},
        "images": {value: image(name) for value, name in jobs.items()},
        **({"hub": {"endpoint": hub}} if hub else {}),
    }


def install(team: str, *, hub: str = "") -> None:
    """Install or upgrade the chart, with a router in the namespace *team* and in those of earlier calls."""
    references = images.references()
    with step(f"namespaces {SYSTEM_NAMESPACE} and {team}"):
        apply(namespace(SYSTEM_NAMESPACE, team=False), namespace(team, team=True))
        teams = sorted(item["metadata"]["name"] for item in items("namespaces", selector=TEAM_LABEL))
    values = CACHE / "values.json"
    values.write_text(json.dumps(chart_values(references, teams, hub=hub), indent=2))
    with step("install the chart with helm"):
        helm(
            *("upgrade", "--install", RELEASE, CHART, "--namespace", SYSTEM_NAMESPACE),
            *("--values", values, "--wait", "--timeout", "5m"),
            # Whoever tries things on this cluster applies CRDs and edits objects by hand: the chart wins here.
            *("--take-ownership", "--force-conflicts"),
        )


def copy_job(reference: str) -> Manifest:
    """The Job that copies the demo's base model from its image to the claim; named by the image's content."""
    target = f"/mnt/models/{MODEL_FOLDER}"
    container = {
        "name": "copy",
        "image": reference,
        "imagePullPolicy": "Never",
        "args": [target],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"base-model-{split_reference(reference)[1]}"},
        "spec": {
            "backoffLimit": 3,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 2000,
                        "runAsGroup": 2000,
                        "fsGroup": 2000,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}}],
                }
            },
        },
    }


def provide_model(team: str) -> None:
    """Put SmolLM2-135M-Instruct on the claim `models` of the namespace *team*; nothing is copied twice."""
    job = copy_job(images.references()["demo-model"])
    name = job["metadata"]["name"]
    with step(f"copy the base model to pvc://{CLAIM}/{MODEL_FOLDER}"):
        kubectl("apply", "-f", EXAMPLE / "claims.yaml", namespace=team)
        if get("job", name, namespace=team) is None:
            apply(job, namespace=team)
        wait_for(
            f"job {name}",
            lambda: ((get("job", name, namespace=team) or {}).get("status") or {}).get("succeeded", 0) == 1,
            seconds=180,
            show=lambda: describe_pods(team),
        )


def base_url(team: str) -> str:
    """The router's address on the node, for OpenAI clients."""
    service = get("service", ROUTER_SERVICE, namespace=team) or {}
    port = service["spec"]["ports"][0]["nodePort"]
    addresses = items("nodes")[0]["status"]["addresses"]
    address = next(a["address"] for a in addresses if a["type"] == "InternalIP")
    return f"http://{address}:{port}/v1"


def api_key(team: str) -> str:
    """The key of the client that the chart made."""
    template = "go-template={{range .data}}{{.|base64decode}}{{end}}"
    return kubectl("get", "secret", "largeforge-clients", "-o", template, namespace=team).strip()
