"""One line about each object: its state, and what it waits for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import Progress
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import Condition, condition
from largeforge.api.names import COMPLETE, FAILED, READY, STALLED, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.cli.targets import KINDS
from largeforge.kube.cluster import Manifest

UNSEEN = "waits for the operator, which has not seen it"


@dataclass(frozen=True, slots=True)
class Row:
    """What is told of one object."""

    kind: str
    namespace: str
    name: str
    state: str
    """A job's phase; Ready, NotReady, Stalled or Stopped of the others; New before the operator has seen it."""
    reason: str
    """The condition's reason in one word, empty where there is none."""
    message: str
    """What it waits for, or how it ended."""
    ageSeconds: int | None  # noqa: N815 - printed as JSON, in the API's spelling


def row(manifest: Manifest, *, now: datetime) -> Row:
    """The row of *manifest*, which may be of a newer release than this program."""
    metadata = manifest["metadata"]
    try:
        state, reason, message = _told(manifest)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        state, reason, message = "Unreadable", Reason.UNREADABLE, f"{where}: {first['msg']}; update kubectl-largeforge"
    made = metadata.get("creationTimestamp")
    seconds = int((now - datetime.fromisoformat(made)).total_seconds()) if made else None
    return Row(
        manifest["kind"],
        metadata.get("namespace", ""),
        metadata["name"],
        state,
        reason,
        " ".join(message.split()),
        seconds,
    )


def _told(manifest: Manifest) -> tuple[str, str, str]:
    status = KINDS[manifest["kind"]].model.model_validate(manifest)
    if isinstance(status, FineTuneJob | QuantizeJob):
        return _job(status)
    if isinstance(status, InferenceService | Expert):
        return _served(status)
    raise TypeError(f"no state for {manifest['kind']}")


def _job(job: FineTuneJob | QuantizeJob) -> tuple[str, str, str]:
    status = job.status
    if not status.phase:
        return "New", "", UNSEEN
    ended = next(
        (c for kind in (FAILED, COMPLETE) if (c := condition(status.conditions, kind)) and c.status == "True"), None
    )
    if ended is not None:
        return status.phase, ended.reason, status.message or ended.message
    return status.phase, _reason(status.conditions, COMPLETE), _with_progress(status.message, status.progress)


def _served(made: InferenceService | Expert) -> tuple[str, str, str]:
    ready, stalled = (condition(made.status.conditions, kind) for kind in (READY, STALLED))
    if ready is None:
        return "New", "", UNSEEN
    if ready.status == "True":
        return "Ready", ready.reason, ready.message or _pods(made)
    if ready.reason == Reason.STOPPED:
        return "Stopped", ready.reason, ready.message
    state = "Stalled" if stalled is not None and stalled.status == "True" else "NotReady"
    return state, ready.reason, ready.message


def _pods(made: InferenceService | Expert) -> str:
    if isinstance(made, InferenceService):
        return f"{made.status.summary or made.status.ready_replicas} pods"
    placement = made.status.placement
    return f"{placement.summary} pods of {placement.service}" if placement is not None else ""


def _reason(conditions: list[Condition], kind: str) -> str:
    found = condition(conditions, kind)
    return found.reason if found is not None else ""


def _with_progress(message: str, progress: Progress | None) -> str:
    if progress is None or not progress.summary:
        return message
    figures = [progress.summary, progress.loss and f"loss {progress.loss}", progress.eta and f"ETA {progress.eta}"]
    return "; ".join(part for part in (message, ", ".join(f for f in figures if f)) if part)


def age(seconds: int | None) -> str:
    """`5s`, `12m`, `3h`, `4d`."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"
