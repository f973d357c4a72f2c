"""One FineTuneJob from its creation to Complete: the benchmark plays the Job's controller, and counts the writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from server import Server, until
from subject import Operator

from largeforge.kube.cluster import FINETUNEJOBS, JOBS, PODS, Manifest
from tests.unit.training import passed, result

NAME = "model"
MADE = {"p1": passed, "a1": result}
"""What the pod of each stage leaves as its termination message."""


async def live(
    server: Server, operator: Operator, namespace: str, verbs: Sequence[str], chatter: Sequence[str]
) -> tuple[Manifest, list[Manifest], dict[str, float]]:
    """The FineTuneJob as it is then, its Jobs, and how often the operator wrote."""
    writes, events = operator.requests(*verbs, without=chatter), _events(operator)
    await server.finetunejob(namespace, NAME)
    for stage, made in MADE.items():
        name = f"{NAME}-r1-{stage}"

        async def begun(name: str = name) -> bool:
            status = (await server.get(FINETUNEJOBS, namespace, NAME)).get("status", {})
            in_status = status.get("run", {}).get("jobName") == name
            return in_status and await server.has(JOBS, namespace, name)

        await until(begun, name)
        digest = (await server.get(FINETUNEJOBS, namespace, NAME))["status"]["run"]["digest"]
        await pod(server, namespace, name, running=True)
        await pod(server, namespace, name, running=False, message=made(digest=digest))
        await complete(server, namespace, name)

    async def over() -> bool:
        return (await server.get(FINETUNEJOBS, namespace, NAME)).get("status", {}).get("phase") == "Complete"

    await until(over, "a FineTuneJob that is Complete")
    figures = {
        "life_writes": operator.requests(*verbs, without=chatter) - writes,
        "life_events": _events(operator) - events,
    }
    jobs = [await server.get(JOBS, namespace, f"{NAME}-r1-{stage}") for stage in MADE]
    return await server.get(FINETUNEJOBS, namespace, NAME), jobs, figures


async def pod(server: Server, namespace: str, job: str, *, running: bool, message: str = "") -> None:
    """The Job's pod, as its controller makes it and the kubelet reports it."""
    batch = await server.get(JOBS, namespace, job)
    name, template = f"{job}-0-abcde", batch["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": batch["metadata"]["uid"], "controller": True}
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}}
    if running:
        metadata = {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
        spec = template["spec"] | {"nodeName": "node-1"}
        await server.create(PODS, namespace, head | {"metadata": metadata, "spec": spec})
    ended = {"exitCode": 0, "message": message, "startedAt": _now(), "finishedAt": _now()}
    state = {"running": {"startedAt": _now()}} if running else {"terminated": ended}
    container = {"name": "trainer", "image": "x:1", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": "Running" if running else "Succeeded", "containerStatuses": [container]}
    await server.status(PODS, head | {"status": status}, "kubelet")


async def complete(server: Server, namespace: str, job: str) -> None:
    """What the Job's controller writes at the end."""
    times = {"lastTransitionTime": _now(), "lastProbeTime": _now(), "status": "True", "reason": "x", "message": "x"}
    status = {
        "startTime": _now(),
        "completionTime": _now(),
        "succeeded": 1,
        "completedIndexes": "0",
        "uncountedTerminatedPods": {},
        "conditions": [times | {"type": kind} for kind in ("SuccessCriteriaMet", "Complete")],
    }
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job, "namespace": namespace}}
    await server.status(JOBS, head | {"status": status}, "job-controller")


def _events(operator: Operator) -> int:
    return int(operator.total("api_requests_total", verb="create", resource="events"))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
