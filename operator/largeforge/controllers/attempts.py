"""How an attempt of a run ended: read from its Job, its pod and the result that the pod left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import Reason
from largeforge.api.run import RunResult
from largeforge.controllers.failures import Nature, failure, left_by, lies_in
from largeforge.kube.cluster import Manifest
from largeforge.resources.owner import controller_uid
from largeforge.resources.runpod import CONTAINER

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=5)
"""Between an attempt and the next; the first pause is that of batch/v1's own backoff."""

_TRAINING = Nature(
    container=CONTAINER,
    reason=Reason.TRAINING_FAILED,
    memory_remedy="raise spec.compute.resources.limits.memory, or lower spec.training.maxLength or"
    " perDeviceTrainBatchSize",
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `cause` is there for all but a success; a `result` may be there for a failure too."""

    kind: Literal["Succeeded", "UserError", "Disrupted", "Failed"]
    time: datetime
    result: RunResult | None = None
    cause: ErrorDetail = field(default_factory=lambda: ErrorDetail(reason=Reason.TRAINING_FAILED, message=""))


def ending(job: Manifest, pods: Sequence[Manifest], *, run: RunRecord, output_uri: str) -> Ending | None:
    """How the attempt of *job* ended, or None while it goes on (its pods' last moments included).

    Only pods that the Job controls count, whatever the labels of others say, and only a result of this very run.
    """
    own = pods_of(job, pods)
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") != "True":
            continue
        time = datetime.fromisoformat(condition["lastTransitionTime"])
        if condition["type"] == "Complete":
            return _success(left_by(own, CONTAINER, RunResult), run, output_uri, time=time)
        if condition["type"] == "Failed":
            result = left_by(own, CONTAINER, RunResult)
            mine = result if result is not None and result.run_digest in ("", run.digest) else None
            stated = mine.error if mine is not None else None
            kind, cause = failure(job, own, stated, said=condition.get("message", ""), nature=_TRAINING)
            return Ending(kind, time, mine, cause=cause)
    return None


def pods_of(job: Manifest, pods: Sequence[Manifest]) -> list[Manifest]:
    """Those of *pods* that *job* controls."""
    return [pod for pod in pods if controller_uid(pod) == job["metadata"]["uid"]]


def held_seconds(job: Manifest, pods: Sequence[Manifest], *, until: datetime) -> int:
    """How long the pods of *job* held what they asked for: from the first one's start to its end, or to *until*."""
    starts, ends = [], []
    for pod in pods_of(job, pods):
        for status in pod.get("status", {}).get("containerStatuses", []):
            state = status.get("state", {})
            ended = state.get("terminated", {})
            begun = ended.get("startedAt") or state.get("running", {}).get("startedAt")
            if begun:
                starts.append(datetime.fromisoformat(begun))
            if ended.get("finishedAt"):
                ends.append(datetime.fromisoformat(ended["finishedAt"]))
    if not starts:
        return 0
    return max(int((max(ends, default=until) - min(starts)).total_seconds()), 0)


def has_ended(job: Manifest) -> bool:
    """Whether the Job's controller says that it is over."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)


def pause_before(attempt: int) -> timedelta:
    """How long after the last attempt the one of this number begins: doubling from `FIRST_PAUSE`."""
    doublings: int = max(min(attempt - 2, 10), 0)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)


def _success(result: RunResult | None, run: RunRecord, output_uri: str, *, time: datetime) -> Ending:
    """A success is only what left a result of this very run, with an artifact where it had to be.

    Preflight leaves an artifact where an earlier attempt has written it, else its word that training may begin.
    """
    if result is None or result.outcome != "Succeeded":
        problem = "the pod ended well but left no result that can be read"
    elif result.run_digest != run.digest:
        problem = "the pod left the result of another run"
    elif result.artifact is None:
        if run.stage == "Preflight" and result.stage == "Preflight":
            return Ending("Succeeded", time, result)
        problem = "the trainer ended well but its result names no artifact"
    elif not lies_in(result.artifact.uri, output_uri):
        problem = f"the result names an artifact outside {output_uri}"
    else:
        return Ending("Succeeded", time, result)
    return Ending("Failed", time, cause=ErrorDetail(reason=Reason.RESULT_MISSING, message=problem))
