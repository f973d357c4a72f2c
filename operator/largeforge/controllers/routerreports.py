"""What the routers of each namespace report, asked again and again; whoever decides reads the last answer.

A report that changes what is said of an Expert puts that Expert on the queue, so that no Expert has to be looked at
for it. Routers are found by their Services; each namespace's routers agree, so one that answers is enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from pydantic import ValidationError
from yarl import URL

from largeforge.api.keys import report_token
from largeforge.api.names import ROUTER_LABEL
from largeforge.api.routerreport import ExpertReport, RouterReport
from largeforge.controllers.enginehttp import bounded
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, SERVICES, Cluster, ClusterError, Manifest

log = logging.getLogger(__name__)

EVERY_SECONDS = 15.0
"""How late a report is at most."""
ANSWER_SECONDS = 5.0
BODY_LIMIT = 8 << 20
"""Bytes of a report: of a thousand Experts with sixteen overlaps each."""
PORT_NAME = "report"
AT_ONCE = 16
"""Namespaces that are asked at a time."""


@dataclass(frozen=True, slots=True)
class NoRouter:
    """There is none in the namespace."""


Report = ExpertReport | NoRouter | None
"""What is known of one Expert; None where no router has told anything of it yet."""


class Ask(Protocol):
    """How a router is asked."""

    async def __call__(self, service: Manifest, token: str) -> RouterReport | None:
        """The report behind *service*, or None where it does not answer with one."""
        ...


class RouterReports:
    """The last report of each namespace."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, ExpertReport] | NoRouter] = {}

    def of(self, namespace: str, name: str) -> Report:
        """What is known of the Expert *name*."""
        known = self._known.get(namespace)
        return known.get(name) if isinstance(known, Mapping) else known

    def take(self, namespace: str, report: RouterReport | NoRouter | None) -> list[str]:
        """Keep *report*; returns the Experts of which something else is known now. None keeps what was known."""
        if report is None:
            return []
        before = self._known.get(namespace)
        old: Mapping[str, ExpertReport] = before if isinstance(before, Mapping) else {}
        if isinstance(report, NoRouter):
            self._known[namespace] = report
            return sorted(old) if before != report else []
        new = {each.name: each for each in report.experts}
        self._known[namespace] = new
        return sorted(name for name in old.keys() | new.keys() if _telling(old.get(name)) != _telling(new.get(name)))

    def knows(self, namespace: str) -> bool:
        """Whether the namespace's routers have been looked for."""
        return namespace in self._known


def _telling(report: ExpertReport | None) -> ExpertReport | None:
    """*report* without the time of a probe, which changes though nothing else does."""
    if report is None or report.probe is None:
        return report
    timeless = report.probe.model_copy(update={"time": None})
    return report.model_copy(update={"probe": timeless})


@dataclass(frozen=True, slots=True)
class Poller:
    """Asks the routers of every namespace that has an Expert, and wakes the Experts of which they say something new."""

    reports: RouterReports
    cluster: Cluster
    ask: Ask
    wake: Callable[[Key], None]
    master_key: bytes
    namespaces: Sequence[str] = ()
    """Those that are served; none for all."""

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                await self.refresh()
            except ClusterError as exc:
                log.warning("looking for routers: %s", exc)
            await asyncio.sleep(EVERY_SECONDS)

    async def refresh(self) -> None:
        """Ask once."""
        experts: dict[str, list[str]] = defaultdict(list)
        services: dict[str, list[Manifest]] = defaultdict(list)
        for served in self.namespaces or [""]:
            for item in await self.cluster.list(EXPERTS, served):
                experts[item["metadata"]["namespace"]].append(item["metadata"]["name"])
            for item in await self.cluster.list(SERVICES, served):
                if ROUTER_LABEL in item["metadata"].get("labels", {}):
                    services[item["metadata"]["namespace"]].append(item)
        limit = asyncio.Semaphore(AT_ONCE)

        async def of(namespace: str) -> None:
            async with limit:
                await self._refresh(namespace, services[namespace], experts[namespace])

        await asyncio.gather(*(of(namespace) for namespace in sorted(experts)))

    async def _refresh(self, namespace: str, services: Sequence[Manifest], experts: Sequence[str]) -> None:
        first = not self.reports.knows(namespace)
        token = report_token(namespace_key(self.master_key, namespace))
        changed = self.reports.take(namespace, await _first_report(services, token, self.ask))
        # At the first look nobody has been told yet whether there is a router at all.
        for name in experts if first and self.reports.knows(namespace) else changed:
            self.wake(Key(namespace, name))


async def _first_report(services: Sequence[Manifest], token: str, ask: Ask) -> RouterReport | NoRouter | None:
    if not services:
        return NoRouter()
    for service in sorted(services, key=lambda each: str(each["metadata"]["name"])):
        report = await ask(service, token)
        if report is not None:
            return report
    return None


class HttpAsk:
    """`Ask` over HTTP, at the Service's own address."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, service: Manifest, token: str) -> RouterReport | None:
        """As in `Ask`."""
        metadata, spec = service["metadata"], service.get("spec", {})
        port = next((each["port"] for each in spec.get("ports", []) if each.get("name") == PORT_NAME), None)
        address = spec.get("clusterIP")
        if port is None or not address or address == "None":
            log.warning("service %s/%s has no port named %s", metadata["namespace"], metadata["name"], PORT_NAME)
            return None
        url = URL.build(scheme="http", host=address, port=port, path="/report")
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._session.get(url, headers={"Authorization": f"Bearer {token}"}, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    log.warning("service %s/%s: report: %s", metadata["namespace"], metadata["name"], response.status)
                    return None
                return RouterReport.model_validate_json(await bounded(response, BODY_LIMIT))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, ValidationError) as exc:
            log.warning("service %s/%s: report: %s", metadata["namespace"], metadata["name"], type(exc).__name__)
            return None
