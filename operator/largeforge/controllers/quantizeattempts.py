"""How an attempt of a QuantizeJob ended: read from its Job, its pod and the result that the pod left. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from largeforge.api.common import ErrorDetail
from largeforge.api.names import Reason
from largeforge.api.quantize import PreparedRecord, QuantizeResult
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.api.uri import HfUri, parse
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.enginepods import last_words
from largeforge.controllers.failures import OUT_OF_MEMORY_CODE, Nature, failure, left_by, lies_in
from largeforge.kube.cluster import Manifest
from largeforge.resources.evaluationengine import CONTAINER as ENGINE
from largeforge.resources.quantizepod import CONTAINER

_NATURE = Nature(
    container=CONTAINER,
    reason=Reason.QUANTIZE_FAILED,
    memory_remedy="raise spec.compute.resources.limits.memory, or lower spec.calibration.numSamples or maxLength",
)
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: with a result where it succeeded, else with a cause."""

    kind: Literal["Succeeded", "UserError", "Disrupted", "Failed"]
    time: datetime
    result: QuantizeResult | None = None
    cause: ErrorDetail = field(default_factory=lambda: ErrorDetail(reason=Reason.QUANTIZE_FAILED, message=""))


def ending(
    batch: Manifest, pods: Sequence[Manifest], *, job: QuantizeJob, run: QuantizeRunRecord, now: datetime
) -> Ending | None:
    """How the attempt of *batch* ended, or None while it goes on.

    An engine that ended twice while it started will not start: its pod would restart it for ever.
    """
    own = pods_of(batch, pods)
    for condition in batch.get("status", {}).get("conditions", []):
        if condition.get("status") != "True":
            continue
        time = datetime.fromisoformat(condition["lastTransitionTime"])
        if condition["type"] == "Complete":
            return _success(left_by(own, CONTAINER, QuantizeResult), job, run, time=time)
        if condition["type"] == "Failed":
            result = left_by(own, CONTAINER, QuantizeResult)
            mine = result if result is not None and result.run_digest in ("", run.digest) else None
            stated = mine.error if mine is not None else None
            kind, cause = failure(batch, own, stated, said=condition.get("message", ""), nature=_NATURE)
            return Ending(kind, time, mine, cause=cause)
    return next((_engine_failure(ended, now) for pod in own for ended in _engine_ends(pod)), None)


def _success(result: QuantizeResult | None, job: QuantizeJob, run: QuantizeRunRecord, *, time: datetime) -> Ending:
    """A success is only what left a result of this very run and stage, with all that has to be in it."""
    problem = None
    if result is None or result.outcome != "Succeeded":
        problem = "the pod ended well but left no result that can be read"
    elif result.run_digest != run.digest:
        problem = "the pod left the result of another run"
    elif result.stage != run.stage:
        problem = f"the pod left the result of stage {result.stage}"
    elif run.stage == "Preflight":
        problem = _wrongly_prepared(result.prepared, job, run)
    elif run.stage == "Evaluate":
        problem = "the result names no perplexity" if result.evaluation is None else None
    elif result.artifact is None:
        problem = "the result names no artifact"
    elif not lies_in(result.artifact.uri, job.spec.output.uri):
        problem = f"the result names an artifact outside {job.spec.output.uri}"
    if problem is None:
        return Ending("Succeeded", time, result)
    return Ending("Failed", time, cause=ErrorDetail(reason=Reason.RESULT_MISSING, message=problem))


def _wrongly_prepared(prepared: PreparedRecord | None, job: QuantizeJob, run: QuantizeRunRecord) -> str | None:
    """Why what preflight says is not what it was asked: paths of it become mounts and arguments of other pods."""
    base, output = run.base, job.spec.output.uri
    if prepared is None or base is None:
        return "the result names nothing that was prepared"
    source, hub = prepared.source, isinstance(parse(base.uri), HfUri)
    wrong = {
        f"the result names prepared tokens outside {output}": not lies_in(prepared.uri, output),
        "the result does not say whether an adapter was merged": source.merged != (base.adapter is not None),
        f"the result names a merged source outside {output}": source.merged and not lies_in(source.uri, output),
        f"the result is of another source than {base.uri}": not source.merged and source.uri != base.uri,
        "the result names no commit of the source": (
            hub and not source.merged and not _COMMIT.fullmatch(source.commit or "")
        ),
    }
    return next((problem for problem, holds in wrong.items() if holds), None)


def _engine_ends(pod: Manifest) -> Iterator[dict[str, Any]]:
    """How the sidecar ended, where it did so for the second time without having answered."""
    for status in pod.get("status", {}).get("initContainerStatuses", []):
        state, before = status.get("state", {}), status.get("lastState", {})
        if status.get("name") != ENGINE or status.get("started") or status.get("restartCount", 0) < 1:
            continue
        ended = state.get("terminated") or ("waiting" in state and before.get("terminated"))
        if ended and ended.get("exitCode", 0) != 0:
            yield ended


def _engine_failure(ended: dict[str, Any], now: datetime) -> Ending:
    if ended.get("reason") == "OOMKilled" or ended.get("exitCode") == OUT_OF_MEMORY_CODE:
        message = "the engine was killed for its memory; raise spec.compute.resources.limits.memory"
        cause = ErrorDetail(reason=Reason.OUT_OF_MEMORY, message=message, field="spec.compute.resources")
        return Ending("Failed", now, cause=cause)
    said = last_words(str(ended.get("message", "")))
    message = f"the engine does not load it (exit code {ended.get('exitCode')}): {said or 'it said nothing'}"
    return Ending("UserError", now, cause=ErrorDetail(reason=Reason.ENGINE_FAILED, message=message))
