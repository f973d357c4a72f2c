"""The process: both ports, the table's source, the clients' keys, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from largeforge.router import clients, source, tls
from largeforge.router.clients import Clients, Fingerprint
from largeforge.router.dispatch import Dispatcher
from largeforge.router.health import application
from largeforge.router.learning import Learning
from largeforge.router.metrics import Metrics
from largeforge.router.protocol import ClientConnection
from largeforge.router.report import Reports
from largeforge.router.settings import Settings, StartError
from largeforge.router.table import RouteTable

BACKLOG = 1024
SWEEP_SECONDS = 0.5
CLIENTS_POLL_SECONDS = 2.0
SPARE_DESCRIPTORS = 256
"""Open files beside the sockets of requests: the other port, the API server, idle connections of engines."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """Where it listens, and where its table comes from."""

    host: str
    port: int
    health_port: int
    table: Path | None = None


def load_clients(settings: Settings) -> Clients:
    """The clients' keys; `StartError` where there are none and that is not allowed."""
    found = Clients(clients.read(settings.clients_dir))
    for problem in found.problems:
        log.error("%s: %s", settings.clients_dir, problem)
    if not found and not settings.allow_unauthenticated:
        raise StartError(
            f"{settings.clients_dir} holds no usable key, so anybody could ask; put a file for each client there"
            " (LARGEFORGE_CLIENTS_DIR), or set LARGEFORGE_ALLOW_UNAUTHENTICATED=true"
        )
    return found


async def follow_clients(
    dispatcher: Dispatcher, seen: Fingerprint, *, every_seconds: float = CLIENTS_POLL_SECONDS
) -> None:
    """Take over what is no longer as it was *seen*, for ever; a directory without any usable key changes nothing."""
    directory = dispatcher.settings.clients_dir
    while True:
        await asyncio.sleep(every_seconds)
        try:
            found = await asyncio.to_thread(clients.fingerprint, directory)
            if found == seen:
                continue
            dispatcher.clients = await asyncio.to_thread(load_clients, dispatcher.settings)
            seen = found
        except OSError as error:
            log.warning("the clients' keys could not be read, the last ones stay valid: %s", error)
        except StartError as error:
            seen = found
            log.error("the last keys stay valid: %s", error)  # noqa: TRY400 - no traceback for a configuration
        else:
            log.info("the clients' keys have changed: %d keys", len(dispatcher.clients))


@contextlib.asynccontextmanager
async def serving(
    dispatcher: Dispatcher,
    options: Options,
    *,
    ready: Callable[[], str | None],
    certificate: tls.Certificate | None = None,
    reports: Reports | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """Both ports open; yields the task that ends what lasts too long. At the end open requests are given their time."""
    loop = asyncio.get_running_loop()

    def connection() -> ClientConnection:
        return ClientConnection(dispatcher)

    runner = web.AppRunner(application(dispatcher.metrics.registry(), ready=ready, reports=reports), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.health_port).start()
        close = await _listen(connection, options, certificate, dispatcher.settings)
        sweep = loop.create_task(dispatcher.sweep(SWEEP_SECONDS))
        try:
            yield sweep
        finally:
            await close()
            await dispatcher.drain(dispatcher.settings.grace_seconds)
            sweep.cancel()
    finally:
        await runner.cleanup()


async def _listen(
    connection: Callable[[], ClientConnection],
    options: Options,
    certificate: tls.Certificate | None,
    settings: Settings,
) -> Callable[[], Awaitable[None]]:
    """Open the port for clients; what is returned closes it, and leaves open connections alone."""
    if certificate is not None:
        sock = tls.bind(options.host, options.port, backlog=BACKLOG)
        listener = tls.Listener(sock, certificate, connection, handshake_seconds=settings.head_seconds)
        return listener.close
    server = await asyncio.get_running_loop().create_server(connection, options.host, options.port, backlog=BACKLOG)

    async def close() -> None:
        server.close()

    return close


def raise_descriptor_limit(settings: Settings) -> None:
    """Let the process have a socket for each client and for its engine, as far as it may; say so where it may not."""
    needed = 2 * settings.max_connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            log.warning(
                "%d connections need %d open files, and the process may have %d: raise its limit, or lower"
                " LARGEFORGE_MAX_CONNECTIONS",
                *(settings.max_connections, needed, most),
            )


def load_certificate(settings: Settings) -> tls.Certificate | None:
    """The certificate, where TLS is asked for; `StartError` where it cannot be used."""
    if settings.tls_dir is None:
        return None
    try:
        return tls.Certificate(settings.tls_dir)
    except tls.CertificateError as error:
        raise StartError(str(error)) from error


async def run(settings: Settings, options: Options) -> None:
    """Serve until SIGTERM or SIGINT; `StartError` where that cannot begin."""
    seen = await asyncio.to_thread(clients.fingerprint, settings.clients_dir)
    trust = await asyncio.to_thread(source.load_trust, settings)
    dispatcher = Dispatcher(settings, await asyncio.to_thread(load_clients, settings), Metrics(), trust=trust)
    certificate = await asyncio.to_thread(load_certificate, settings)
    raise_descriptor_limit(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    learning = Learning(dispatcher.judge, settings.learning_dir, model=settings.embedding_model)

    def publish(table: RouteTable) -> None:
        dispatcher.replace_table(table)
        learning.follow(table.lessons)
        log.info("route table: %s; not ready: %s", _names(table.routes), _names(table.unready))

    def ready() -> str | None:
        if stop.is_set():
            return "stopping"
        return "no route table yet" if dispatcher.table is None else learning.awaited()

    async with contextlib.AsyncExitStack() as stack:
        if options.table is not None:
            found = await source.from_file(options.table, settings, publish)
        else:
            found = await source.from_cluster(settings, dispatcher, publish, trust=trust, stack=stack)
        sweep = await stack.enter_async_context(
            serving(dispatcher, options, ready=ready, certificate=certificate, reports=found.reports)
        )
        background = [asyncio.create_task(follow_clients(dispatcher, seen))]
        if certificate is not None:
            background.append(asyncio.create_task(tls.follow(certificate)))
        if found.reports is not None:
            found.reports.routing = learning.report
        background.append(asyncio.create_task(learning.run()))
        background += [asyncio.ensure_future(job()) for job in found.jobs]
        log.info(
            "started on port %d%s, health and metrics on %d",
            options.port,
            " (TLS)" if certificate else "",
            options.health_port,
        )
        await _until(stop, [sweep, *background])
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        log.info("stopping: %d connections open", len(dispatcher.connections))
    log.info("stopped")


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for *stop*; a task that ends before is a fault, and raised."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in tasks:
        if task.done():
            task.result()


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "none"
