"""A typed client for programs: apply an object, wait for it, read what came of it.

Needs the extra `cli`, and a kubeconfig or a pod's service account. `docs/cli.md` has an example.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from largeforge.api import crds
from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import ArtifactRecord, FineTuneJobStatus
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition, is_true
from largeforge.api.names import API_VERSION, COMPLETE, FAILED, READY
from largeforge.api.quantizejob import QuantizeJob
from largeforge.kube.client import connect
from largeforge.kube.cluster import Cluster, Manifest, Resource
from largeforge.kube.transport import default_namespace

MANAGER = "largeforge-client"
"""What is applied is applied under this field manager: the fields that the program names, and no others."""

K = TypeVar("K", FineTuneJob, QuantizeJob, InferenceService, Expert)
J = TypeVar("J", FineTuneJob, QuantizeJob)


class ClientError(Exception):
    """What was waited for does not come; one line."""


class JobFailedError(ClientError):
    """A job has ended without a result; `reason` is the one of its condition."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Result:
    """What a complete job made."""

    artifact: ArtifactRecord
    """Where it lies, and its digest."""
    metrics: Mapping[str, float]
    """What was measured, by name; for a QuantizeJob the source's and the chosen method's perplexity."""
    expert: str | None
    """The Expert that was published."""


class Client:
    """Reads and writes the four kinds in one namespace; made by `open_client`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace

    async def apply(self, wanted: K) -> K:
        """Create or change *wanted*, by server-side apply of the fields that were given; the object as it is then.

        Raises `Invalid` with the API server's words where it refuses.
        """
        given = wanted.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"status"})
        metadata: dict[str, Any] = {"name": wanted.metadata.name, "namespace": self.namespace}
        if wanted.metadata.labels:
            metadata["labels"] = wanted.metadata.labels
        manifest: Manifest = given | {"apiVersion": API_VERSION, "kind": wanted.kind, "metadata": metadata}
        stored = await self._cluster.apply(manifest, manager=MANAGER)
        return type(wanted).model_validate(stored)

    async def get(self, kind: type[K], name: str) -> K | None:
        """The object of *kind* called *name*, or None."""
        found = await self._cluster.get(_resource(kind), self.namespace, name)
        return None if found is None else kind.model_validate(found)

    async def wait(self, awaited: K, kind: str | None = None, *, seconds: float) -> K:
        """The object when its condition *kind* is True: by default Complete of a job, Ready of the others.

        What was said of an earlier spec does not count. Raises `JobFailedError` as soon as a job has failed, and
        `ClientError` where the object goes, or *seconds* have passed.
        """
        wanted = kind or (COMPLETE if isinstance(awaited, FineTuneJob | QuantizeJob) else READY)
        last = awaited
        try:
            async with asyncio.timeout(seconds), aclosing(self._versions(awaited)) as versions:
                async for last in versions:
                    if _holds(last, wanted, generation=awaited.metadata.generation):
                        return last
        except TimeoutError as exc:
            raise ClientError(f"{_named(last)} is not {wanted} after {seconds:.0f} s: {_state(last, wanted)}") from exc
        raise AssertionError("a watch does not end")

    async def result(self, job: J, *, seconds: float) -> Result:
        """What *job* made, when it is complete; raises as `wait` does."""
        done = await self.wait(job, seconds=seconds)
        status = done.status
        if status.artifact is None:
            raise ClientError(f"{_named(done)} is complete and names no artifact; look at its status.error")
        return Result(status.artifact, _metrics(done), status.expert_ref.name if status.expert_ref else None)

    async def _versions(self, awaited: K) -> AsyncGenerator[K, None]:
        """The object as it is, then each time that it changes."""
        name, kind = awaited.metadata.name, type(awaited)
        seen = False
        async for event in self._cluster.watch(_resource(kind), self.namespace):
            if event.type == "SYNCED":
                if not seen:
                    raise ClientError(f"no {awaited.kind} {name!r} in namespace {self.namespace!r}; apply it first")
            elif event.object["metadata"]["name"] == name:
                if event.type == "DELETED":
                    raise ClientError(f"{_named(awaited)} was deleted")
                seen = True
                yield kind.model_validate(event.object)


@asynccontextmanager
async def open_client(*, namespace: str | None = None, context: str | None = None) -> AsyncIterator[Client]:
    """A client for *namespace*, by default the one that kubectl would use; *context* is one of the kubeconfig."""
    async with connect(user_agent=MANAGER, context=context) as cluster:
        yield Client(cluster, namespace or default_namespace(context))


def _resource(kind: type[FineTuneJob | QuantizeJob | InferenceService | Expert]) -> Resource:
    return Resource(API_VERSION, next(k.plural for k in crds.KINDS if k.model is kind))


def _holds(found: FineTuneJob | QuantizeJob | InferenceService | Expert, kind: str, *, generation: int) -> bool:
    """Whether the condition *kind* is True of *generation* or a later one; raises where a job has failed instead."""
    if found.status.observed_generation < generation:
        return False
    if is_true(found.status.conditions, kind):
        return True
    failed = condition(found.status.conditions, FAILED)
    if isinstance(found, FineTuneJob | QuantizeJob) and failed is not None and failed.status == "True":
        raise JobFailedError(f"{_named(found)} failed, {failed.reason}: {failed.message}", reason=failed.reason)
    return False


def _metrics(job: FineTuneJob | QuantizeJob) -> dict[str, float]:
    if isinstance(job.status, FineTuneJobStatus):
        return {m.name: float(m.value) for m in job.status.metrics}
    chosen = next((a for a in job.status.attempts if a.method == job.status.chosen_method), None)
    figures = {"perplexity_before": chosen.perplexity_before, "perplexity": chosen.perplexity_after} if chosen else {}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _named(found: FineTuneJob | QuantizeJob | InferenceService | Expert) -> str:
    return f"{found.kind} {found.metadata.name}"


def _state(found: FineTuneJob | QuantizeJob | InferenceService | Expert, kind: str) -> str:
    known = condition(found.status.conditions, kind)
    if known is None:
        return "the operator has not seen it"
    return f"{known.reason}: {known.message}" if known.message else known.reason
