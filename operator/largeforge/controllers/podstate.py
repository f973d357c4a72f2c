"""Why a pod does not start, and how it ended, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.redact import redact

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What holds a pod up."""

    reason: str
    message: str


def problem(pod: dict[str, Any]) -> Problem | None:
    """What keeps *pod* from starting, or None where nothing is known to."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Problem(Reason.UNSCHEDULABLE, f"no node takes the pod: {redact(condition.get('message', ''))}")
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        said = redact(waiting.get("message", ""))
        if waiting.get("reason") in _IMAGE:
            return Problem(Reason.IMAGE_PULL_FAILED, f"image {container.get('image', '')}: {said or waiting['reason']}")
        if waiting.get("reason") in _CONFIG:
            return Problem(Reason.CONTAINER_CONFIG_ERROR, f"container {container['name']}: {said or waiting['reason']}")
    return None


def is_running(pod: dict[str, Any]) -> bool:
    """Whether the pod's containers have started and not ended."""
    return bool(pod.get("status", {}).get("phase") == "Running")


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
