"""The objects of an InferenceService: the engine's Deployment, its Service, and the Secret with its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from largeforge.api.common import ResourceRequirements
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import API_VERSION, INFERENCESERVICE_LABEL, TEMPLATE_DIGEST
from largeforge.api.uri import PvcUri, parse_pvc
from largeforge.resources.labels import common_labels
from largeforge.resources.names import engine_key_secret_name, engine_name
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import (
    ClaimMount,
    claim_volumes,
    container_security,
    overlay_env,
    overlay_labels,
    overlay_spec,
    pod_security,
    resources,
    scratch_volumes,
)
from largeforge.resources.quantity import quantity

Manifest = dict[str, Any]

CONTAINER = "engine"
ENGINE_PORT = 8000
MODEL_PATH = "/mnt/model"
STORE_PATH = "/mnt/adapters"
KEY_ENTRY = "key"

STARTUP_SECONDS = 1800
"""A large model from slow storage; KubeAI allows 3 hours, KServe 10 minutes."""
STARTUP_PERIOD = 2
"""Seconds between looks at an engine that starts: what a user waits for in vain, at most."""
PRE_STOP_SECONDS = 5
"""Routers and kube-proxy learn meanwhile that the pod goes; no request that is still sent to it is refused."""
GRACE_SECONDS = 60
SHUTDOWN_SECONDS = GRACE_SECONDS - PRE_STOP_SECONDS - 5
"""What requests that are under way have to end; 5 s remain for the processes."""

CPU_DEFAULTS = {"memory": "6Gi"}
"""A model of 135 M parameters with 1 GiB of KV cache holds 4.5 GB in its three processes."""
GPU_DEFAULTS = {"memory": "16Gi"}
CPU_SHARE = {"requests": "1", "limits": "2"}
"""Cores, where the user says nothing: starting and answering burst, waiting needs none."""
GPU_SHARE = {"requests": "2", "limits": "8"}
GIB = 1 << 30
KV_CACHE_SHARE = 4
"""A quarter of the memory limit is KV cache on a CPU; the rest is for weights and the processes themselves."""


def serving_deployment(service: InferenceService, *, image: str, pull_policy: str, key: str) -> Manifest:
    """The Deployment of *service*'s engine, which takes *key* from its Secret."""
    spec = service.spec
    name = service.metadata.name
    gpus = spec.compute.gpus_per_replica
    claims, claim_mounts = claim_volumes(_mounts(service))
    scratch, scratch_mounts = scratch_volumes(shared_memory=f"{max(2 * gpus - 1, 1)}Gi")
    amounts = _amounts(service)
    engine = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": engine_command(service),
        "env": overlay_env(_environment(service, key, limits=amounts["limits"]), spec.compute.pod_template),
        "ports": [{"name": "http", "containerPort": ENGINE_PORT, "protocol": "TCP"}],
        "resources": amounts,
        "securityContext": container_security(read_only_root=not gpus),  # nvidia-cdi-hook writes below /etc
        "startupProbe": _probe(period=STARTUP_PERIOD, failures=STARTUP_SECONDS // STARTUP_PERIOD),
        "readinessProbe": _probe(period=5, failures=2),
        "livenessProbe": _probe(period=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": claim_mounts + scratch_mounts,
    }
    labels = _labels(service)
    return _signed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(service, engine_name(name)),
            "spec": {
                "replicas": spec.replicas,
                "selector": {"matchLabels": {INFERENCESERVICE_LABEL: name}},
                # A surge pod would wait for a GPU that the old one holds, and on a CPU for its gigabytes.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "progressDeadlineSeconds": STARTUP_SECONDS + 60,
                "revisionHistoryLimit": 2,
                "template": {
                    "metadata": {"labels": overlay_labels(labels, spec.compute.pod_template)},
                    "spec": {
                        "containers": [engine],
                        "volumes": claims + scratch,
                        "securityContext": pod_security(),
                        "automountServiceAccountToken": False,
                        "enableServiceLinks": False,
                        "terminationGracePeriodSeconds": GRACE_SECONDS,
                        **overlay_spec(spec.compute.pod_template),
                    },
                },
            },
        }
    )


def serving_service(service: InferenceService) -> Manifest:
    """The Service in front of *service*'s engine."""
    name = service.metadata.name
    options = service.spec.service
    metadata = _metadata(service, engine_name(name))
    return _signed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata | {"annotations": dict(options.annotations)},
            "spec": {
                "type": options.type,
                "selector": {INFERENCESERVICE_LABEL: name},
                "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def engine_key_secret(service: InferenceService, *, key: str) -> Manifest:
    """The Secret with the engine's key; created, never changed and never read."""
    name = engine_key_secret_name(service.metadata.name, key)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(service, name),
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


def engine_command(service: InferenceService) -> list[str]:
    """The engine's argv; the user's flags stand before ours, since the last of two equal ones holds."""
    spec = service.spec
    flags = [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(spec.engine.extra_args.items())]
    flags += [f"--model={MODEL_PATH}", f"--served-model-name={service.metadata.name}", f"--port={ENGINE_PORT}"]
    flags.append("--load-format=safetensors")  # pickled weights could carry code
    if spec.engine.max_model_len is not None:
        flags.append(f"--max-model-len={spec.engine.max_model_len}")
    if spec.lora is not None:
        flags += [
            "--enable-lora",
            f"--max-loras={spec.lora.max_loras}",
            f"--max-lora-rank={spec.lora.max_lora_rank}",
            f"--max-cpu-loras={spec.lora.slots}",
        ]
    if spec.compute.gpus_per_replica:
        flags.append(f"--tensor-parallel-size={spec.compute.gpus_per_replica}")
    flags += [f"--shutdown-timeout={SHUTDOWN_SECONDS}", "--disable-access-log-for-endpoints=/health,/metrics"]
    return ["python3", "-m", "vllm.entrypoints.openai.api_server", *flags]


def _environment(service: InferenceService, key: str, *, limits: Mapping[str, str]) -> list[Manifest]:
    secret = engine_key_secret_name(service.metadata.name, key)
    values = {
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of this pod alone
        "USER": "largeforge",  # torch asks for the user's name, and 2000 has none in some images
        "VLLM_CACHE_ROOT": "/tmp/vllm",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }
    if service.spec.lora is not None:
        values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if not service.spec.compute.gpus_per_replica:
        values["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, int(quantity(limits["memory"]) / GIB / KV_CACHE_SHARE)))
        # Left alone, vLLM pins its threads to the node's first cores, where those of every other engine are too.
        values["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        values["OMP_NUM_THREADS"] = str(max(1, int(quantity(limits["cpu"]))))
        # Threads that spin while they wait took 20 s for what sleeping ones did in 1 s, on a node with other work.
        values["OMP_WAIT_POLICY"] = "PASSIVE"
        values["TORCH_COMPILE_DISABLE"] = "1"  # there is no compiler in the image
    return [
        {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": KEY_ENTRY}}},
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _mounts(service: InferenceService) -> list[ClaimMount]:
    mounts = [ClaimMount(parse_pvc(service.spec.model.uri), MODEL_PATH)]
    if service.spec.lora is not None:
        mounts.append(ClaimMount(parse_pvc(service.spec.lora.store), STORE_PATH))
    return mounts


def _amounts(service: InferenceService) -> Manifest:
    compute = service.spec.compute
    share = GPU_SHARE if compute.gpus_per_replica else CPU_SHARE
    given = compute.resources
    request = given.requests.get("cpu") or given.limits.get("cpu") or share["requests"]
    limit = given.limits.get("cpu") or max(request, share["limits"], key=quantity)
    chosen = ResourceRequirements(requests={**given.requests, "cpu": request}, limits={**given.limits, "cpu": limit})
    gpus = compute.gpus_per_replica
    return resources(
        chosen, defaults=GPU_DEFAULTS if gpus else CPU_DEFAULTS, gpus=gpus, gpu_resource=compute.gpu_resource
    )


def _probe(*, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _labels(service: InferenceService) -> dict[str, str]:
    name = service.metadata.name
    return common_labels(name=name, component="engine") | {INFERENCESERVICE_LABEL: name}


def _metadata(service: InferenceService, name: str) -> Manifest:
    return {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": _labels(service),
        "ownerReferences": [owner_reference(API_VERSION, service.kind, service.metadata)],
    }


def _signed(manifest: Manifest) -> Manifest:
    """*manifest* with its own digest beside: a field that we no longer set is seen by that alone."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    annotations = manifest["metadata"].get("annotations", {}) | {TEMPLATE_DIGEST: digest}
    return manifest | {"metadata": manifest["metadata"] | {"annotations": annotations}}
