"""The operator's process: kopf's watches, our queues and the slow resync, side by side until a signal comes.

Of several replicas one acts: the one that holds the Lease. The others are ready, take posts of progress and wait.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import kopf

from largeforge.controllers.context import Context
from largeforge.controllers.enginehttp import HttpEngines, connect_session
from largeforge.controllers.fleet import KINDS, Fleet
from largeforge.controllers.handlers import CHILD_LABELS, CHILDREN, CONTROLLERS, parents, register
from largeforge.controllers.health import serve_health
from largeforge.controllers.keys import read_master_key
from largeforge.controllers.metrics import CALLS, LEADER, REGISTRY
from largeforge.controllers.progressboard import Board
from largeforge.controllers.progressserver import keep_progress
from largeforge.controllers.progresstls import ServerTls, authority
from largeforge.controllers.progresstokens import Tokens
from largeforge.controllers.resync import Resync, Seen
from largeforge.controllers.routerreports import HttpAsk, Poller
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key, WorkQueue
from largeforge.kube.client import connect
from largeforge.kube.cluster import EXPERTS, Cluster, ClusterError, Resource
from largeforge.kube.lease import Alone, Leadership, Lease, LeaseName
from largeforge.kube.traffic import tracing
from largeforge.kube.transport import access, open_transport
from largeforge.resources.progress import ProgressTarget

log = logging.getLogger(__name__)

CRD_SECONDS = 2.0
"""How often we look for our CRDs where they are not there yet."""
STOP_SECONDS = 3.0
"""How long the parts may take to end; what they leave half done, the next operator does again."""

Queues = Mapping[Resource, WorkQueue]
Start = Callable[[], Coroutine[Any, Any, None]]
"""Starts a part of the operator."""


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; an exception of any part ends them all."""
    master_key = read_master_key(settings.master_key_file)
    stop, ready = asyncio.Event(), asyncio.Event()
    started: list[asyncio.Task[None]] = []
    catch_signals(stop)
    async with (
        serve_health(settings.port, ready=ready, alive=lambda: not any(task.done() for task in started)),
        elected(settings) as leadership,
        AsyncExitStack() as stack,
    ):
        ca = authority(master_key)
        target = ProgressTarget(settings.progress_url, ca.pem) if settings.progress_url else None
        cluster = await stack.enter_async_context(connect(observe=CALLS.observe, guard=leadership.check))
        session = await stack.enter_async_context(connect_session())
        context = Context(
            cluster=cluster,
            engines=HttpEngines(session, guard=leadership.check),
            master_key=master_key,
            settings=settings,
            progress=target,
        )
        queues, fleet, seen = make_queues(context, leadership), Fleet(), Seen()
        REGISTRY.register(fleet)
        stack.callback(REGISTRY.unregister, fleet)
        listen = partial(register, queues=queues, fleet=fleet, seen=seen)
        slow = Resync(
            cluster=cluster,
            seen=seen,
            namespaces=sorted(settings.namespaces) or [""],
            kinds=dict.fromkeys(CONTROLLERS) | dict.fromkeys(CHILDREN, CHILD_LABELS),
            parents=parents,
            wake=lambda resource, key: queues[resource].add(key),
        )
        poller = Poller(
            context.reports, cluster, HttpAsk(session), queues[EXPERTS].add, master_key, sorted(settings.namespaces)
        )
        acting: dict[str, Start] = {
            "lease": leadership.keep,
            "watches": partial(watch, settings, cluster, listen, stop=stop, ready=ready),
            "resync": partial(slow.run, settings.resync_seconds),
            "reports": poller.run,
            **{f"queue of {queue.kind}": queue.run for queue in queues.values()},
        }
        parts: dict[str, Start] = {"leadership": partial(lead, leadership, acting, ready=ready)}
        if target is not None:
            # In every replica: the Service sends posts to any of them, and what they write is upon a resourceVersion.
            posts = await stack.enter_async_context(connect(observe=CALLS.observe))
            parts["progress"] = partial(
                keep_progress,
                settings.progress_port,
                ServerTls(ca, urlsplit(target.url).hostname or ""),
                tokens=Tokens(posts),
                board=Board(posts, settings.namespaces),
            )
        started += [asyncio.create_task(together(parts)), asyncio.create_task(_wait(stop))]
        await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
        ended, _ = started
        ended.cancel()
        await asyncio.wait([ended])
        if not stop.is_set():
            ended.result()


@asynccontextmanager
async def elected(settings: Settings) -> AsyncIterator[Leadership]:
    """The right to act, which is given up at the end: when all that acts has ended."""
    if settings.lease_name is None:
        yield Alone()
        return
    # A transport of its own: renewals wait for no watch and no busy queue.
    async with open_transport(user_agent="largeforge-lease", observe=CALLS.observe) as transport:
        lease = Lease(
            transport.call,
            LeaseName(settings.operator_namespace or "", settings.lease_name),
            identity=settings.pod_name or "",
            seconds=settings.lease_seconds,
        )
        LEADER.set_function(lambda: float(lease.held))
        try:
            yield lease
        finally:
            await lease.release()


async def lead(leadership: Leadership, acting: Mapping[str, Start], *, ready: asyncio.Event) -> None:
    """Wait for the right to act, then act until it is lost: what is half done here another replica does again."""
    await leadership.acquire(ready.set)
    await together(acting)


async def together(parts: Mapping[str, Start]) -> None:
    """Run *parts* side by side, for ever: the first that ends ends all, with its exception or one that names it."""
    tasks = [asyncio.create_task(start(), name=name) for name, start in parts.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError(f"{', '.join(task.get_name() for task in done)} ended without a reason")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)


def catch_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set *stop*; as PID 1 of a container we would ignore them otherwise."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def make_queues(context: Context, leadership: Leadership) -> Queues:
    """One queue for each kind of ours."""
    return {
        resource: WorkQueue(
            KINDS[resource], partial(_call, reconcile, context, leadership), workers=context.settings.workers
        )
        for resource, reconcile in CONTROLLERS.items()
    }


async def watch(
    settings: Settings,
    cluster: Cluster,
    listen: Callable[[kopf.OperatorRegistry], None],
    *,
    stop: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    """Run kopf once our CRDs are there: it looks for resources only when it starts. *listen* registers our handlers."""
    await wait_for_crds(settings, cluster)
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    listen(registry)
    started = asyncio.Event()
    existing = asyncio.all_tasks()
    parts = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=sorted(settings.namespaces),
        standalone=True,
        ready_flag=started,
    )
    catch_signals(stop)  # kopf has put its own handlers there, which wait for all that runs in this loop
    kopf_task = asyncio.create_task(kopf.run_tasks(parts, ignored=existing))
    try:
        await asyncio.wait([kopf_task, asyncio.create_task(_wait(started))], return_when=asyncio.FIRST_COMPLETED)
        if started.is_set():
            ready.set()
            log.info("watching %s", ", ".join(sorted(settings.namespaces)) or "all namespaces")
        await kopf_task
    finally:
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
        settings.watching.label_selectors[group, version, resource.plural] = ",".join(
            f"{label}={value}" for label, value in CHILD_LABELS.items()
        )
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


async def _call(reconcile: Any, context: Context, leadership: Leadership, key: Key) -> float | None:
    leadership.check()  # a process that was stopped for a minute learns here that another one acts
    again: float | None = await reconcile(key, context)
    return again


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
