"""Reads whether what a run's pods mount is there and within reach; `storage` says what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from largeforge.api.names import Reason
from largeforge.api.uri import ConfigMapUri
from largeforge.controllers import storage
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import CONFIGMAPS, PERSISTENTVOLUMECLAIMS, PODS, Cluster, Manifest


@dataclass(frozen=True, slots=True)
class Need:
    """What a run's next pod mounts."""

    namespace: str
    claims: Mapping[str, str]
    """Each with the first field that names it."""
    keys: Sequence[tuple[ConfigMapUri, str]]
    """Keys of ConfigMaps, each with the field that names it."""
    node: str | None
    """Where the pod is, or has to be."""


async def look_at_storage(
    cluster: Cluster, need: Need, pods: Sequence[Manifest]
) -> tuple[Problem | None, frozenset[str]]:
    """The first thing that is missing or out of reach, and the claims that no volume is bound to yet.

    *pods* are the run's own: what they hold is no obstacle to it.
    """
    claims = [
        storage.Claim(name, where, await cluster.get(PERSISTENTVOLUMECLAIMS, need.namespace, name))
        for name, where in need.claims.items()
    ]
    unbound = frozenset(claim.name for claim in claims if claim.phase == "Pending")
    for claim in claims:
        if (problem := storage.absent(claim, need.namespace)) is not None:
            return problem, unbound
    if any(claim.is_single for claim in claims):
        ours = {pod["metadata"]["uid"] for pod in pods}
        others = [p for p in await cluster.list(PODS, need.namespace) if p["metadata"]["uid"] not in ours]
        problem = storage.taken(claims, others, node=need.node)
        if problem is not None:
            return problem, unbound
    return await _missing_rows(cluster, need), unbound


def node_of(job_name: str, pods: Sequence[Manifest]) -> str | None:
    """The node that the pod of the Job *job_name* was given."""
    for pod in pods:
        if pod["metadata"]["name"].startswith(f"{job_name}-") and "nodeName" in pod.get("spec", {}):
            return str(pod["spec"]["nodeName"])
    return None


async def _missing_rows(cluster: Cluster, need: Need) -> Problem | None:
    for uri, where in need.keys:
        found = await cluster.get(CONFIGMAPS, need.namespace, uri.name)
        if found is None:
            return Problem(
                Reason.DATASET_MISSING,
                f"{where}: no ConfigMap {uri.name!r} in namespace {need.namespace!r}; create it to start the run",
            )
        if uri.key not in {**found.get("data", {}), **found.get("binaryData", {})}:
            return Problem(
                Reason.DATASET_MISSING, f"{where}: ConfigMap {uri.name!r} has no key {uri.key!r}; add it, or correct it"
            )
    return None
