"""What an engine's pod has: variables, mounts, resources and probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from largeforge.api.common import ResourceRequirements
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.uri import ConfigMapUri, HfUri, PvcUri, parse, parse_pvc
from largeforge.resources.engineflags import DRAFT_PATH, MODEL_PATH, TEMPLATE_PATH, TOKENIZER_PATH, Source
from largeforge.resources.names import engine_key_secret_name
from largeforge.resources.pods import ClaimMount, claim_volumes, overlay_volumes, resources, scratch_volumes
from largeforge.resources.proxy import Proxy, proxy_variables
from largeforge.resources.quantity import quantity

Manifest = dict[str, Any]

STORE_PATH = "/mnt/adapters"
CACHE_PATH = "/mnt/cache"
KEY_ENTRY = "key"

STARTUP_PERIOD = 2
"""Seconds between looks at an engine that starts: what a user waits for in vain, at most."""

CPU_DEFAULTS = {"memory": "6Gi"}
"""A model of 135 M parameters with 1 GiB of KV cache holds 4.5 GB in its three processes."""
GPU_DEFAULTS = {"memory": "16Gi"}
CPU_SHARE = {"requests": "1", "limits": "2"}
"""Cores, where the user says nothing: starting and answering burst, waiting needs none."""
GPU_SHARE = {"requests": "2", "limits": "8"}
GIB = 1 << 30
KV_CACHE_SHARE = 4
"""A quarter of the memory limit is KV cache on a CPU; the rest is for weights and the processes themselves."""


def engine_environment(
    service: InferenceService, source: Source, *, key: str, hub_endpoint: str | None, proxy: Proxy | None
) -> list[Manifest]:
    """The engine's variables: its key, the user's, ours."""
    secret = engine_key_secret_name(service.metadata.name, key)
    spec = service.spec
    values = _common(service) | _hub(service, source, hub_endpoint, proxy)
    if spec.lora is not None:
        values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if not spec.compute.gpus_per_replica:
        values |= _cpu(amounts(service)["limits"])
    token = spec.model.secret_ref if _downloads(service, source) else None
    return [
        {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": KEY_ENTRY}}},
        *(
            [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}}]
            if token is not None
            else []
        ),
        *(variable.manifest() for variable in spec.engine.env),
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def kv_cache_bytes(memory_limit: str) -> int:
    """The KV cache of an engine on a CPU with this memory limit."""
    return max(1, int(quantity(memory_limit) / GIB / KV_CACHE_SHARE)) * GIB


def engine_volumes(service: InferenceService, source: Source) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes of the pod and the mounts of the engine: claims, the template's ConfigMap, scratch, the user's."""
    gpus, template = service.spec.compute.gpus_per_replica, service.spec.engine.chat_template
    claims, claim_mounts = claim_volumes(_claims(service, source))
    scratch, scratch_mounts = scratch_volumes(shared_memory=f"{max(2 * gpus - 1, 1)}Gi")
    users, user_mounts = overlay_volumes(service.spec.compute.pod_template)
    volumes, mounts = claims + scratch + users, claim_mounts + scratch_mounts + user_mounts
    if template is not None and isinstance(place := parse(template), ConfigMapUri):
        items = [{"key": place.key, "path": place.key}]
        volumes.append({"name": "chat-template", "configMap": {"name": place.name, "items": items}})
        mounts.append({"name": "chat-template", "mountPath": TEMPLATE_PATH, "readOnly": True})
    return volumes, mounts


def amounts(service: InferenceService) -> Manifest:
    """Requests and limits of the engine."""
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


def probes(*, startup_seconds: int) -> Manifest:
    """The three probes; liveness and readiness begin when the engine has started."""
    return {
        "startupProbe": _probe(period=STARTUP_PERIOD, failures=startup_seconds // STARTUP_PERIOD),
        "readinessProbe": _probe(period=5, failures=2),
        "livenessProbe": _probe(period=10, failures=6),
    }


def _downloads(service: InferenceService, source: Source) -> bool:
    """Whether the engine downloads anything by itself: where there is a cache, the inspect Job has filled it."""
    draft = service.spec.engine.speculative_config
    cached = service.spec.cache is not None and source.revision is not None
    found = (None if cached else source.uri, service.spec.model.tokenizer, draft.model if draft is not None else None)
    return any(isinstance(parse(uri), HfUri) for uri in found if uri)


def _common(service: InferenceService) -> dict[str, str]:
    compiled = CACHE_PATH if service.spec.cache is not None else "/tmp"  # noqa: S108 - an emptyDir of this pod alone
    return {
        "HOME": "/tmp",  # noqa: S108
        "USER": "largeforge",  # torch asks for the user's name, and 2000 has none in some images
        "VLLM_CACHE_ROOT": f"{compiled}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{compiled}/inductor",
        "TRITON_CACHE_DIR": f"{compiled}/triton",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }


def _hub(service: InferenceService, source: Source, endpoint: str | None, proxy: Proxy | None) -> dict[str, str]:
    values = {"HF_HUB_CACHE": CACHE_PATH} if service.spec.cache is not None else {}  # as a run's: both may share one
    if not _downloads(service, source):
        return values | {"HF_HUB_OFFLINE": "1"}
    # The hub's second transport has hosts of its own, which a mirror does not stand in for.
    values |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    return values | ({"HF_ENDPOINT": endpoint} if endpoint else {}) | proxy_variables(proxy)


def _cpu(limits: Mapping[str, str]) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_bytes(limits["memory"]) // GIB),
        # Left alone, vLLM pins its threads to the node's first cores, where those of every other engine are too.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, int(quantity(limits["cpu"])))),
        # Threads that spin while they wait took 20 s for what sleeping ones did in 1 s, on a node with other work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCH_COMPILE_DISABLE": "1",  # there is no compiler in the image
    }


def _claims(service: InferenceService, source: Source) -> list[ClaimMount]:
    spec, draft = service.spec, service.spec.engine.speculative_config
    mounts = [
        *_read(source.uri, MODEL_PATH),
        *_read(spec.model.tokenizer, TOKENIZER_PATH),
        *_read(draft.model if draft is not None else None, DRAFT_PATH),
    ]
    template = parse(spec.engine.chat_template) if spec.engine.chat_template is not None else None
    if isinstance(template, PvcUri):  # its folder: for a file that is missing, the kubelet would make a folder
        mounts.append(ClaimMount(PvcUri(template.claim, template.path.rpartition("/")[0]), TEMPLATE_PATH))
    if spec.lora is not None:
        mounts.append(ClaimMount(parse_pvc(spec.lora.store), STORE_PATH))
    if spec.cache is not None:
        mounts.append(ClaimMount(parse_pvc(spec.cache.uri), CACHE_PATH, read_only=False))
    return mounts


def _read(uri: str | None, path: str) -> list[ClaimMount]:
    place = parse(uri) if uri else None
    return [ClaimMount(place, path)] if isinstance(place, PvcUri) else []


def _probe(*, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
