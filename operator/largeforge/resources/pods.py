"""What all pods of ours share: the restricted security context, mounts of claims, and the user's overlay."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from largeforge.api.common import PodTemplate, ResourceRequirements
from largeforge.api.names import GROUP
from largeforge.api.uri import PvcUri
from largeforge.resources.quantity import quantity

Manifest = dict[str, Any]

USER_ID = 2000
"""Every pod of ours runs as this user and group, so that what the trainer writes the engine can read."""


def pod_security() -> Manifest:
    """The pod's security context: Pod Security «restricted», files of claims reachable by our group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(*, read_only_root: bool = True) -> Manifest:
    """The container's security context: Pod Security «restricted», and a read-only root where it can be."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": read_only_root,
    }


@dataclass(frozen=True, slots=True)
class ClaimMount:
    """A folder on a claim, and where the container finds it."""

    uri: PvcUri
    path: str
    read_only: bool = True


def claim_volumes(mounts: Sequence[ClaimMount]) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes (one for each claim) and the volume mounts (one for each URI, by `subPath`) of *mounts*."""
    claims = list(dict.fromkeys(m.uri.claim for m in mounts))
    volumes = [{"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": c}} for i, c in enumerate(claims)]
    return volumes, [
        {
            "name": f"claim-{claims.index(m.uri.claim)}",
            "mountPath": m.path,
            **({"subPath": m.uri.path} if m.uri.path else {}),
            **({"readOnly": True} if m.read_only else {}),
        }
        for m in mounts
    ]


def scratch_volumes(*, shared_memory: str) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of `/tmp` on disk and `/dev/shm` in memory (at most *shared_memory*)."""
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
    ]
    return volumes, [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108


def resources(
    chosen: ResourceRequirements, *, defaults: Mapping[str, str], gpus: int = 0, gpu_resource: str = ""
) -> Manifest:
    """Requests and limits, always both: the user's, else *defaults* (which never cross what the user gave).

    A resource of which only the limit is given requests the limit, as in Kubernetes. GPUs are set in both.
    """
    requests: dict[str, str] = dict(chosen.requests)
    limits: dict[str, str] = dict(chosen.limits)
    for name, amount in defaults.items():
        if name not in requests:
            requests[name] = limits.get(name, amount)
        if name not in limits:
            limits[name] = max(requests[name], amount, key=quantity)
    if gpus:
        requests[gpu_resource] = limits[gpu_resource] = str(gpus)
    return {"requests": requests, "limits": limits}


def overlay_env(ours: Iterable[Manifest], template: PodTemplate) -> list[Manifest]:
    """The container's variables: the user's, then ours, which win."""
    own = list(ours)
    names = {variable["name"] for variable in own}
    return [v.manifest() for v in template.env if v.name not in names] + own


def overlay_volumes(template: PodTemplate, *, left_out: Container[str] = ()) -> tuple[list[Manifest], list[Manifest]]:
    """The user's volumes and their mounts, without those of the claims in *left_out*; ours never have such names."""
    volumes, mounts = [], []
    for volume in template.volumes:
        claim = volume.persistent_volume_claim
        if claim is not None and claim.claim_name in left_out:
            continue
        source = volume.manifest()
        source.pop("mountPath")
        name = f"user-{source.pop('name')}"
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": volume.mount_path})
    return volumes, mounts


def overlay_labels(ours: Mapping[str, str], template: PodTemplate) -> dict[str, str]:
    """The pod's labels: the user's and ours, which win; nobody else writes labels of our group."""
    foreign = {k: v for k, v in template.labels.items() if not k.startswith(f"{GROUP}/")}
    return foreign | dict(ours)


def overlay_spec(template: PodTemplate) -> Manifest:
    """The fields of the pod's spec that the user's overlay sets: placement only, never security."""
    placed: Manifest = {
        "nodeSelector": dict(template.node_selector),
        "tolerations": [t.manifest() for t in template.tolerations],
        "affinity": template.affinity,
        "runtimeClassName": template.runtime_class_name,
        "priorityClassName": template.priority_class_name,
    }
    return {key: value for key, value in placed.items() if value}
