"""`deletionPolicy: Delete`: the finalizer, and the removal of an adapter's files when its Expert is deleted.

It is the only thing of ours that a deletion waits for. Without the operator, or where the files cannot be removed, the
object goes when deletionPolicy is Retain again, or the finalizer is taken away by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from largeforge.api.deliver import DeliverResult
from largeforge.api.expert import Expert
from largeforge.api.expertstatus import ExpertStatus, Resolved
from largeforge.api.meta import Condition
from largeforge.api.names import API_VERSION, ARTIFACT_FINALIZER, READY, Reason
from largeforge.api.uri import PvcUri, parse_pvc
from largeforge.controllers.context import Context
from largeforge.controllers.inspection import Pending, Question, decide, look
from largeforge.controllers.plan import Plan, changed, execute, read
from largeforge.controllers.podstate import Problem
from largeforge.controllers.transitions import turned
from largeforge.kube.cluster import EXPERTS, Manifest
from largeforge.resources.attemptpod import Installation
from largeforge.resources.deliver import Removal, removal_config, remove_job
from largeforge.resources.errand import Parent

REMEDY = "or set spec.deletionPolicy: Retain to let the object go without it"


def finalizer_change(expert: Expert) -> Manifest | None:
    """What brings the finalizer to what `spec.deletionPolicy` says, or None where it is so.

    The uid keeps it from making an object that has just gone.
    """
    wanted = expert.spec.deletion_policy == "Delete"
    if wanted == (ARTIFACT_FINALIZER in expert.metadata.finalizers):
        return None
    if wanted and expert.metadata.deletion_timestamp is not None:
        return None  # no finalizer can be added any more
    return _with_finalizers(expert, [ARTIFACT_FINALIZER] if wanted else [])


def _with_finalizers(expert: Expert, finalizers: Sequence[str]) -> Manifest:
    metadata = expert.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": "Expert",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "finalizers": list(finalizers),
        },
    }


async def remove(expert: Expert, raw: Manifest, context: Context, installation: Installation) -> float | None:
    """Bring the deletion of *expert* a step further; returns the seconds until the next look."""
    if ARTIFACT_FINALIZER not in expert.metadata.finalizers:
        return None
    now = context.now()
    others = [read(Expert, each) for each in await context.cluster.list(EXPERTS, expert.metadata.namespace)]
    kept = [e for e in others if isinstance(e, Expert) and e.metadata.uid != expert.metadata.uid]
    for removal in removals(expert, kept):
        question = _question(expert, removal, installation)
        step = decide(question, await look(context.cluster, question.job), now=now)
        if isinstance(step.state, DeliverResult):
            continue
        status = _status(expert, step.state, now=now)
        events = turned(expert.status.conditions, status.conditions)
        plan = Plan(create=step.create, delete=step.delete, events=events, status=status)
        await execute(plan, context.cluster, raw, now=now)
        return step.again_after
    await context.cluster.apply(_with_finalizers(expert, []))
    return None


def removals(expert: Expert, others: Sequence[Expert]) -> list[Removal]:
    """The folders that go: what this Expert served and its copies in a store, but for what another Expert serves."""
    used = {folder for other in others for folder, _ in _folders(other)}
    folders = dict(each for each in _folders(expert) if each[0] not in used)
    return [Removal(folder, digest, "spec.deletionPolicy") for folder, digest in folders.items()]


def _folders(expert: Expert) -> Iterator[tuple[PvcUri, str]]:
    """Each folder that an Expert's adapter lies in, with the digest of what lies there."""
    status = expert.status
    placed = status.placement.resolved if status.placement is not None else None
    for resolved in filter(None, (status.resolved, placed)):
        yield from _folder(resolved)
    if status.delivery is not None:
        record = status.delivery
        yield parse_pvc(record.store).child(record.digest), record.digest


def _folder(resolved: Resolved) -> Iterator[tuple[PvcUri, str]]:
    try:
        uri = parse_pvc(resolved.uri)
    except ValueError:
        return
    if uri.path and resolved.digest:
        yield uri, resolved.digest


def _question(expert: Expert, removal: Removal, installation: Installation) -> Question[DeliverResult]:
    """The Job has no owner: the garbage collector would take it from an object that is deleted in the foreground."""
    job = remove_job(removal, Parent("Expert", expert.metadata), installation=installation)
    metadata = {key: value for key, value in job["metadata"].items() if key != "ownerReferences"}
    config, since = removal_config(removal), expert.metadata.deletion_timestamp
    return Question(job | {"metadata": metadata}, config, DeliverResult, since=since)


def _status(expert: Expert, state: Pending | Problem, *, now: datetime) -> ExpertStatus:
    said = state.message if isinstance(state, Pending) else f"{state.message}; {REMEDY}"
    reason = Reason.REMOVING if isinstance(state, Pending) else state.reason
    ready = Condition(type=READY, status="False", reason=reason, message=said)
    return changed(expert.status, [ready], generation=expert.metadata.generation, now=now)
