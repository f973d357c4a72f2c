"""How an attempt of a run ended: read from its Job, its pod and the result that the pod left."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact, redacted
from largeforge.api.run import RunResult
from largeforge.api.uri import parse_pvc
from largeforge.controllers.podstate import Problem, disruption, over_its_limits, termination
from largeforge.kube.cluster import Manifest
from largeforge.resources.owner import controller_uid
from largeforge.resources.runpod import CONTAINER

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=5)
"""Between an attempt and the next; the first pause is that of batch/v1's own backoff."""
OUT_OF_MEMORY_CODE = 137
"""128 + SIGKILL, which is how the kernel ends what is over its memory limit."""
MESSAGE_LIMIT = 1500

_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_USER_ERRORS = {ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG, ExitCode.INVALID_DATA: Reason.DATASET_INVALID}


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
            return _success(_result(own), run, output_uri, time=time)
        if condition["type"] == "Failed":
            result = _result(own)
            mine = result if result is not None and result.run_digest in ("", run.digest) else None
            return _failure(job, own, mine, time=time, said=condition.get("message", ""))
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
    elif not _lies_in(result.artifact.uri, output_uri):
        problem = f"the result names an artifact outside {output_uri}"
    else:
        return Ending("Succeeded", time, result)
    return Ending("Failed", time, cause=ErrorDetail(reason=Reason.RESULT_MISSING, message=problem))


def _failure(job: Manifest, pods: Sequence[Manifest], result: RunResult | None, *, time: datetime, said: str) -> Ending:
    code = _exit_code(pods, said)
    if code in _USER_ERRORS:
        fallback = ErrorDetail(reason=_USER_ERRORS[code], message=f"the pod refused its input{_see_logs(job)}")
        return Ending("UserError", time, result, cause=_stated(result) or fallback)
    taken = next(filter(None, map(disruption, pods)), None)
    if taken is None and ("DisruptionTarget" in said or code == ExitCode.STOPPED):
        taken = Problem(Reason.DISRUPTED, redact(f"the pod was stopped: {said}", limit=400))
    if taken is not None:
        return Ending("Disrupted", time, result, cause=_with_words(taken, result))
    full = next(filter(None, map(over_its_limits, pods)), None)
    if full is not None:
        return Ending("Failed", time, result, cause=_with_words(full, None))
    if code == OUT_OF_MEMORY_CODE or any(_was_killed_for_memory(p) for p in pods):
        fallback = ErrorDetail(
            reason=Reason.OUT_OF_MEMORY,
            message="the pod was killed, most likely for its memory; raise"
            " spec.compute.resources.limits.memory, or lower spec.training.maxLength or perDeviceTrainBatchSize",
            field="spec.compute.resources",
        )
    else:
        ended = f"the pod ended with exit code {code}" if code is not None else f"the Job failed: {redact(said)}"
        fallback = ErrorDetail(reason=Reason.TRAINING_FAILED, message=f"{ended}{_see_logs(job)}")
    return Ending("Failed", time, result, cause=_stated(result) or fallback)


def _with_words(problem: Problem, result: RunResult | None) -> ErrorDetail:
    """The cause as the cluster tells it, then what the run itself says of it."""
    own = _stated(result)
    message = f"{problem.message}; {own.message}" if own is not None else problem.message
    return ErrorDetail(reason=problem.reason, message=message[:MESSAGE_LIMIT])


def _result(pods: Sequence[Manifest]) -> RunResult | None:
    """What a pod left, made safe for status: it comes from a container."""
    for pod in pods:
        ended = termination(pod, CONTAINER)
        if ended is None or not ended[1]:
            continue
        try:
            return RunResult.model_validate(redacted(json.loads(ended[1]), limit=MESSAGE_LIMIT))
        except (ValidationError, ValueError, RecursionError):
            continue
    return None


def _stated(result: RunResult | None) -> ErrorDetail | None:
    """The cause in the run's own words."""
    if result is None or result.error is None:
        return None
    error = result.error
    known = _REASON.fullmatch(error.reason) is not None
    return error if known else error.model_copy(update={"reason": Reason.TRAINING_FAILED})


def _exit_code(pods: Sequence[Manifest], said: str) -> int | None:
    """The trainer's exit code: the pod's, or what the Job's condition kept of it."""
    for pod in pods:
        if (ended := termination(pod, CONTAINER)) is not None:
            return ended[0]
    found = _EXIT_CODE.search(said)
    return int(found[1]) if found else None


def _was_killed_for_memory(pod: Manifest) -> bool:
    return any(
        s.get("state", {}).get("terminated", {}).get("reason") == "OOMKilled"
        for s in pod.get("status", {}).get("containerStatuses", [])
    )


def _lies_in(artifact: str, output_uri: str) -> bool:
    try:
        return parse_pvc(artifact).relative_to(parse_pvc(output_uri)) is not None
    except ValueError:
        return False


def _see_logs(job: Manifest) -> str:
    return f"; see kubectl logs -n {job['metadata']['namespace']} job/{job['metadata']['name']}"
