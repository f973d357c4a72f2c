"""Questions about files that a Job answers: what an artifact is, and whether it lies in a store. Pure but for `look`.

The caller writes the facts into its status, with their `request`, and asks no more while that is what it would ask:

    config = inspect_config(subject)
    if not is_known(status.model, config):
        question = Question(inspect_job(subject, parent, installation=...), config, InspectResult)
        step = decide(question, await look(cluster, question.job), now=now)

`step.create` and `step.delete` go into the plan as they are. A delivery is asked in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import ValidationError

from largeforge.api.common import ErrorDetail
from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.api.inspect import Facts, InspectConfig, InspectResult
from largeforge.api.names import JOB_NAME_LABEL, Reason
from largeforge.api.redact import redact, redacted
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.plan import Deletion
from largeforge.controllers.podstate import Problem, disruption, over_its_limits, problem, termination
from largeforge.kube.cluster import JOBS, PODS, Cluster, Manifest
from largeforge.resources.errand import CONTAINER
from largeforge.resources.owner import controller_uid

AGAIN_SECONDS = 5.0
"""How often a Job that goes on is looked at: its pods wake nobody."""
RETRY = timedelta(minutes=5)
"""After a failure the same question is asked again: the files may have come by then."""
MESSAGE_LIMIT = 1500

_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_WAITING = {"inspect": Reason.INSPECTING, "deliver": Reason.DELIVERING, "remove": Reason.REMOVING}
_DOING = {"inspect": "reads the files", "deliver": "copies the adapter", "remove": "removes the files"}

R = TypeVar("R", InspectResult, DeliverResult)


@dataclass(frozen=True, slots=True)
class Question(Generic[R]):
    """What is asked."""

    job: Manifest
    """The Job that asks it, as its builder makes it."""
    config: InspectConfig | DeliverConfig
    answer: type[R]
    since: datetime | None = None
    """When the caller began to ask: a Job that ended before answers nothing, and is made anew. For a caller that knows
    better than an answer of the last hour, for example that a delivered adapter is gone."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The Job of that name, if there is one, and its pods."""

    job: Manifest | None = None
    pods: Sequence[Manifest] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer is on its way; nothing is wrong so far as is known."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """What is known of the answer, and what to do for it."""

    state: R | Pending | Problem
    """The answer, always one that succeeded; or why there is none yet; or why there is none."""
    create: Sequence[Manifest] = ()
    delete: Sequence[Deletion] = ()
    again_after: float | None = None


def is_known(facts: Facts | None, config: InspectConfig) -> bool:
    """Whether *facts* are the answer to *config*."""
    return facts is not None and facts.request == config.request


async def look(cluster: Cluster, job: Manifest) -> Seen:
    """Read what `decide` needs for the Job that would be made."""
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    found = await cluster.get(JOBS, namespace, name)
    if found is None:
        return Seen()
    return Seen(found, await cluster.list(PODS, namespace, labels={JOB_NAME_LABEL: name}))


def decide(question: Question[R], seen: Seen, *, now: datetime) -> Step[R]:
    """What has become of *question*."""
    job, found = question.job, seen.job
    name, purpose = job["metadata"]["name"], job["metadata"]["labels"]["app.kubernetes.io/name"]
    on_the_way = Pending(_WAITING[purpose], f"Job {name!r} {_DOING[purpose]}")
    if found is None:
        return Step(on_the_way, create=[job], again_after=AGAIN_SECONDS)
    if controller_uid(found) != controller_uid(job):
        said = f"Job {name!r} belongs to another object; it is waited for until it is gone, or remove it"
        return Step(Problem(Reason.NAME_TAKEN, said), again_after=AGAIN_SECONDS)
    if "deletionTimestamp" in found["metadata"]:
        return Step(on_the_way, again_after=AGAIN_SECONDS)
    return _of_job(question, found, pods_of(found, seen.pods), on_the_way, now=now)


def _of_job(
    question: Question[R], job: Manifest, pods: Sequence[Manifest], on_the_way: Pending, *, now: datetime
) -> Step[R]:
    ended = _ended(job)
    if ended is not None and question.since is not None and ended < question.since:
        return Step(on_the_way, delete=[Deletion.of(JOBS, job)], again_after=AGAIN_SECONDS)
    result = _answer(pods, question)
    if result is not None and result.outcome == "Succeeded":
        return Step(result)
    if ended is None:
        return Step(_held_up(pods, result, on_the_way), again_after=AGAIN_SECONDS)
    failure = _failure(job, pods, result)
    left = (ended + RETRY - now).total_seconds()
    if left > 0:
        return Step(failure, again_after=left)
    return Step(failure, delete=[Deletion.of(JOBS, job)], again_after=AGAIN_SECONDS)


def _ended(job: Manifest) -> datetime | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition.get("status") == "True":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None


def _newest_first(pods: Sequence[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def _answer(pods: Sequence[Manifest], question: Question[R]) -> R | None:
    """The newest answer to this very question, made safe for status: it comes from a container."""
    for pod in _newest_first(pods):
        ended = termination(pod, CONTAINER)
        if ended is None or not ended[1]:
            continue
        try:
            result = question.answer.model_validate(redacted(json.loads(ended[1]), limit=MESSAGE_LIMIT))
        except (ValidationError, ValueError, RecursionError):
            continue
        if result.request == question.config.request:
            return result
    return None


def _held_up(pods: Sequence[Manifest], result: R | None, on_the_way: Pending) -> Pending | Problem:
    """What a Job that goes on waits for: a pod that does not start, or the pause after a try that failed."""
    for pod in _newest_first(pods):
        held = problem(pod)
        if held is not None:
            return Problem(held.reason, f"pod {pod['metadata']['name']!r}: {held.message}")
    if result is not None and result.error is not None:
        return Pending(on_the_way.reason, f"{on_the_way.message}; the try before failed: {result.error.message}")
    return on_the_way


def _failure(job: Manifest, pods: Sequence[Manifest], result: R | None) -> Problem:
    """Why there is no answer: in the pod's own words, else in the cluster's."""
    again = f"it is tried again in {RETRY.seconds // 60} minutes"
    error: ErrorDetail | None = result.error if result is not None else None
    if error is not None:
        reason = error.reason if _REASON.fullmatch(error.reason) else Reason.JOB_FAILED
        return Problem(reason, f"{error.message}; {again}")
    metadata = job["metadata"]
    logs = f"see kubectl logs -n {metadata['namespace']} job/{metadata['name']}; {again}"
    for pod in _newest_first(pods):
        taken = over_its_limits(pod) or disruption(pod)
        if taken is not None:
            return Problem(Reason.JOB_FAILED, f"Job {metadata['name']!r}: {taken.message}; {logs}")
    said = next((c.get("message", "") for c in job["status"]["conditions"] if c["type"] == "Failed"), "")
    why = redact(said, limit=300) or "it ended and left no answer that can be read"
    return Problem(Reason.JOB_FAILED, f"Job {metadata['name']!r}: {why}; {logs}")
