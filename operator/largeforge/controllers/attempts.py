"""How an attempt of a run ended: read from its Job, its pod and the result that the pod left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejob import RunRecord
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact
from largeforge.api.run import RunResult
from largeforge.api.uri import parse_pvc
from largeforge.controllers.podstate import has_condition, termination
from largeforge.kube.cluster import Manifest
from largeforge.resources.owner import controller_uid
from largeforge.resources.training import CONTAINER

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=5)
"""Between an attempt and the next; the first pause is that of batch/v1's own backoff."""
OUT_OF_MEMORY_CODE = 137
"""128 + SIGKILL, which is how the kernel ends what is over its memory limit."""

_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_USER_ERRORS = {ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG, ExitCode.INVALID_DATA: Reason.DATASET_INVALID}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `cause` is there for all but a success, `result` for a success."""

    kind: Literal["Succeeded", "UserError", "Disrupted", "Failed"]
    time: datetime
    result: RunResult | None = None
    cause: ErrorDetail = field(default_factory=lambda: ErrorDetail(reason=Reason.TRAINING_FAILED, message=""))


def ending(job: Manifest, pods: Sequence[Manifest], *, run: RunRecord, output_uri: str) -> Ending | None:
    """How the attempt of *job* ended, or None while it goes on (its pods' last moments included).

    Only pods that the Job controls count, whatever the labels of others say.
    """
    own = [p for p in pods if controller_uid(p) == job["metadata"]["uid"]]
    result = _result(own)
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") != "True":
            continue
        time = datetime.fromisoformat(condition["lastTransitionTime"])
        if condition["type"] == "Complete":
            return _success(result, run, output_uri, time=time)
        if condition["type"] == "Failed":
            return _failure(job, own, result, time=time, said=condition.get("message", ""))
    return None


def has_ended(job: Manifest) -> bool:
    """Whether the Job's controller says that it is over."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)


def pause_before(attempt: int) -> timedelta:
    """How long after the last attempt the one of this number begins: doubling from `FIRST_PAUSE`."""
    doublings: int = max(min(attempt - 2, 10), 0)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)


def _success(result: RunResult | None, run: RunRecord, output_uri: str, *, time: datetime) -> Ending:
    """A success is only what left a result of this very run, with an artifact where it had to be."""
    if result is None or result.outcome != "Succeeded" or result.artifact is None:
        problem = "the trainer ended well but left no result that can be read"
    elif result.run_digest != run.digest:
        problem = "the trainer left the result of another run"
    elif not _lies_in(result.artifact.uri, output_uri):
        problem = f"the result names an artifact outside {output_uri}"
    else:
        return Ending("Succeeded", time, result)
    return Ending("Failed", time, cause=ErrorDetail(reason=Reason.RESULT_MISSING, message=problem))


def _failure(job: Manifest, pods: Sequence[Manifest], result: RunResult | None, *, time: datetime, said: str) -> Ending:
    code = _exit_code(pods, said)
    disrupted = "DisruptionTarget" in said or any(has_condition(p, "DisruptionTarget") for p in pods)
    if code in _USER_ERRORS:
        fallback = ErrorDetail(reason=_USER_ERRORS[code], message=f"the trainer refused its input{_see_logs(job)}")
        return Ending("UserError", time, cause=_stated(result) or fallback)
    if disrupted or code == ExitCode.STOPPED:
        cause = ErrorDetail(reason=Reason.DISRUPTED, message=redact(f"the pod was stopped: {said}"))
        return Ending("Disrupted", time, cause=cause)
    if code == OUT_OF_MEMORY_CODE or any(_was_killed_for_memory(p) for p in pods):
        fallback = ErrorDetail(
            reason=Reason.OUT_OF_MEMORY,
            message="the trainer was killed, most likely for its memory; raise"
            " spec.compute.resources.limits.memory, or lower spec.training.maxLength or perDeviceTrainBatchSize",
            field="spec.compute.resources",
        )
    else:
        ended = f"the trainer ended with exit code {code}" if code is not None else f"the Job failed: {redact(said)}"
        fallback = ErrorDetail(reason=Reason.TRAINING_FAILED, message=f"{ended}{_see_logs(job)}")
    return Ending("Failed", time, cause=_stated(result) or fallback)


def _result(pods: Sequence[Manifest]) -> RunResult | None:
    for pod in pods:
        ended = termination(pod, CONTAINER)
        if ended is None or not ended[1]:
            continue
        try:
            return RunResult.model_validate_json(ended[1])
        except ValidationError:
            continue
    return None


def _stated(result: RunResult | None) -> ErrorDetail | None:
    """The cause in the run's own words, made safe for status: it comes from a container."""
    if result is None or result.error is None:
        return None
    error = result.error
    return ErrorDetail(
        reason=error.reason if _REASON.fullmatch(error.reason) else Reason.TRAINING_FAILED,
        message=redact(error.message),
        field=redact(error.field, limit=256) if error.field else None,
    )


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
