"""The route table from a cluster: three watches, and a table built anew a moment after anything has changed.

Where the API server does not answer at the start, the table is that of the snapshot which an earlier run of this
container has left, until it does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
from largeforge.router import snapshot
from largeforge.router.external import Externals
from largeforge.router.snapshot import Objects, SnapshotError
from largeforge.router.table import EngineKey, RouteTable, build

DEBOUNCE_SECONDS = 0.02
"""A change of one pod touches several objects; one table serves them all."""
RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 3.0
"""How long the API server has for its lists before the snapshot is used; it needs a few tenths."""

log = logging.getLogger(__name__)

_KINDS: dict[Resource, Callable[[Manifest], Any]] = {
    EXPERTS: Expert.model_validate,
    INFERENCESERVICES: InferenceService.model_validate,
    ENDPOINTSLICES: lambda manifest: manifest,
}


class TableWatch:
    """Publishes each new table, the first once all is listed; while the API server is away, the last stays in use."""

    def __init__(  # noqa: PLR0913 - what a table is made of, and where it goes
        self,
        cluster: Cluster,
        namespace: str,
        *,
        engine_key: EngineKey,
        publish: Callable[[RouteTable], None],
        externals: Externals | None = None,
        snapshot_file: Path | None = None,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._engine_key = engine_key
        self._publish = publish
        self._externals = externals
        self._objects: dict[Resource, dict[str, Any]] = {resource: {} for resource in _KINDS}
        self._synced: set[Resource] = set()
        self._changed = asyncio.Event()
        self._published: RouteTable | None = None
        self._snapshot_file = snapshot_file
        self._recalled: tuple[Objects, float] | None = None
        """The snapshot in use and when it was written, by the monotonic clock; None once there is a table of now."""
        self._unsaved = asyncio.Event()

    async def run(self) -> None:
        """Follow the cluster, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for resource in _KINDS:
                tasks.create_task(self._follow(resource))
            tasks.create_task(self._rebuild())
            if self._snapshot_file is not None:
                tasks.create_task(self._recall(self._snapshot_file))
                tasks.create_task(self._save(self._snapshot_file))

    def refresh(self) -> None:
        """Build the table anew: what is known of External experts has changed."""
        if self._recalled is not None:
            self._publish_recalled(*self._recalled)
        elif self._published is not None:
            self._changed.set()

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
            if self._published is not None and self._published.snapshot_age_seconds is None:
                await asyncio.sleep(DEBOUNCE_SECONDS)
            self._changed.clear()
            self._recalled = None
            before, table = self._published, self._table(self._known())
            # Most changes of a status mean nothing to a request.
            if before is None or before.snapshot_age_seconds is not None or table != before:
                self._published = table
                self._publish(table)
                self._unsaved.set()

    def _known(self) -> Objects:
        found = self._objects
        return Objects(
            [*found[EXPERTS].values()], [*found[INFERENCESERVICES].values()], [*found[ENDPOINTSLICES].values()]
        )

    def _table(self, objects: Objects) -> RouteTable:
        return build(objects.experts, objects.services, objects.slices, self._engine_key, self._externals)

    async def _recall(self, path: Path) -> None:
        """Use the snapshot where the API server has not answered in time."""
        await asyncio.sleep(PATIENCE_SECONDS)
        if self._published is not None:
            return
        try:
            found = await asyncio.to_thread(snapshot.read, path, self._namespace)
        except SnapshotError as error:
            log.warning("the snapshot %s is not used: %s", path, error)
            return
        if found is None or self._published is not None:  # the API server may just have answered
            return
        objects, age = found
        log.warning("the API server does not answer: the table is that of %.0f s ago, from %s", age, path)
        self._recalled = objects, time.monotonic() - age
        self._publish_recalled(*self._recalled)

    def _publish_recalled(self, objects: Objects, written: float) -> None:
        self._published = replace(self._table(objects), snapshot_age_seconds=time.monotonic() - written)
        self._publish(self._published)

    async def _save(self, path: Path) -> None:
        """Keep the objects of each new table; where several come at once, those of the last."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await asyncio.to_thread(snapshot.write, path, self._namespace, self._known())
            except OSError as error:
                log.warning("no snapshot is kept: %s", error)


def _is_engines(manifest: Manifest) -> bool:
    return INFERENCESERVICE_LABEL in (manifest["metadata"].get("labels") or {})


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
