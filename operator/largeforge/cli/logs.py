"""The logs of the pods behind an object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from largeforge.api.names import INFERENCESERVICE_LABEL, JOB_NAME_LABEL
from largeforge.cli.session import CliError, Terminal
from largeforge.cli.state import row
from largeforge.cli.targets import short
from largeforge.kube.cluster import PODS, Manifest


async def pods_of(cluster: Terminal, owner: Manifest) -> list[Manifest]:
    """The pods of *owner*'s newest attempt, or of its engine; a `CliError` where there is none."""
    metadata = owner["metadata"]
    namespace = metadata["namespace"]
    if owner["kind"] == "InferenceService":
        found = await cluster.list(PODS, namespace, labels={INFERENCESERVICE_LABEL: metadata["name"]})
        # An engine's pod has no Job, whatever labels the Jobs of others carry.
        found = [pod for pod in found if JOB_NAME_LABEL not in pod["metadata"].get("labels", {})]
    else:
        job = ((owner.get("status") or {}).get("run") or {}).get("jobName")
        found = await cluster.list(PODS, namespace, labels={JOB_NAME_LABEL: job}) if job else []
    if not found:
        raise CliError(f"{short(owner)} has no pod: {_why(owner)}")
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def _why(owner: Manifest) -> str:
    told = row(owner, now=datetime.now(UTC))
    return f"{told.state}, {told.message or 'see kubectl describe'}"


def container_of(pod: Manifest, wanted: str | None) -> str:
    """The container whose log is meant: *wanted*, else the pod's main one; a `CliError` where there is none such."""
    spec = pod["spec"]
    names = [c["name"] for c in [*spec["containers"], *spec.get("initContainers", [])]]
    if wanted is None:
        return str(names[0])
    if wanted not in names:
        raise CliError(f"pod {pod['metadata']['name']} has no container {wanted!r}; it has {', '.join(names)}")
    return wanted


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the logs."""

    container: str | None = None
    follow: bool = False
    tail: int | None = None


async def show(cluster: Terminal, pods: list[Manifest], wanted: Wanted, *, say: Callable[[str], None]) -> None:
    """Say each line of the logs of *pods*, behind its pod's name where there are several.

    Those that are followed are read all at once, others one after the other.
    """
    containers = [container_of(pod, wanted.container) for pod in pods]

    async def one(pod: Manifest, container: str) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        start = f"[{name}] " if len(pods) > 1 else ""
        async for line in cluster.log(namespace, name, container, follow=wanted.follow, tail=wanted.tail):
            say(start + line)

    if wanted.follow:
        await asyncio.gather(*map(one, pods, containers))
        return
    for pod, container in zip(pods, containers, strict=True):
        await one(pod, container)
