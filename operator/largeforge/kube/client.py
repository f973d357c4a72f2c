"""The real `Cluster`: plain REST over the transport and the credentials of `kubernetes.aio`.

Its generated models and its dynamic client are left out on purpose: an object is the JSON that the server sent, and
a URL needs no discovery, since the few kinds that we touch are known.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from largeforge.api.names import FIELD_MANAGER
from largeforge.kube.cluster import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    EXPERTS,
    FINETUNEJOBS,
    HORIZONTALPODAUTOSCALERS,
    INFERENCESERVICES,
    JOBS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    QUANTIZEJOBS,
    SCALEDOBJECTS,
    SECRETS,
    SERVICES,
    Conflict,
    Manifest,
    Resource,
    WatchEvent,
)
from largeforge.kube.logs import log_lines, log_request
from largeforge.kube.traffic import Observe
from largeforge.kube.transport import APPLY, JSON, Missing, Request, Transport, open_transport, path
from largeforge.kube.watch import list_all, watch_all
from largeforge.resources.owner import controller_uid

METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
"""A list without specs and statuses."""
KEPT = ("namespace", "name", "uid", "resourceVersion", "labels")
"""Of metadata; the managed fields are the bulk of it."""

WRITTEN = {
    "FineTuneJob": FINETUNEJOBS,
    "QuantizeJob": QUANTIZEJOBS,
    "InferenceService": INFERENCESERVICES,
    "Expert": EXPERTS,
    "Job": JOBS,
    "Deployment": DEPLOYMENTS,
    "Service": SERVICES,
    "ConfigMap": CONFIGMAPS,
    "Secret": SECRETS,
    "Event": EVENTS,
    "PodDisruptionBudget": PODDISRUPTIONBUDGETS,
    "NetworkPolicy": NETWORKPOLICIES,
    "HorizontalPodAutoscaler": HORIZONTALPODAUTOSCALERS,
    "ScaledObject": SCALEDOBJECTS,
}
"""Where a manifest of each kind that we write goes."""


@asynccontextmanager
async def connect(
    *,
    user_agent: str = "largeforge",
    context: str | None = None,
    observe: Observe | None = None,
    guard: Callable[[], None] | None = None,
) -> AsyncIterator[ApiCluster]:
    """The cluster that KUBECONFIG names, else the one of this pod, else that of `~/.kube/config`.

    *context* is one of the kubeconfig, its current one by default; *observe* is told of each request; *guard* is called
    before each write, and what it raises keeps the write back. Raises `ClusterError` where there are no usable
    credentials.
    """
    async with open_transport(user_agent=user_agent, context=context, observe=observe, guard=guard) as transport:
        yield ApiCluster(transport)


class ApiCluster:
    """`Cluster` over HTTP; made by `connect`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """As in `Cluster`."""
        try:
            return await self._transport.call(Request("GET", path(resource, namespace, name)))
        except Missing:
            return None

    async def list(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> builtins.list[Manifest]:
        """As in `Cluster`."""
        items, _ = await list_all(self._transport, resource, namespace, labels)
        return items

    async def list_metadata(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> builtins.list[Manifest]:
        """As in `Cluster`."""
        items, _ = await list_all(self._transport, resource, namespace, labels, accept=METADATA)
        return [{"metadata": {k: item["metadata"][k] for k in KEPT if k in item["metadata"]}} for item in items]

    async def apply(self, manifest: Manifest, *, manager: str = FIELD_MANAGER, force: bool = True) -> Manifest:
        """As in `Cluster`."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        return await self._transport.call(Request("PATCH", _path(manifest), query, manifest, APPLY))

    async def create_once(self, manifest: Manifest) -> Manifest | None:
        """As in `Cluster`; a Secret that exists is taken as it is, since nobody here may read one."""
        resource, metadata = written(manifest), manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            return await self._transport.call(Request("POST", path(resource, namespace), body=manifest))
        except Conflict:
            owner = controller_uid(manifest)
            if owner is None or resource == SECRETS:
                return None
        existing = await self.get(resource, namespace, name)
        if existing is None or controller_uid(existing) != owner:
            raise Conflict(f"{resource.plural} {namespace}/{name} belongs to another object, or to one that just went")
        return None

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """As in `Cluster`."""
        options: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._transport.call(Request("DELETE", path(resource, namespace, name), body=options))
        except (Missing, Conflict):  # another uid: this very object is gone
            return

    async def patch_status(self, manifest: Manifest, *, manager: str = FIELD_MANAGER) -> Manifest | None:
        """As in `Cluster`."""
        query = {"fieldManager": manager, "force": "true"}
        try:
            return await self._transport.call(Request("PATCH", f"{_path(manifest)}/status", query, manifest, APPLY))
        except Missing:
            return None

    async def serves(self, resource: Resource) -> bool:
        """As in `Cluster`."""
        root = "/apis" if "/" in resource.api_version else "/api"
        try:
            found = await self._transport.call(Request("GET", f"{root}/{resource.api_version}"))
        except Missing:
            return False
        return any(each["name"] == resource.plural for each in found.get("resources", []))

    async def document(self, path: str) -> Manifest:
        """As in `Cluster`."""
        # The public keys have a media type of their own: asked for JSON alone, the server answers 406.
        return await self._transport.call(Request("GET", path, accept=f"{JSON}, application/jwk-set+json"))

    def watch(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[WatchEvent]:
        """As in `Cluster`."""
        return watch_all(self._transport, resource, namespace, labels)

    def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[str]:
        """The lines of a container's log, the last *tail* of them; *follow* waits for more until it has ended."""
        return log_lines(self._transport, log_request(namespace, pod, container, follow=follow, tail=tail))


def written(manifest: Manifest) -> Resource:
    """Where *manifest* goes; a `ValueError` names a kind that we do not write."""
    resource = WRITTEN.get(manifest["kind"])
    if resource is None or resource.api_version != manifest["apiVersion"]:
        raise ValueError(f"not a kind that we write: {manifest['apiVersion']} {manifest['kind']}")
    return resource


def _path(manifest: Manifest) -> str:
    return path(written(manifest), manifest["metadata"]["namespace"], manifest["metadata"]["name"])
