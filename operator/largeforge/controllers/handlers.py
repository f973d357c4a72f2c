"""Events in, keys out: which objects a change makes us look at again. Nothing else of kopf is used for reconciling.

A controller is a module with `async def reconcile(key: Key, context: Context) -> float | None`; it is called with the
key of an object that was made, changed or deleted, or one of whose children was, and registered in `CONTROLLERS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import kopf

from largeforge.api.names import (
    EXPERT_LABEL,
    FINETUNEJOB_LABEL,
    INFERENCESERVICE_LABEL,
    MANAGED_BY,
    MANAGER,
    QUANTIZEJOB_LABEL,
)
from largeforge.controllers import expert, finetunejob, inferenceservice, quantizejob
from largeforge.controllers.context import Context
from largeforge.controllers.fleet import Fleet
from largeforge.controllers.resync import Seen, Wake
from largeforge.controllers.workqueue import Key, WorkQueue
from largeforge.kube.cluster import (
    DEPLOYMENTS,
    EXPERTS,
    FINETUNEJOBS,
    HORIZONTALPODAUTOSCALERS,
    INFERENCESERVICES,
    JOBS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    PODS,
    QUANTIZEJOBS,
    SERVICES,
    Resource,
)

CONTROLLERS: Mapping[Resource, Callable[[Key, Context], Awaitable[float | None]]] = {
    FINETUNEJOBS: finetunejob.reconcile,
    QUANTIZEJOBS: quantizejob.reconcile,
    INFERENCESERVICES: inferenceservice.reconcile,
    EXPERTS: expert.reconcile,
}
CHILDREN = (
    JOBS,
    PODS,
    DEPLOYMENTS,
    SERVICES,
    PODDISRUPTIONBUDGETS,
    NETWORKPOLICIES,
    HORIZONTALPODAUTOSCALERS,
)
"""What we make and watch; the server selects by the label `managed-by`. Other children are looked at with theirs."""
CHILD_LABELS = {MANAGED_BY: MANAGER}
PARENT_LABELS = {
    FINETUNEJOB_LABEL: FINETUNEJOBS,
    QUANTIZEJOB_LABEL: QUANTIZEJOBS,
    INFERENCESERVICE_LABEL: INFERENCESERVICES,
    EXPERT_LABEL: EXPERTS,
}

_SOURCES = {"FineTuneJob": FINETUNEJOBS, "QuantizeJob": QUANTIZEJOBS}


class Links:
    """Which Experts name which job and service: what lets a change of one wake the others."""

    def __init__(self) -> None:
        self._named: dict[Key, frozenset[Wake]] = {}

    def learn(self, body: Mapping[str, Any], *, gone: bool) -> frozenset[Wake]:
        """Note what an Expert names now; returns all that it names or named until now."""
        key = _key(body)
        spec, placed = body.get("spec", {}), body.get("status", {}).get("placement", {}).get("service")
        named = {
            (resource, Key(key.namespace, reference["name"]))
            for resource, reference in (
                (_SOURCES.get(spec.get("sourceRef", {}).get("kind"), FINETUNEJOBS), spec.get("sourceRef")),
                (INFERENCESERVICES, spec.get("inferenceServiceRef")),
                # The service that it leaves: it unloads the adapter when routers are sent elsewhere.
                (INFERENCESERVICES, {"name": placed} if placed else None),
            )
            if reference
        }
        before = self._named.pop(key, frozenset())
        if not gone:
            self._named[key] = frozenset(named)
        return before | named

    def experts(self, wake: Wake) -> Iterable[Key]:
        """The Experts that name *wake*."""
        return [key for key, named in self._named.items() if wake in named]


def wakes(resource: Resource, body: Mapping[str, Any], links: Links, *, gone: bool) -> frozenset[Wake]:
    """All keys that a change of *body* wakes: itself where it is one of ours, its parents, and what it is linked to.

    Labels name parents of the same namespace only, so a forged one makes us look once too often, no more.
    """
    found: set[Wake] = set()
    namespace = body["metadata"]["namespace"]
    labels = body["metadata"].get("labels", {})
    if resource in CONTROLLERS:
        found.add((resource, _key(body)))
    found.update((kind, Key(namespace, labels[label])) for label, kind in PARENT_LABELS.items() if label in labels)
    if resource == EXPERTS:
        found |= links.learn(body, gone=gone)
    else:
        found |= {(EXPERTS, key) for parent in found for key in links.experts(parent)}
    return frozenset(found)


def parents(resource: Resource, body: Mapping[str, Any]) -> Iterable[Wake]:
    """Whom an object wakes of which only the metadata is known: itself, and those that its labels name."""
    return wakes(resource, body, Links(), gone=False)


def register(
    registry: kopf.OperatorRegistry, queues: Mapping[Resource, WorkQueue], *, fleet: Fleet, seen: Seen
) -> None:
    """Let every event of our kinds and their children put keys on *queues*, and be seen by *fleet* and *seen*."""
    links = Links()

    async def on_event(watched: Resource, body: kopf.Body, event: kopf.RawEvent, **_: Any) -> None:
        gone = event["type"] == "DELETED"
        fleet.note(watched, body, gone=gone)
        woken = wakes(watched, body, links, gone=gone)
        seen.note(watched, body, woken, gone=gone)
        for kind, key in woken:
            queues[kind].add(key)

    for resource in (*CONTROLLERS, *CHILDREN):
        group, _, version = resource.api_version.rpartition("/")
        listen = kopf.on.event(group, version, resource.plural, id=resource.plural, registry=registry)
        listen(partial(on_event, resource))


def _key(body: Mapping[str, Any]) -> Key:
    metadata = body["metadata"]
    return Key(metadata["namespace"], metadata["name"])
