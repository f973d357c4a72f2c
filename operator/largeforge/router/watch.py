"""The route table from a cluster: three watches, and a table built anew a moment after anything has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import INFERENCESERVICE_LABEL
from largeforge.kube.cluster import (
    ENDPOINTSLICES,
    EXPERTS,
    INFERENCESERVICES,
    Cluster,
    ClusterError,
    Manifest,
    Resource,
    WatchEvent,
)
from largeforge.router.table import EngineKey, RouteTable, build

DEBOUNCE_SECONDS = 0.02
"""A change of one pod touches several objects; one table serves them all."""
RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)

_KINDS: dict[Resource, Callable[[Manifest], Any]] = {
    EXPERTS: Expert.model_validate,
    INFERENCESERVICES: InferenceService.model_validate,
    ENDPOINTSLICES: lambda manifest: manifest,
}


class TableWatch:
    """Publishes each new table, the first once all is listed; while the API server is away, the last stays in use."""

    def __init__(
        self, cluster: Cluster, namespace: str, *, engine_key: EngineKey, publish: Callable[[RouteTable], None]
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._engine_key = engine_key
        self._publish = publish
        self._objects: dict[Resource, dict[str, Any]] = {resource: {} for resource in _KINDS}
        self._synced: set[Resource] = set()
        self._changed = asyncio.Event()
        self._published: RouteTable | None = None

    async def run(self) -> None:
        """Follow the cluster, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for resource in _KINDS:
                tasks.create_task(self._follow(resource))
            tasks.create_task(self._rebuild())

    async def _follow(self, resource: Resource) -> None:
        while True:
            try:
                async for event in self._cluster.watch(resource, self._namespace):
                    self._take(resource, event)
            except ClusterError as error:
                log.warning("the watch on %s broke off, the last table stays in use: %s", resource.plural, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _take(self, resource: Resource, event: WatchEvent) -> None:
        if event.type == "SYNCED":
            self._synced.add(resource)
        elif resource is ENDPOINTSLICES and not _is_engines(event.object):
            return  # other Services of the namespace
        else:
            name = event.object["metadata"]["name"]
            self._objects[resource].pop(name, None)
            if event.type != "DELETED":
                try:
                    self._objects[resource][name] = _KINDS[resource](event.object)
                except ValidationError as error:
                    log.warning("%s/%s is left out: %s", resource.plural, name, _first(error))
        if len(self._synced) == len(_KINDS):
            self._changed.set()

    async def _rebuild(self) -> None:
        while True:
            await self._changed.wait()
            if self._published is not None:
                await asyncio.sleep(DEBOUNCE_SECONDS)
            self._changed.clear()
            table = build(
                self._objects[EXPERTS].values(),
                self._objects[INFERENCESERVICES].values(),
                self._objects[ENDPOINTSLICES].values(),
                self._engine_key,
            )
            if table != self._published:  # most changes of a status mean nothing to a request
                self._published = table
                self._publish(table)


def _is_engines(manifest: Manifest) -> bool:
    return INFERENCESERVICE_LABEL in (manifest["metadata"].get("labels") or {})


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
