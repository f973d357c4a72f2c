"""Why an attempt failed: read from its Job, its pod, and what the pod itself said. For every kind that has runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import ValidationError

from largeforge.api.common import ErrorDetail
from largeforge.api.model import Model
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact, redacted
from largeforge.api.uri import parse_pvc
from largeforge.controllers.podstate import Problem, disruption, over_its_limits, termination
from largeforge.kube.cluster import Manifest

OUT_OF_MEMORY_CODE = 137
"""128 + SIGKILL, which is how the kernel ends what is over its memory limit."""
MESSAGE_LIMIT = 1500

Kind = Literal["UserError", "Disrupted", "Failed"]
M = TypeVar("M", bound=Model)

_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_USER_ERRORS = {ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG, ExitCode.INVALID_DATA: Reason.DATASET_INVALID}


@dataclass(frozen=True, slots=True)
class Nature:
    """What is particular to the attempts of one kind."""

    container: str
    """Whose end is the attempt's."""
    reason: str
    """What an end without a stated cause is called."""
    memory_remedy: str
    """What helps a pod that was killed for its memory."""


def failure(
    job: Manifest, pods: Sequence[Manifest], stated: ErrorDetail | None, *, said: str, nature: Nature
) -> tuple[Kind, ErrorDetail]:
    """Whose fault it is that *job* failed, and the cause: *stated* by the pod itself, else as the cluster tells it.

    *pods* are the Job's; *said* is the message of its condition, which outlives them.
    """
    own = _known(stated, nature)
    code = _exit_code(pods, said, nature.container)
    if code in _USER_ERRORS:
        fallback = ErrorDetail(reason=_USER_ERRORS[code], message=f"the pod refused its input{_see_logs(job)}")
        return "UserError", own or fallback
    taken = next(filter(None, map(disruption, pods)), None)
    if taken is None and ("DisruptionTarget" in said or code == ExitCode.STOPPED):
        taken = Problem(Reason.DISRUPTED, redact(f"the pod was stopped: {said}", limit=400))
    if taken is not None:
        return "Disrupted", _with_words(taken, own)
    full = next(filter(None, map(over_its_limits, pods)), None)
    if full is not None:
        return "Failed", _with_words(full, None)
    if code == OUT_OF_MEMORY_CODE or any(map(was_killed_for_memory, pods)):
        fallback = ErrorDetail(
            reason=Reason.OUT_OF_MEMORY,
            message=f"the pod was killed, most likely for its memory; {nature.memory_remedy}",
            field="spec.compute.resources",
        )
    else:
        ended = f"the pod ended with exit code {code}" if code is not None else f"the Job failed: {redact(said)}"
        fallback = ErrorDetail(reason=nature.reason, message=f"{ended}{_see_logs(job)}")
    return "Failed", own or fallback


def left_by(pods: Sequence[Manifest], container: str, model: type[M]) -> M | None:
    """What *container* of a pod left as its termination message, made safe for status: it comes from a container."""
    for pod in pods:
        ended = termination(pod, container)
        if ended is None or not ended[1]:
            continue
        try:
            return model.model_validate(redacted(json.loads(ended[1]), limit=MESSAGE_LIMIT))
        except (ValidationError, ValueError, RecursionError):
            continue
    return None


def lies_in(uri: str, folder: str) -> bool:
    """Whether *uri*, which a container named, lies on a claim strictly inside *folder*."""
    try:
        return parse_pvc(uri).relative_to(parse_pvc(folder)) is not None
    except ValueError:
        return False


def was_killed_for_memory(pod: Manifest) -> bool:
    """Whether a container of *pod* was over its memory limit."""
    return any(
        s.get("state", {}).get("terminated", {}).get("reason") == "OOMKilled"
        for s in pod.get("status", {}).get("containerStatuses", [])
    )


def _with_words(problem: Problem, own: ErrorDetail | None) -> ErrorDetail:
    """The cause as the cluster tells it, then what the run itself says of it."""
    message = f"{problem.message}; {own.message}" if own is not None else problem.message
    return ErrorDetail(reason=problem.reason, message=message[:MESSAGE_LIMIT])


def _known(stated: ErrorDetail | None, nature: Nature) -> ErrorDetail | None:
    """The cause in the run's own words."""
    if stated is None or _REASON.fullmatch(stated.reason) is not None:
        return stated
    return stated.model_copy(update={"reason": nature.reason})


def _exit_code(pods: Sequence[Manifest], said: str, container: str) -> int | None:
    """The container's exit code: the pod's, or what the Job's condition kept of it."""
    for pod in pods:
        if (ended := termination(pod, container)) is not None:
            return ended[0]
    found = _EXIT_CODE.search(said)
    return int(found[1]) if found else None


def _see_logs(job: Manifest) -> str:
    return f"; see kubectl logs -n {job['metadata']['namespace']} job/{job['metadata']['name']}"
