"""Whether the cluster is ready *now*: after a restart its objects still say what was true before it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

CLOCK_STEP = timedelta(seconds=1)
"""The API's times are whole seconds."""


def node_is_ready(node: dict[str, Any], *, since: datetime) -> bool:
    """Whether the kubelet has said so after *since*."""
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and _is_after(condition["lastHeartbeatTime"], since)
        for condition in node.get("status", {}).get("conditions", [])
    )


def deployment_has_settled(deployment: dict[str, Any]) -> bool:
    """Whether its newest template, and nothing else, runs in all its replicas."""
    found, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    current = found.get("observedGeneration") == deployment["metadata"]["generation"]
    return bool(current and found.get("updatedReplicas", 0) == wanted == found.get("availableReplicas", 0))


def pod_is_ready(pod: dict[str, Any], *, since: datetime) -> bool:
    """Whether all its containers started after *since* and are ready."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    return bool(containers) and all(
        container["ready"] and _is_after(container["state"].get("running", {}).get("startedAt", ""), since)
        for container in containers
    )


def _is_after(time: str, since: datetime) -> bool:
    return bool(time) and datetime.fromisoformat(time) + CLOCK_STEP > since
