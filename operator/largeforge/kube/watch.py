"""A watch that does not end: list, follow, and list again where something may have been missed."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp

from largeforge.kube.cluster import ClusterError, Manifest, Resource, WatchEvent
from largeforge.kube.transport import CONNECT_SECONDS, JSON, Expired, Request, Transport, error, path

log = logging.getLogger(__name__)

PAGE = 500
"""Objects of one page of a list, so that a large namespace is no single large answer."""
WATCH_SECONDS = 300
"""How long the server keeps a watch; the client waits 10 s longer, so that it is the server that ends it."""
SILENCE_SECONDS = 90.0
"""The server sends a bookmark every minute: a watch that is silent for longer is dead, whatever TCP says."""
RECONNECT_FIRST = 0.2
RECONNECT_LAST = 30.0

Identity = tuple[str, str]


class Silence(ClusterError):  # noqa: N818 - a watch lists again, nobody else sees it
    """Nothing came, not even a bookmark."""


async def list_all(
    transport: Transport,
    resource: Resource,
    namespace: str,
    labels: Mapping[str, str] | None,
    *,
    accept: str = JSON,
) -> tuple[list[Manifest], str]:
    """All objects, each with its kind, and the resourceVersion to watch from."""
    items: list[Manifest] = []
    query = {"limit": str(PAGE), **_selector(labels)}
    while True:
        page = await transport.call(Request("GET", path(resource, namespace), query, accept=accept))
        identity = {"apiVersion": resource.api_version, "kind": str(page["kind"]).removesuffix("List")}
        items += [identity | item for item in page["items"] or ()]  # an empty list of metadata is null
        metadata = page["metadata"]
        if not metadata.get("continue"):
            return items, str(metadata["resourceVersion"])
        query["continue"] = metadata["continue"]


async def watch_all(
    transport: Transport, resource: Resource, namespace: str, labels: Mapping[str, str] | None
) -> AsyncIterator[WatchEvent]:
    """As `Cluster.watch`."""
    known: dict[Identity, Manifest] = {}
    version = ""
    failures = 0
    while True:
        try:
            if not version:
                items, version = await list_all(transport, resource, namespace, labels)
                for event in relisted(known, items):
                    yield event
                yield WatchEvent("SYNCED", {})
            async for change in _changes(transport, resource, namespace, labels, version):
                failures = 0
                version = change["object"]["metadata"]["resourceVersion"]
                if change["type"] != "BOOKMARK":
                    event = WatchEvent(change["type"], change["object"])
                    note(known, event)
                    yield event
        except ClusterError as exc:
            if isinstance(exc, Expired | Silence):
                version = ""
            failures += 1
            delay = min(RECONNECT_FIRST * 2.0 ** min(failures, 10), RECONNECT_LAST) * random.uniform(0.5, 1)  # noqa: S311
            log.warning("watch of %s: %s; again in %.1f s", resource.plural, exc, delay)
            await asyncio.sleep(delay)


async def _changes(
    transport: Transport, resource: Resource, namespace: str, labels: Mapping[str, str] | None, version: str
) -> AsyncIterator[Manifest]:
    """The server's watch events after *version*, bookmarks too, until it ends the watch."""
    request = Request("GET", path(resource, namespace), _selector(labels))
    asked = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(WATCH_SECONDS),
    }
    request = replace(request, query={**request.query, **asked})
    timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + 10, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    try:
        async with await transport.send(request, timeout) as response, aborted(response):
            if response.status >= 400:
                raise error(response.status, await response.read())
            async for line in response.content:
                change: Manifest = json.loads(line)
                if change["type"] == "ERROR":
                    raise error(change["object"].get("code", 500), json.dumps(change["object"]).encode())
                yield change
    except TimeoutError as exc:
        raise Silence(f"silent for {SILENCE_SECONDS:.0f} s") from exc
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise ClusterError(f"cut off: {exc}") from exc


@asynccontextmanager
async def aborted(response: aiohttp.ClientResponse) -> AsyncIterator[None]:
    """Cut the connection at the end: one that is left in the middle of an answer would linger for TLS's goodbye."""
    try:
        yield
    finally:
        connection = response.connection  # None once the answer has been read to its end
        if connection is not None and connection.transport is not None:
            connection.transport.abort()


def relisted(known: dict[Identity, Manifest], items: list[Manifest]) -> list[WatchEvent]:
    """What a new list says beside what is *known* (brought up to date): what came and changed, then what has gone.

    An object that was made again under its name is two events: its forerunner's end comes first.
    """
    events: list[WatchEvent] = []
    listed = {_identity(item): item for item in items}
    for identity, item in listed.items():
        old = known.get(identity)
        if old is None:
            events.append(WatchEvent("ADDED", item))
        elif old["metadata"]["uid"] != item["metadata"]["uid"]:
            events += [WatchEvent("DELETED", old), WatchEvent("ADDED", item)]
        elif old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            events.append(WatchEvent("MODIFIED", item))
    events += [WatchEvent("DELETED", old) for identity, old in known.items() if identity not in listed]
    known.clear()
    known.update(listed)
    return events


def note(known: dict[Identity, Manifest], event: WatchEvent) -> None:
    """Bring *known* up to date with *event*."""
    if event.type == "DELETED":
        known.pop(_identity(event.object), None)
    else:
        known[_identity(event.object)] = event.object


def _identity(manifest: Manifest) -> Identity:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def _selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {"labelSelector": ",".join(f"{k}={v}" for k, v in sorted(labels.items()))} if labels else {}
