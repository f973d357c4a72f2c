"""An InferenceService's pods, as far as its controller and the Experts' need them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.redact import redact
from largeforge.controllers.enginewords import reason_of, sentence_of
from largeforge.controllers.podstate import Problem, has_condition, problem
from largeforge.kube.cluster import Manifest
from largeforge.resources.serving import CONTAINER

HEALED_SECONDS = 600
"""A container that ran so long before it ended is not in a crash loop; the kubelet forgets its backoff then, too."""
WORDS_LIMIT = 600
"""Characters of an engine's last words that reach status."""
EXPLAINING_LINES = 2
"""Pydantic and others say in the next lines what was wrong."""
_ERROR_LINE = re.compile(r"(?:^|\s)(?:[\w.]*(?:Error|Exception|Interrupt)\b.*|[\w.]+: error: .*)$")
_EMPTY_WORDS = ("Engine core initialization failed", "Failed core proc", "WorkerProc initialization failed")
"""What vLLM's processes say, whatever the cause was, of one that they have started; the cause stands above it."""


@dataclass(frozen=True, slots=True)
class EnginePod:
    """One pod of the service that is not on its way out."""

    name: str
    uid: str
    address: str = ""
    container_id: str = ""
    """The engine's container; another one after each restart."""
    ready: bool = False
    problem: Problem | None = None
    """Why it does not get ready, where that is known."""
    doing: str = "is being placed"
    """What it does meanwhile, in words that stay the same while it does it."""
    start_seconds: int | None = None
    """Seconds from the start of its container to its readiness."""


def engine_pods(manifests: Iterable[Manifest]) -> tuple[EnginePod, ...]:
    """The pods that are there to stay, by name; those that end or have ended are the ReplicaSet's to replace."""
    staying = [
        manifest
        for manifest in manifests
        if "deletionTimestamp" not in manifest["metadata"]
        and manifest.get("status", {}).get("phase") not in ("Failed", "Succeeded")
    ]
    return tuple(sorted(map(_engine_pod, staying), key=lambda pod: pod.name))


def _engine_pod(manifest: Manifest) -> EnginePod:
    status = manifest.get("status", {})
    container: dict[str, Any] = next((c for c in status.get("containerStatuses", []) if c["name"] == CONTAINER), {})
    address = status.get("podIP", "")
    ready = bool(address) and has_condition(manifest, "Ready")
    return EnginePod(
        name=manifest["metadata"]["name"],
        uid=manifest["metadata"]["uid"],
        address=address,
        container_id=container.get("containerID", ""),
        ready=ready,
        problem=None if ready else problem(manifest) or _failure(container),
        doing="" if ready else _doing(manifest, container),
        start_seconds=_start_seconds(manifest, container) if ready else None,
    )


def _start_seconds(manifest: Manifest, container: dict[str, Any]) -> int | None:
    since: dict[str, Any] = next((c for c in manifest["status"].get("conditions", []) if c["type"] == "Ready"), {})
    times = container.get("state", {}).get("running", {}).get("startedAt"), since.get("lastTransitionTime")
    if not all(times):
        return None
    started, ready = (datetime.fromisoformat(str(each)) for each in times)
    return max(0, int((ready - started).total_seconds()))


def _doing(manifest: Manifest, container: dict[str, Any]) -> str:
    if not has_condition(manifest, "PodScheduled"):
        return "is being placed"
    if "running" not in container.get("state", {}):
        return "is being set up on its node"
    return "answers its health check no more" if container.get("started") else "loads its model"


def _failure(container: dict[str, Any]) -> Problem | None:
    """How the engine ended, where it does so again and again or for want of memory."""
    state = container.get("state", {})
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended is None:
        return None
    restarts = container.get("restartCount", 0)
    waits = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    repeated = restarts >= 2 and not _ran_long(ended)
    said = last_words(ended.get("message", ""))
    reason = reason_of(said)
    # What is wrong for good is said at once; all else may pass with the next start.
    sure = reason != Reason.ENGINE_FAILED and not _ran_long(ended)
    if not (waits or repeated or sure or ("terminated" in state and restarts >= 1)):
        return None
    if ended.get("reason") == "OOMKilled":
        return Problem(
            Reason.OUT_OF_MEMORY,
            "the engine was killed for want of memory; raise spec.compute.resources.limits.memory,"
            " or lower spec.engine.maxModelLen",
        )
    return Problem(reason, f"the engine ended with exit code {ended.get('exitCode')}{f': {said}' if said else ''}")


def _ran_long(ended: dict[str, Any]) -> bool:
    try:
        started, finished = (datetime.fromisoformat(ended[name]) for name in ("startedAt", "finishedAt"))
    except (KeyError, TypeError, ValueError):
        return False
    return (finished - started).total_seconds() >= HEALED_SECONDS


def last_words(log: str) -> str:
    """The line of an engine's log that names the cause, with what explains it, else its end; redacted, and bounded."""
    if (sentence := sentence_of(log)) is not None:
        return sentence
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if _ERROR_LINE.search(line)]
    telling = [i for i in errors if not any(empty in lines[i] for empty in _EMPTY_WORDS)]
    if not errors:
        return redact(" ".join(lines[-3:]), limit=WORDS_LIMIT)
    chosen = (telling or errors)[-1]
    after = lines[chosen + 1 : chosen + 1 + EXPLAINING_LINES]
    explains = takewhile(lambda line: not _ERROR_LINE.search(line) and "Traceback" not in line, after)
    return redact(" ".join([lines[chosen], *explains]), limit=WORDS_LIMIT)
