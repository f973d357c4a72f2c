"""The objects of an InferenceService: the engine's Deployment, its Service, and the Secret with its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import API_VERSION, INFERENCESERVICE_LABEL, TEMPLATE_DIGEST
from largeforge.api.uri import PvcUri
from largeforge.resources.engineflags import ENGINE_PORT, Source, engine_command
from largeforge.resources.enginepod import (
    KEY_ENTRY,
    STORE_PATH,
    amounts,
    engine_environment,
    engine_volumes,
    probes,
)
from largeforge.resources.labels import common_labels
from largeforge.resources.names import engine_key_secret_name, engine_name
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import (
    container_security,
    overlay_env,
    overlay_labels,
    overlay_spec,
    pod_security,
)
from largeforge.resources.proxy import Proxy

Manifest = dict[str, Any]

CONTAINER = "engine"
PRE_STOP_SECONDS = 5
"""Routers and kube-proxy learn meanwhile that the pod goes; no request that is still sent to it is refused."""
ENDING_SECONDS = 5
"""What the processes have to end, once no request is under way."""


@dataclass(frozen=True, slots=True)
class EngineInstallation:
    """What the operator decides of an engine, beside its object."""

    image: str
    pull_policy: str
    key: str
    """The engine's key: its Secret's name follows from it."""
    hub_endpoint: str | None = None
    """The hub's address; None for the client's own."""
    proxy: Proxy | None = None
    """Through which it downloads."""


def serving_deployment(service: InferenceService, source: Source, *, installation: EngineInstallation) -> Manifest:
    """The Deployment of *service*'s engine; without `replicas` where an autoscaler sets them."""
    spec = service.spec
    name = service.metadata.name
    replicas = service.desired_replicas
    surge = {"maxSurge": spec.rollout.max_surge, "maxUnavailable": spec.rollout.missing}
    return signed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": child_metadata(service, engine_name(name)),
            "spec": {
                **({} if replicas is None else {"replicas": replicas}),
                "selector": {"matchLabels": selector(service)},
                # By default no surge: such a pod would wait for a GPU, or for gigabytes, that the old one holds.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
                "progressDeadlineSeconds": spec.startup.timeout_seconds + 60,
                "revisionHistoryLimit": 2,
                "template": _template(service, source, installation),
            },
        }
    )


def _template(service: InferenceService, source: Source, installation: EngineInstallation) -> Manifest:
    overlay = service.spec.compute.pod_template
    volumes, mounts = engine_volumes(service, source)
    return {
        "metadata": {"labels": overlay_labels(child_labels(service), overlay)},
        "spec": {
            "containers": [_engine(service, source, installation, mounts)],
            "volumes": volumes,
            "securityContext": pod_security(),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": PRE_STOP_SECONDS + service.spec.drain_seconds + ENDING_SECONDS,
            **overlay_spec(overlay),
        },
    }


def _engine(
    service: InferenceService, source: Source, installation: EngineInstallation, mounts: list[Manifest]
) -> Manifest:
    compute = service.spec.compute
    environment = engine_environment(
        service, source, key=installation.key, hub_endpoint=installation.hub_endpoint, proxy=installation.proxy
    )
    return {
        "name": CONTAINER,
        "image": installation.image,
        "imagePullPolicy": installation.pull_policy,
        "command": engine_command(service, source),
        "env": overlay_env(environment, compute.pod_template),
        "ports": [{"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}],
        "resources": amounts(service),
        # nvidia-cdi-hook writes below /etc
        "securityContext": container_security(read_only_root=not compute.gpus_per_replica),
        **probes(startup_seconds=service.spec.startup.timeout_seconds),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def serving_service(service: InferenceService) -> Manifest:
    """The Service in front of *service*'s engine."""
    options = service.spec.service
    metadata = child_metadata(service, engine_name(service.metadata.name))
    return signed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata | {"annotations": dict(options.annotations)},
            "spec": {
                "type": options.type,
                "selector": selector(service),
                "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def engine_key_secret(service: InferenceService, *, key: str) -> Manifest:
    """The Secret with the engine's key; created, never changed and never read."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": child_metadata(service, engine_key_secret_name(service.metadata.name, key)),
        "type": "Opaque",
        "immutable": True,
        "stringData": {KEY_ENTRY: key},
    }


def engine_url(service: InferenceService) -> str:
    """The engine's address inside the cluster."""
    return f"http://{engine_name(service.metadata.name)}.{service.metadata.namespace}.svc:{ENGINE_PORT}"


def adapter_path(store: PvcUri, artifact: PvcUri) -> str | None:
    """Where an engine finds *artifact*, or None where it does not lie in *store*."""
    inside = artifact.relative_to(store)
    return None if inside is None else f"{STORE_PATH}/{inside}"


def selector(service: InferenceService) -> dict[str, str]:
    """What selects the engine's pods; a fresh dict for each call."""
    return {INFERENCESERVICE_LABEL: service.metadata.name}


def child_labels(service: InferenceService) -> dict[str, str]:
    """The labels of all that is made for *service*; a fresh dict for each call."""
    return common_labels(name=service.metadata.name, component="engine") | selector(service)


def child_metadata(service: InferenceService, name: str) -> Manifest:
    """The metadata of an object that is made for *service*, and goes with it."""
    return {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": child_labels(service),
        "ownerReferences": [owner_reference(API_VERSION, service.kind, service.metadata)],
    }


def signed(manifest: Manifest) -> Manifest:
    """*manifest* with its own digest beside: a field that we no longer set is seen by that alone."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    annotations = manifest["metadata"].get("annotations", {}) | {TEMPLATE_DIGEST: digest}
    return manifest | {"metadata": manifest["metadata"] | {"annotations": annotations}}
