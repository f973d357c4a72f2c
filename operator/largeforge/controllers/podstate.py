"""Why a pod does not start, what takes it away, and how it ended, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.redact import redact

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
# The kubelet's words; it has no reason of its own for either.
_NO_SECRET = re.compile(r"secret \"([^\"]{1,253})\" not found")
_NO_ENTRY = re.compile(r"couldn't find key (\S{1,253}) in Secret \S+/(\S{1,253})")
_TOO_FEW = re.compile(r"Insufficient ([A-Za-z0-9./_-]{0,127}[A-Za-z0-9])")
_EVICTIONS = {"TerminationByKubelet", "EvictionByEvictionAPI"}
_LOST_NODE = {"DeletionByTaintManager", "DeletionByPodGC"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What holds a pod up, or took it away."""

    reason: str
    message: str


def problem(pod: dict[str, Any]) -> Problem | None:
    """What keeps *pod* from starting, or None where nothing is known to."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return _unschedulable(redact(condition.get("message", "")))
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        said = redact(waiting.get("message", "")) or str(waiting.get("reason", ""))
        if waiting.get("reason") in _IMAGE:
            return Problem(Reason.IMAGE_PULL_FAILED, f"image {container.get('image', '')}: {said}")
        if waiting.get("reason") in _CONFIG:
            return _missing_secret(said) or Problem(
                Reason.CONTAINER_CONFIG_ERROR, f"container {container['name']}: {said}"
            )
    return None


def disruption(pod: dict[str, Any]) -> Problem | None:
    """What the cluster took *pod* away for, where it was the cluster."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition.get("type") != "DisruptionTarget" or condition.get("status") != "True":
            continue
        cause, said = condition.get("reason", ""), redact(condition.get("message", ""), limit=400)
        node = pod.get("spec", {}).get("nodeName", "")
        if cause == "PreemptionByScheduler":
            return Problem(Reason.PREEMPTED, f"the pod made room for one of a higher priority: {said}")
        if cause in _EVICTIONS:
            return Problem(Reason.EVICTED, f"the pod was evicted from node {node!r}: {said}")
        if cause in _LOST_NODE:
            return Problem(Reason.NODE_LOST, f"node {node!r} went away: {said}")
        return Problem(Reason.DISRUPTED, f"the pod was stopped ({cause or 'no reason given'}): {said}")
    return None


def over_its_limits(pod: dict[str, Any]) -> Problem | None:
    """The kubelet's words where it evicted *pod* for what the pod itself did, such as filling its own disk."""
    status = pod.get("status", {})
    if status.get("reason") != "Evicted" or disruption(pod) is not None:
        return None
    said = redact(status.get("message", ""), limit=400)
    return Problem(Reason.EVICTED, f"the kubelet evicted the pod: {said}; raise the limit that it names")


def lost_node(pod: dict[str, Any]) -> Problem | None:
    """What is waited for where the node of a running *pod* does not answer: nobody knows whether it still writes."""
    found = disruption(pod)
    if found is None or found.reason != Reason.NODE_LOST or is_over(pod) or "deletionTimestamp" not in pod["metadata"]:
        return None
    node = pod.get("spec", {}).get("nodeName", "")
    return Problem(
        Reason.NODE_LOST,
        f"node {node!r} does not answer, and pod {pod['metadata']['name']!r} may still run there; the next attempt"
        f" begins when the node is back, or is removed: kubectl delete node {node}",
    )


def is_running(pod: dict[str, Any]) -> bool:
    """Whether the pod's containers have started and not ended."""
    return bool(pod.get("status", {}).get("phase") == "Running")


def is_over(pod: dict[str, Any]) -> bool:
    """Whether the pod's containers have ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def has_condition(pod: dict[str, Any], kind: str) -> bool:
    """Whether the pod's condition of type *kind* is True."""
    return any(c.get("type") == kind and c.get("status") == "True" for c in pod.get("status", {}).get("conditions", []))


def termination(pod: dict[str, Any], container: str) -> tuple[int, str] | None:
    """The exit code and the termination message of *container*, where it has ended."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        ended = status.get("state", {}).get("terminated")
        if status.get("name") == container and ended is not None:
            return int(ended.get("exitCode", 0)), str(ended.get("message", ""))
    return None


def _unschedulable(said: str) -> Problem:
    short = sorted(set(_TOO_FEW.findall(said)))
    what = f"no node has enough {', '.join(short)} free" if short else "no node takes the pod"
    return Problem(Reason.UNSCHEDULABLE, f"{what}: {said}")


def _missing_secret(said: str) -> Problem | None:
    if (found := _NO_SECRET.search(said)) is not None:
        return Problem(Reason.SECRET_MISSING, f"no Secret {found[1]!r} in the namespace; create it, and the pod starts")
    if (found := _NO_ENTRY.search(said)) is not None:
        return Problem(
            Reason.SECRET_MISSING, f"Secret {found[2]!r} has no entry {found[1]!r}; add it, and the pod starts"
        )
    return None
