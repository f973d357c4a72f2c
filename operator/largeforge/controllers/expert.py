"""Expert: resolved, fitting, loaded on every ready pod, proven to answer there; and nothing else called by its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Resolved
from largeforge.api.meta import Condition
from largeforge.api.names import Reason
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Trouble
from largeforge.controllers.expertfiles import delivery, files_steps, lost
from largeforge.controllers.expertfit import fitting, still_served
from largeforge.controllers.expertobserve import observe, resolve
from largeforge.controllers.expertplacement import Observed, Placing
from largeforge.controllers.expertremoval import finalizer_change, remove
from largeforge.controllers.expertrouting import distinct
from largeforge.controllers.expertstatus import Findings, status_of
from largeforge.controllers.externalexpert import external_status
from largeforge.controllers.finetunejob import installation
from largeforge.controllers.plan import Plan, read, report_unreadable
from largeforge.controllers.rounds import AGAIN_SECONDS, Decision, carry_out
from largeforge.controllers.transitions import turned
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS
from largeforge.resources.names import adapter_owner

LEAST_DRAIN_SECONDS = 5
"""Routers learn of a new name within a second; a request that was let in goes on in vLLM though its name be gone."""
SLOT_SECONDS = 30.0
"""How often an Expert without a slot looks whether one is free."""
DISPROVEN_SECONDS = 60.0
"""How often an adapter that answered, and wrongly, is asked again: its files may have been mended."""
DISPROVEN = frozenset(
    {Reason.ADAPTER_HAS_NO_EFFECT, Reason.ADAPTER_DIFFERS, Reason.MODEL_DIFFERS, Reason.BASE_MISMATCH}
)


async def reconcile(key: Key, context: Context) -> float | None:
    """Bring one Expert a step further."""
    raw = await context.cluster.get(EXPERTS, key.namespace, key.name)
    if raw is None:
        return None  # its service, which is woken too, unloads what belongs to no Expert
    expert = read(Expert, raw)
    if isinstance(expert, ValidationError):
        if "deletionTimestamp" not in raw["metadata"]:
            await report_unreadable(context.cluster, raw, expert, now=context.now())
        return None
    if (finalizer := finalizer_change(expert)) is not None:
        await context.cluster.apply(finalizer)
        return None  # the change wakes us
    if expert.metadata.deletion_timestamp is not None:
        return await remove(expert, raw, context, installation(context.settings))
    observed = await observe(context, expert)
    return await carry_out(observed, partial(decide, expert), context, raw)


def decide(expert: Expert, observed: Observed, now: datetime) -> Decision:
    """What to write and to ask so that *expert* is served. Deciding again on the result asks for nothing."""
    if expert.spec.type == "External":
        status = external_status(expert, observed.namesake, observed.report, now=now)
        return Decision(Plan(events=turned(expert.status.conditions, status.conditions), status=status))
    found = resolve(expert, observed, now=now)
    fits, asked = fitting(expert, found.resolved, observed)
    steps = files_steps(observed.files, now=now)
    copy, held = delivery(expert, found.resolved if fits.status == "True" else None, observed.service, steps.delivery)
    archived = expert.spec.stage == "Archived"
    wish = found.resolved if fits.status == "True" and held is None and not archived else None
    old = None if archived else still_served(expert, observed, wish, fits)
    placing = Placing(expert, observed, wish=wish, old=old)
    calls = [*asked, *placing.calls()]
    missing = copy is not None and wish is not None and _not_found(placing, wish)
    apart, routing = distinct(expert, observed.report)
    status = status_of(
        placing,
        Findings(found, fits, loaded=held, apart=apart),
        now=now,
        routing=routing,
        delivery=lost(copy, now=now) if missing else copy,
    )
    drain = _drain(observed, status.last_probe_time, now=now)
    cleanup = _unwanted(placing)
    waits = [*_waits(placing, fits), *steps.waits, *([drain] if cleanup and drain > 0 else [])]
    return Decision(
        plan=Plan(
            delete=steps.delete,
            create=steps.create,
            events=turned(expert.status.conditions, status.conditions),
            status=status,
            again_after=min(waits, default=None),
        ),
        calls=calls,
        cleanup=[] if drain > 0 else cleanup,
    )


def _not_found(placing: Placing, version: Resolved) -> bool:
    """Whether an engine says that the files are not there."""
    troubles = [placing.trouble(pod, version) for pod in placing.ready]
    return any(each is not None and each.reason == Reason.ARTIFACT_NOT_FOUND for each in troubles)


def _waits(placing: Placing, fits: Condition) -> list[float]:
    """When what sends no event is to be looked at again."""
    version = placing.wish or placing.old
    troubles = [] if version is None else [placing.trouble(pod, version) for pod in placing.ready]
    waits = [DISPROVEN_SECONDS if each.reason in DISPROVEN else AGAIN_SECONDS for each in troubles if each is not None]
    waits += [SLOT_SECONDS] if fits.reason == Reason.SLOTS_EXHAUSTED else []
    return [*waits, AGAIN_SECONDS] if fits.reason == Reason.ENGINE_SILENT else waits


def _unwanted(placing: Placing) -> Sequence[Call]:
    """Versions of this Expert, and of no other, that engines still have."""
    wanted = {version.engine_name for version in (placing.wish, placing.old) if version is not None}
    # Once the name has changed, the old one only drains.
    if placing.served is not None and placing.served == placing.wish:
        wanted = {placing.served.engine_name}
    return [
        Call("unload", pod, name)
        for pod in placing.ready
        if not isinstance(listing := placing.observed.listings.get(pod.uid, frozenset()), Trouble)
        for name in sorted(listing - wanted)
        if adapter_owner(name) == placing.expert.metadata.name
    ]


def _drain(observed: Observed, last: datetime | None, *, now: datetime) -> float:
    """Seconds until an unwanted name may go: the service's drainSeconds from the last probe.

    A probe comes right before routers are sent to a new name, and stands in status, so that a restart forgets nothing.
    """
    if last is None or observed.service is None:
        return 0.0
    seconds = max(LEAST_DRAIN_SECONDS, observed.service.spec.drain_seconds)
    return (last + timedelta(seconds=seconds) - now).total_seconds()
