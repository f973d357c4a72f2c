"""A reconcile's decision as data, and the one place that carries it out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from largeforge.api.meta import Condition, with_condition
from largeforge.api.model import Model
from largeforge.api.names import (
    FIELD_MANAGER,
    PROGRESS_MANAGER,
    PUBLISH_MANAGER,
    SCALE_MANAGER,
    STALLED,
    Reason,
)
from largeforge.kube.cluster import Cluster, ClusterError, Manifest, Resource

log = logging.getLogger(__name__)

PROGRESS_FIELDS = {"FineTuneJob": frozenset({"progress", "metrics"}), "QuantizeJob": frozenset({"progress"})}
"""Fields of a kind's status that have a manager of their own, because trainers' posts write them in between."""
NOTE_LIMIT = 1024
"""Bytes of an Event's note that the API server takes."""

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Event:
    """One transition, for `kubectl describe`."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object to delete: exactly this one."""

    resource: Resource
    name: str
    uid: str

    @classmethod
    def of(cls, resource: Resource, manifest: Manifest) -> Deletion:
        """The deletion of *manifest*, and not of a namesake made after it."""
        return cls(resource, manifest["metadata"]["name"], manifest["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order, and when to look again. An empty one is the second answer to the same question."""

    delete: Sequence[Deletion] = ()
    prepare: Sequence[Manifest] = ()
    """Server-side apply as `apply`, but before anything is created: what a new pod needs from its first moment."""
    hand_over: Sequence[Manifest] = ()
    """Server-side apply as `largeforge-scale`: what our next apply leaves out, and another one sets from then on."""
    create: Sequence[Manifest] = ()
    """Made once; one that exists and is ours is left as it is."""
    apply: Sequence[Manifest] = ()
    """Server-side apply as `largeforge`, forced. `decide` leaves out what `resources.drift.covers`."""
    publish: Sequence[Manifest] = ()
    """Server-side apply as `largeforge-publish`, not forced."""
    events: Sequence[Event] = ()
    status: Model | None = None
    """The whole status; written only where it differs from the observed one. None leaves it."""
    again_after: float | None = None
    """Seconds until the next look, if nothing happens before."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write but, perhaps, the status."""
        return not (self.delete or self.prepare or self.hand_over or self.create or self.apply or self.publish)


async def execute(plan: Plan, cluster: Cluster, observed: Manifest, *, now: datetime) -> None:
    """Carry *plan* out for the object *observed*; the status comes last, so that a kill before it repeats the rest.

    Everything before the status may be repeated: creations are once-only, deletions name a uid.
    """
    namespace = observed["metadata"]["namespace"]
    for deletion in plan.delete:
        await cluster.delete(deletion.resource, namespace, deletion.name, uid=deletion.uid)
    for manifest in plan.prepare:
        await cluster.apply(manifest, manager=FIELD_MANAGER)
    for manifest in plan.hand_over:
        await cluster.apply(manifest, manager=SCALE_MANAGER)
    for manifest in plan.create:
        await cluster.create_once(manifest)
    for manifest in plan.apply:
        await cluster.apply(manifest, manager=FIELD_MANAGER)
    for manifest in plan.publish:
        await cluster.apply(manifest, manager=PUBLISH_MANAGER, force=False)
    for event in plan.events:
        await _post(cluster, event_manifest(event, observed, now=now))
    if plan.status is not None and not _same(plan.status, observed.get("status", {})):
        await _write_status(plan.status, cluster, observed)


def event_manifest(event: Event, regarding: Manifest, *, now: datetime) -> Manifest:
    """The Event; its name follows from what was seen and said, so that a repeated pass does not post it twice."""
    metadata = regarding["metadata"]
    said = "\0".join((metadata["uid"], metadata.get("resourceVersion", ""), event.reason, event.message))
    note = event.message.encode()[:NOTE_LIMIT].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "largeforge.ai/operator",
        "reportingInstance": "largeforge-operator",
        "action": "Reconcile",
        "reason": event.reason,
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "note": note,
        "type": event.type,
    }


def with_status(observed: Manifest, status: Manifest) -> Manifest:
    """What `patch_status` takes: *status*, and the version of the object that it was decided on.

    A write that came between (another operator's, a namesake made anew) makes it a `Conflict`: look and decide again.
    """
    metadata = observed["metadata"]
    identity = {key: metadata[key] for key in ("name", "namespace", "resourceVersion") if key in metadata}
    return {
        "apiVersion": observed["apiVersion"],
        "kind": observed["kind"],
        "metadata": identity,
        "status": status,
    }


async def _write_status(status: Model, cluster: Cluster, observed: Manifest) -> None:
    """Write what differs: the fields with a manager of their own first, then the rest, upon the version that this made.

    So a kill between the two repeats the decision, and a post that comes between them makes the second a `Conflict`.
    """
    seen = read(type(status), observed.get("status", {}))
    before = seen.manifest() if isinstance(seen, Model) else {}
    old_own, old_rest = split_status(observed["kind"], before)
    new_own, new_rest = split_status(observed["kind"], status.manifest())
    current: Manifest | None = observed
    if new_own != old_own:
        current = await cluster.patch_status(with_status(observed, new_own), manager=PROGRESS_MANAGER)
    if current is not None and (new_rest != old_rest or not isinstance(seen, Model)):
        await cluster.patch_status(with_status(current, new_rest))


def split_status(kind: str, status: Manifest) -> tuple[Manifest, Manifest]:
    """The fields of a status that are written under `PROGRESS_MANAGER`, and the rest."""
    own = PROGRESS_FIELDS.get(kind, frozenset())
    return {k: v for k, v in status.items() if k in own}, {k: v for k, v in status.items() if k not in own}


def changed(status: M, conditions: Sequence[Condition], *, generation: int, now: datetime, **fields: Any) -> M:
    """*status* with *conditions* merged in, each stamped with generation and, if it turned, time; and *fields*."""
    merged = list(getattr(status, "conditions"))  # noqa: B009 - every status has them; Model does not say so
    for each in conditions:
        stamped = each.model_copy(update={"observed_generation": generation, "last_transition_time": now})
        merged = with_condition(merged, stamped)
    return status.model_copy(update={"observed_generation": generation, "conditions": merged, **fields})


def read(model: type[M], observed: Manifest) -> M | ValidationError:
    """The object as *model*, or why it is none (one of a newer version, perhaps)."""
    try:
        return model.model_validate(observed)
    except ValidationError as exc:
        return exc


async def report_unreadable(cluster: Cluster, observed: Manifest, error: ValidationError, *, now: datetime) -> None:
    """Say in the object's conditions that we cannot read it, and leave all else of its status: it is a newer one's."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = f"this operator cannot read the object: {place}: {first['msg']}; install the operator that its CRD is of"
    status = dict(observed.get("status", {}))
    conditions = [c for c in status.get("conditions", []) if c.get("type") != STALLED]
    old: Manifest = next((c for c in status.get("conditions", []) if c.get("type") == STALLED), {})
    since = old.get("lastTransitionTime") if old.get("status") == "True" else None
    stalled = {
        "type": STALLED,
        "status": "True",
        "reason": Reason.UNREADABLE,
        "message": said,
        "observedGeneration": observed["metadata"].get("generation", 0),
        "lastTransitionTime": since or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if stalled != old:
        _, rest = split_status(observed["kind"], status)
        await cluster.patch_status(with_status(observed, rest | {"conditions": [*conditions, stalled]}))


def _same(status: Model, observed: Manifest) -> bool:
    seen = read(type(status), observed)
    return seen == status


async def _post(cluster: Cluster, manifest: Manifest) -> None:
    """Events are for people: one that cannot be posted (a full quota, a closing namespace) holds nothing up."""
    try:
        await cluster.create_once(manifest)
    except ClusterError as exc:
        log.warning("event %s was not posted: %s", manifest["metadata"]["name"], exc)
