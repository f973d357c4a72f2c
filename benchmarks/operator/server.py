"""What the benchmark does at the API server: the user, the Job's controller, and whoever else lives there."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from dev.cluster.programs import program
from dev.paths import REPO
from largeforge.kube.cluster import FINETUNEJOBS, JOBS, PERSISTENTVOLUMECLAIMS, PODS, Manifest, Resource
from largeforge.kube.transport import APPLY, Missing, Request, Transport, path

AT_ONCE = 24
SERVER_SET = (
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
)


def kubectl(kubeconfig: Path, *arguments: str) -> None:
    """Run kubectl; what it says is shown where it fails."""
    environment = {"KUBECONFIG": str(kubeconfig), "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    subprocess.run([program("kubectl"), *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)


def install(kubeconfig: Path, namespaces: Sequence[str]) -> None:
    """Our CRDs, and the namespaces with an account for pods."""
    kubectl(kubeconfig, "apply", "--server-side", "-f", str(REPO / "crds"))
    kubectl(kubeconfig, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for namespace in namespaces:
        kubectl(kubeconfig, "create", "namespace", namespace)
        kubectl(kubeconfig, "create", "serviceaccount", "default", "-n", namespace)


class Server:
    """Requests of the benchmark's own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, resource: Resource, namespace: str, body: Manifest) -> Manifest:
        """Make one object."""
        return await self._transport.call(Request("POST", path(resource, namespace), body=body))

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object, which is there."""
        return await self._transport.call(Request("GET", path(resource, namespace, name)))

    async def has(self, resource: Resource, namespace: str, name: str) -> bool:
        """Whether it is there."""
        try:
            await self.get(resource, namespace, name)
        except Missing:
            return False
        return True

    async def count(self, resource: Resource, namespace: str) -> int:
        """How many there are, by what the server says of the rest of a list of one."""
        page = await self._transport.call(Request("GET", path(resource, namespace), {"limit": "1"}))
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    async def status(self, resource: Resource, body: Manifest, manager: str) -> None:
        """Write a status."""
        url = f"{path(resource, body['metadata']['namespace'], body['metadata']['name'])}/status"
        query = {"fieldManager": manager, "force": "true"}
        await self._transport.call(Request("PATCH", url, query, body, APPLY))

    async def claims(self, namespace: str) -> None:
        """The claims that the jobs name."""
        for name in ("models", "data"):
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
            body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
            await self.create(PERSISTENTVOLUMECLAIMS, namespace, body)

    async def finetunejob(self, namespace: str, name: str) -> Manifest:
        """What the user applies."""
        spec = {
            "method": "SFT",
            "base": {"uri": "pvc://models/base"},
            "datasets": [{"uri": "pvc://data/rows/train.jsonl"}],
            "compute": {"gpusPerNode": 0},
            "output": {"uri": "pvc://models/out"},
        }
        body = {"apiVersion": "largeforge.ai/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}
        return await self.create(FINETUNEJOBS, namespace, body)

    async def copies(self, namespace: str, model: Manifest, jobs: Sequence[Manifest], count: int) -> None:
        """*count* more FineTuneJobs in the state of *model*, with children as its *jobs*."""
        old = model["metadata"]["name"]

        async def one(number: int) -> None:
            name = f"copy-{number}"
            made = await self.finetunejob(namespace, name)
            head = {"apiVersion": made["apiVersion"], "kind": made["kind"]}
            status = renamed(model["status"], old, name)
            metadata = {"name": name, "namespace": namespace}
            await self.status(FINETUNEJOBS, head | {"metadata": metadata, "status": status}, "largeforge")
            for job in jobs:
                await self._copy_of_job(namespace, job, made, old)

        await together([lambda number=number: one(number) for number in range(count)])

    async def _copy_of_job(self, namespace: str, job: Manifest, owner: Manifest, old: str) -> None:
        body = renamed(copy.deepcopy(job), old, owner["metadata"]["name"])
        status = body.pop("status")
        body["metadata"] = {k: v for k, v in body["metadata"].items() if k not in SERVER_SET}
        body["spec"].pop("selector")
        for labels in (body["metadata"]["labels"], body["spec"]["template"]["metadata"]["labels"]):
            for label in [label for label in labels if "controller-uid" in label or "job-name" in label]:
                del labels[label]
        reference = {k: owner[k] for k in ("apiVersion", "kind")} | {k: owner["metadata"][k] for k in ("name", "uid")}
        body["metadata"]["ownerReferences"] = [reference | {"controller": True, "blockOwnerDeletion": True}]
        await self.create(JOBS, namespace, body)
        head = {k: body[k] for k in ("apiVersion", "kind")}
        metadata = {"name": body["metadata"]["name"], "namespace": namespace}
        await self.status(JOBS, head | {"metadata": metadata, "status": status}, "job-controller")

    async def foreign(self, namespace: str, count: int) -> None:
        """Pods of somebody else."""
        containers = [
            {"name": "main", "image": "x:1", "env": [{"name": f"V{i}", "value": "x" * 40} for i in range(20)]}
        ]

        async def one(number: int) -> None:
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}}
            await self.create(PODS, namespace, body | {"spec": {"containers": containers}})

        await together([lambda number=number: one(number) for number in range(count)])


async def together(calls: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """All of them, some at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(call: Callable[[], Awaitable[Any]]) -> None:
        async with places:
            await call()

    await asyncio.gather(*(one(call) for call in calls))


async def until(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 300.0, every: float = 0.05) -> None:
    """Wait for *holds*; `TimeoutError` names *what* did not come."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come in {seconds:.0f} s")
        await asyncio.sleep(every)


def renamed(value: Any, old: str, new: str) -> Any:
    """*value* with the name *old*, alone or before a hyphen, replaced."""
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(f"{old}-") else value
    if isinstance(value, list):
        return [renamed(each, old, new) for each in value]
    return {k: renamed(v, old, new) for k, v in value.items()} if isinstance(value, dict) else value
