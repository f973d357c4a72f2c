"""Where the route table comes from: a file, or a cluster, with all that is found out beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key, report_token
from largeforge.router import clients, external, table_file
from largeforge.router.dispatch import Dispatcher
from largeforge.router.external import Externals
from largeforge.router.load import Loads
from largeforge.router.probe import Probes, asking
from largeforge.router.report import Reports
from largeforge.router.settings import Settings, StartError
from largeforge.router.table import EngineKey, RouteTable
from largeforge.router.watch import TableWatch

NAMESPACE_KEY_BYTES = 32
KEYS_POLL_SECONDS = 2.0

Publish = Callable[[RouteTable], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """What keeps the table as it should be."""

    jobs: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """What runs as long as the router does."""
    reports: Reports | None = None
    """What the operator is told; None without a cluster."""


def load_namespace_key(path: Path) -> bytes:
    """The key from which those of the namespace's engines, and the report's token, are computed."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StartError(f"the namespace key cannot be read: {error}; mount it or set its variable") from error
    if len(key) != NAMESPACE_KEY_BYTES:
        raise StartError(f"{path}: the namespace key must have {NAMESPACE_KEY_BYTES} bytes (got {len(key)})")
    return key


def engine_keys(namespace_key: bytes) -> EngineKey:
    """What computes an engine's key from the namespace's."""

    def of_service(service: InferenceService) -> str:
        return engine_key(namespace_key, service.metadata.uid)

    return of_service


def load_trust(settings: Settings) -> ssl.SSLContext:
    """Whose certificates External experts may have."""
    try:
        return external.trust(settings.external_ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise StartError(
            f"{settings.external_ca_file}: no certificates of authorities ({error}); put them there in PEM"
            " (LARGEFORGE_EXTERNAL_CA_FILE)"
        ) from error


async def from_file(path: Path, settings: Settings, publish: Publish) -> Source:
    """The table of a file, once."""
    keys = await asyncio.to_thread(external.read_keys, settings.external_keys_dir)
    publish(await asyncio.to_thread(table_file.load, path, Externals(settings.external_hosts, keys)))
    return Source()


async def from_cluster(
    settings: Settings,
    dispatcher: Dispatcher,
    publish: Publish,
    *,
    trust: ssl.SSLContext,
    stack: contextlib.AsyncExitStack,
) -> Source:
    """The tables of a cluster's objects, as they change; *stack* closes what was opened."""
    from largeforge.kube.client import connect  # its libraries take a second to load, which a file does not need

    namespace_key = await asyncio.to_thread(load_namespace_key, settings.namespace_key_file)
    reports = Reports(report_token(namespace_key), dispatcher.generations)
    probes = Probes(await stack.enter_async_context(asking(trust)), every_seconds=settings.external_probe_seconds)
    stack.push_async_callback(probes.close)
    reports.probes = probes.report
    externals = Externals(settings.external_hosts, problem=probes.problem)

    def published(table: RouteTable) -> None:
        publish(table)
        probes.use(table.externals, table.refused)

    cluster = await stack.enter_async_context(connect(user_agent="largeforge-router"))
    watch = TableWatch(
        cluster,
        settings.namespace,
        engine_key=engine_keys(namespace_key),
        publish=published,
        externals=externals,
        snapshot_file=settings.snapshot_file,
    )
    probes.changed = watch.refresh
    jobs = [watch.run, Loads(dispatcher.pool, every_seconds=settings.load_seconds).run]
    if settings.external_keys_dir is not None:
        keys = ExternalKeys(externals, settings.external_keys_dir, watch.refresh)
        await keys.look()
        jobs.append(keys.run)
    return Source(jobs, reports)


class ExternalKeys:
    """Takes over the keys of External experts when their files change."""

    def __init__(self, externals: Externals, directory: Path, changed: Callable[[], None]) -> None:
        self._externals = externals
        self._directory = directory
        self._changed = changed
        self._seen: clients.Fingerprint | None = None

    async def look(self) -> None:
        """Read the files, if they are not as they were; where they cannot be read the last keys stay."""
        try:
            found = await asyncio.to_thread(clients.fingerprint, self._directory)
            if found == self._seen:
                return
            self._externals.keys = await asyncio.to_thread(external.read_keys, self._directory)
        except OSError as error:
            log.warning("the keys of External experts could not be read, the last ones stay: %s", error)
            return
        self._seen = found
        self._changed()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(KEYS_POLL_SECONDS)
            await self.look()
