"""The API server behind few verbs: what controllers and router may ask of it."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Manifest = dict[str, Any]
"""An object as the API server writes it in JSON."""


class ClusterError(Exception):
    """The API server refused or did not answer; worth a retry."""

    reason = "ClusterError"


class Conflict(ClusterError):  # noqa: N818 - the HTTP word, and what the API server calls it
    """Another writer was first, or a name belongs to another owner."""

    reason = "Conflict"


class Invalid(ClusterError):  # noqa: N818 - as above
    """The API server says that the object is wrong (422 or 403 by admission); a retry changes nothing."""

    reason = "Invalid"


@dataclass(frozen=True, slots=True)
class Resource:
    """A type of objects, as its URL names it."""

    api_version: str
    plural: str


FINETUNEJOBS = Resource("largeforge.ai/v1alpha1", "finetunejobs")
QUANTIZEJOBS = Resource("largeforge.ai/v1alpha1", "quantizejobs")
INFERENCESERVICES = Resource("largeforge.ai/v1alpha1", "inferenceservices")
EXPERTS = Resource("largeforge.ai/v1alpha1", "experts")
JOBS = Resource("batch/v1", "jobs")
DEPLOYMENTS = Resource("apps/v1", "deployments")
PODS = Resource("v1", "pods")
SERVICES = Resource("v1", "services")
CONFIGMAPS = Resource("v1", "configmaps")
SECRETS = Resource("v1", "secrets")
EVENTS = Resource("events.k8s.io/v1", "events")
ENDPOINTSLICES = Resource("discovery.k8s.io/v1", "endpointslices")
PERSISTENTVOLUMECLAIMS = Resource("v1", "persistentvolumeclaims")
LEASES = Resource("coordination.k8s.io/v1", "leases")
PODDISRUPTIONBUDGETS = Resource("policy/v1", "poddisruptionbudgets")
NETWORKPOLICIES = Resource("networking.k8s.io/v1", "networkpolicies")
HORIZONTALPODAUTOSCALERS = Resource("autoscaling/v2", "horizontalpodautoscalers")
SCALEDOBJECTS = Resource("keda.sh/v1alpha1", "scaledobjects")


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change, or the end of the initial list (`SYNCED`, with an empty object)."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    object: Manifest


class Cluster(Protocol):
    """The verbs. `None` is «not found»; every other trouble is a `ClusterError`."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None."""
        ...

    async def list(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """The objects of *namespace* ("" for all) that carry *labels*."""
        ...

    async def list_metadata(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> builtins.list[Manifest]:
        """As `list`, of each object namespace, name, uid, resourceVersion and labels alone."""
        ...

    async def apply(self, manifest: Manifest, *, manager: str = "largeforge", force: bool = True) -> Manifest:
        """Server-side apply under *manager*; the object as it is then. `Conflict` where not forced and not ours."""
        ...

    async def create_once(self, manifest: Manifest) -> Manifest | None:
        """Create; one that exists is success where its controller's uid is the one in *manifest*, else `Conflict`.

        Returns the object made, or None where it existed. An object without owner references is taken as it is.
        """
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete exactly this object, its dependants in the background; one that is gone is success."""
        ...

    async def patch_status(self, manifest: Manifest, *, manager: str = "largeforge") -> Manifest | None:
        """Write all of `status` that is *manager*'s (server-side apply on the subresource); the object as it is then.

        An object that is gone is success, and None.
        """
        ...

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server has this type: some are there only where their CRD is."""
        ...

    async def document(self, path: str) -> Manifest:
        """A document of the API server itself, such as its public keys."""
        ...

    def watch(
        self, resource: Resource, namespace: str, *, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[WatchEvent]:
        """List, then changes for ever: relists after a 410 or a silence, reconnects with backoff, never ends by itself.

        After each (re)list come synthetic DELETED events for what has gone, then `SYNCED`.
        """
        ...
