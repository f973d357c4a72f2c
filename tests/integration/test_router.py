"""The router's watch on a real API server: what is changed there is what requests go by."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from largeforge.kube.client import connect
from largeforge.router import snapshot
from largeforge.router.table import RouteTable
from largeforge.router.watch import TableWatch
from tests.integration.conftest import Server

pytestmark = pytest.mark.integration

NAMESPACE = "router"
DEADLINE = 30.0
SERVICE = {
    "apiVersion": "largeforge.ai/v1alpha1",
    "kind": "InferenceService",
    "metadata": {"name": "smol", "namespace": NAMESPACE},
    "spec": {"model": {"uri": "pvc://models/smol"}},
}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "smol-engine-a",
        "namespace": NAMESPACE,
        "labels": {"largeforge.ai/inferenceservice": "smol", "kubernetes.io/service-name": "smol-engine"},
    },
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8000}],
    "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "uid": "p1"}}
    ],
}


def expert(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "Adapter",
            "sourceRef": {"kind": "FineTuneJob", "name": name},
            "inferenceServiceRef": {"name": "smol"},
            **spec,
        },
    }


def status(name: str, *, ready: bool, engine_name: str = "") -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "reason": "Ready" if ready else "Loading"}
    placement = {
        "engineName": engine_name or f"{name}-0123abcd",
        "desired": 1,
        "loaded": 1,
        "summary": "1/1",
        "pods": [{"name": "p1", "uid": "p1", "loaded": True}],
    }
    return expert(name) | {"status": {"conditions": [condition], "placement": placement}}


class Tables:
    """Each table that was published, and who waits for one."""

    def __init__(self) -> None:
        self.now: RouteTable | None = None
        self.count = 0
        self._changed = asyncio.Event()

    def publish(self, table: RouteTable) -> None:
        self.now = table
        self.count += 1
        self._changed.set()

    async def until(self, condition: Callable[[RouteTable], object]) -> RouteTable:
        async with asyncio.timeout(DEADLINE):
            while self.now is None or not condition(self.now):
                self._changed.clear()
                await self._changed.wait()
        return self.now


class World:
    """A namespace with a service of one pod, and the router's watch on it."""

    def __init__(self, cluster: Any, server: Server, tables: Tables) -> None:
        self.cluster = cluster
        self.tables = tables
        self._server = server

    async def apply(self, manifest: dict[str, Any]) -> None:
        await self.cluster.apply(manifest, manager="user")

    async def report(self, manifest: dict[str, Any]) -> None:
        assert await self.cluster.patch_status(manifest) is not None

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> None:
        done = await asyncio.to_thread(self._server.kubectl, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr


@contextlib.asynccontextmanager
async def followed(server: Server, monkeypatch: pytest.MonkeyPatch, path: Path | None = None) -> AsyncIterator[World]:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    tables = Tables()
    async with connect(user_agent="largeforge-router") as cluster:
        watch = TableWatch(cluster, NAMESPACE, engine_key=lambda _: "k", publish=tables.publish, snapshot_file=path)
        task = asyncio.create_task(watch.run())
        try:
            yield World(cluster, server, tables)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(scope="module")
def namespace(server: Server) -> Server:
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    for manifest in (SERVICE, SLICE):
        done = server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))
        assert done.returncode == 0, done.stderr
    return server


async def test_an_expert_is_routed_while_it_is_ready(namespace: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(namespace, monkeypatch) as world:
        await world.tables.until(lambda table: "smol" in table.routes)
        await world.apply(expert("sql"))
        await world.tables.until(lambda table: "sql" in table.unready)
        for n in range(20):
            await world.report(status("sql", ready=True, engine_name=f"sql-{n}"))
            found = await world.tables.until(lambda table: "sql" in table.routes)
            assert found.routes["sql"].model == b'"sql-%d"' % n
            await world.report(status("sql", ready=False))
            await world.tables.until(lambda table: "sql" not in table.routes)
        assert world.tables.count == 42
        await world.kubectl("delete", "expert", "sql", "--namespace", NAMESPACE)
        await world.tables.until(lambda table: "sql" not in table.unready)


async def test_what_an_expert_says_of_requests_is_followed(namespace: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(namespace, monkeypatch) as world:
        await world.apply(expert("art", access={"clients": ["team"]}))
        await world.report(status("art", ready=True))
        found = await world.tables.until(lambda table: "art" in table.routes)
        assert "art" not in found.public.routes
        assert "art" in found.of("team").routes
        await world.apply(
            expert(
                "art",
                defaults={"temperature": 0.5, "topK": 7},
                limits={"maxConcurrentRequests": 3, "timeoutSeconds": 9},
            )
        )
        found = await world.tables.until(lambda table: "art" in table.public.routes)
        route = found.routes["art"]
        assert (route.most, route.timeout_seconds) == (3, 9)
        assert route.additions is not None
        assert (route.additions.defaults.temperature, route.additions.defaults.top_k) == (0.5, 7)
        await world.kubectl("delete", "expert", "art", "--namespace", NAMESPACE)
        await world.tables.until(lambda table: "art" not in table.routes)


def kept(path: Path, name: str) -> bool:
    """Whether the snapshot has *name* as an Expert that is placed: an earlier one has it without its status."""
    found = snapshot.read(path, NAMESPACE)
    return found is not None and any(e.metadata.name == name and e.status.placement for e in found[0].experts)


async def test_a_restart_without_the_api_server_serves_the_last_table(
    namespace: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    async with followed(namespace, monkeypatch, path) as world:
        await world.apply(expert("law"))
        await world.report(status("law", ready=True))
        before = await world.tables.until(lambda table: "law" in table.routes)
        async with asyncio.timeout(DEADLINE):
            while not kept(path, "law"):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
    away = tmp_path / "kubeconfig"
    config = yaml.safe_load(namespace.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    away.write_text(yaml.safe_dump(config))
    async with followed(Server(away), monkeypatch, path) as world:
        found = await world.tables.until(lambda _: True)
        assert found == before
        assert found.snapshot_age_seconds is not None
