"""The operator's process: kopf's watches, our queues and the slow resync, side by side until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import kopf

from largeforge.api.names import MANAGED_BY, MANAGER
from largeforge.controllers.context import Context
from largeforge.controllers.enginehttp import HttpEngines, connect_session
from largeforge.controllers.fleet import KINDS, Fleet
from largeforge.controllers.handlers import CHILDREN, CONTROLLERS, register
from largeforge.controllers.health import serve_health
from largeforge.controllers.keys import read_master_key
from largeforge.controllers.metrics import CALLS, REGISTRY
from largeforge.controllers.progressboard import Board
from largeforge.controllers.progressserver import keep_progress
from largeforge.controllers.progresstls import ServerTls, authority
from largeforge.controllers.progresstokens import Tokens
from largeforge.controllers.routerreports import HttpAsk, Poller
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key, WorkQueue
from largeforge.kube.client import connect
from largeforge.kube.cluster import EXPERTS, Cluster, ClusterError, Resource
from largeforge.kube.traffic import tracing
from largeforge.kube.transport import access
from largeforge.resources.progress import ProgressTarget

log = logging.getLogger(__name__)

CRD_SECONDS = 2.0
"""How often we look for our CRDs where they are not there yet."""
STOP_SECONDS = 3.0
"""How long the parts may take to end; what they leave half done, the next operator does again."""

Queues = Mapping[Resource, WorkQueue]


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; an exception of any part ends them all."""
    master_key = read_master_key(settings.master_key_file)
    stop, ready = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    catch_signals(stop)
    async with (
        serve_health(settings.port, ready=ready, alive=lambda: not any(task.done() for task in tasks)),
        connect(observe=CALLS.observe) as cluster,
        connect_session() as session,
    ):
        engines = HttpEngines(session)
        ca = authority(master_key)
        target = ProgressTarget(settings.progress_url, ca.pem) if settings.progress_url else None
        context = Context(cluster=cluster, engines=engines, master_key=master_key, settings=settings, progress=target)
        queues = make_queues(context)
        poller = Poller(
            context.reports, cluster, HttpAsk(session), queues[EXPERTS].add, master_key, sorted(settings.namespaces)
        )
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "watches": watch(settings, cluster, queues, stop=stop, ready=ready),
            "resync": resync(settings, cluster, queues),
            "reports": poller.run(),
            **{f"queue of {queue.kind}": queue.run() for queue in queues.values()},
        }
        if target is not None:
            parts["progress"] = keep_progress(
                settings.progress_port,
                ServerTls(ca, urlsplit(target.url).hostname or ""),
                tokens=Tokens(cluster),
                board=Board(cluster, settings.namespaces),
            )
        tasks += [asyncio.create_task(part, name=name) for name, part in parts.items()]
        stopping = asyncio.create_task(_wait(stop), name="signal")
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in done:
            task.result()
        if not stop.is_set():
            raise RuntimeError(f"{', '.join(t.get_name() for t in done)} ended without a reason")


def catch_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set *stop*; as PID 1 of a container we would ignore them otherwise."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def make_queues(context: Context) -> Queues:
    """One queue for each kind of ours."""
    return {
        resource: WorkQueue(KINDS[resource], partial(_call, reconcile, context), workers=context.settings.workers)
        for resource, reconcile in CONTROLLERS.items()
    }


async def watch(
    settings: Settings, cluster: Cluster, queues: Queues, *, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Run kopf once our CRDs are there: it looks for resources only when it starts."""
    await wait_for_crds(settings, cluster)
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    fleet = Fleet()
    register(registry, queues, fleet)
    REGISTRY.register(fleet)
    started = asyncio.Event()
    kopf_task = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=kopf_settings(),
            clusterwide=not settings.namespaces,
            namespaces=sorted(settings.namespaces),
            standalone=True,
            ready_flag=started,
        )
    )
    try:
        await asyncio.wait([kopf_task, asyncio.create_task(_wait(started))], return_when=asyncio.FIRST_COMPLETED)
        if started.is_set():
            catch_signals(stop)  # kopf has put its own handlers there, which wait for all that runs in this loop
            ready.set()
            log.info("watching %s", ", ".join(sorted(settings.namespaces)) or "all namespaces")
        await kopf_task
    finally:
        REGISTRY.unregister(fleet)
        kopf_task.cancel()


async def wait_for_crds(settings: Settings, cluster: Cluster) -> None:
    """Return when every kind of ours can be listed."""
    namespace = min(settings.namespaces, default="")
    for resource in CONTROLLERS:
        while True:
            try:
                await cluster.list(resource, namespace)
                break
            except ClusterError as exc:
                log.warning("waiting for %s: %s", resource.plural, exc)
                await asyncio.sleep(CRD_SECONDS)


async def resync(settings: Settings, cluster: Cluster, queues: Queues) -> None:
    """Look at every object from time to time: kopf resumes a cut watch, and does not see what was lost in between."""
    while True:
        await asyncio.sleep(settings.resync_seconds)
        for resource, queue in queues.items():
            for namespace in sorted(settings.namespaces) or [""]:
                try:
                    for item in await cluster.list(resource, namespace):
                        queue.add(Key(item["metadata"]["namespace"], item["metadata"]["name"]))
                except ClusterError as exc:
                    log.warning("resync of %s: %s", resource.plural, exc)


def kopf_settings() -> kopf.OperatorSettings:
    """All that we set of kopf, each with its reason."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our Events are part of the plan
    settings.scanning.disabled = True  # no watch of CRDs and namespaces: rights that we do not need
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310  # a little longer, so that it is the server that ends a watch
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 90  # bookmarks come every minute: a watch silent for longer is dead
    settings.watching.chunk_size = 500  # a large list is no single large answer
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.queueing.exit_timeout = 0.1  # handlers only put a key on a queue
    settings.peering.standalone = True  # peering is no leader election
    for resource in CHILDREN:  # the server filters: of all pods of a cluster, ours only
        group, _, version = resource.api_version.rpartition("/")
        settings.watching.label_selectors[group, version, resource.plural] = f"{MANAGED_BY}={MANAGER}"
    return settings


async def login(**_: Any) -> kopf.AiohttpSession:
    """The same credentials that our own client uses; kopf asks again when they are refused.

    The session is ours, as kopf would make it, so that its requests are counted with the others; kopf closes it.
    """
    found = await access()
    info = kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.ca_file,
        certificate_path=found.certificate_file,
        private_key_path=found.key_file,
        scheme="Bearer" if found.token else None,
        token=found.token,
        insecure=found.insecure,
    )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=found.proxy,
        trust_env=False,
        trace_configs=[tracing(CALLS.observe)],
    )
    return kopf.AiohttpSession(server=found.server, aiohttp_session=session)


async def _call(reconcile: Any, context: Context, key: Key) -> float | None:
    again: float | None = await reconcile(key, context)
    return again


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
