from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from largeforge.kube.cluster import ENDPOINTSLICES, EXPERTS, INFERENCESERVICES, ClusterError, Resource, WatchEvent
from largeforge.router import snapshot, watch
from largeforge.router.snapshot import Objects
from largeforge.router.table import RouteTable
from largeforge.router.watch import TableWatch
from tests.unit.router.lab import until
from tests.unit.router.test_table import SLICE, endpoint, expert, service, slice_


class FakeCluster:
    """Streams what the test puts in; an exception breaks the watch off."""

    def __init__(self) -> None:
        self.events = {resource: asyncio.Queue() for resource in (EXPERTS, INFERENCESERVICES, ENDPOINTSLICES)}

    async def watch(self, resource: Resource, namespace: str, *, labels: Any = None):  # noqa: ARG002
        assert namespace == "team"
        while True:
            event = await self.events[resource].get()
            if isinstance(event, Exception):
                raise event
            yield event

    def put(self, resource: Resource, kind: str, item: Any = None):
        manifest = item if isinstance(item, dict) or item is None else item.manifest()
        self.events[resource].put_nowait(WatchEvent(kind, manifest or {}))


class Tables:
    def __init__(self) -> None:
        self.found = []

    def publish(self, table: Any):
        self.found.append(table)

    async def until(self, condition: Callable[[RouteTable], object]):
        await until(lambda: self.found and condition(self.found[-1]))
        return self.found[-1]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.01)
    cluster, tables = FakeCluster(), Tables()
    followed = TableWatch(cluster, "team", engine_key=lambda _: "k", publish=tables.publish)
    task = asyncio.create_task(followed.run())
    yield cluster, tables, followed
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def fill(cluster: FakeCluster, *experts: Any):
    for item in experts:
        cluster.put(EXPERTS, "ADDED", item)
    cluster.put(INFERENCESERVICES, "ADDED", service())
    cluster.put(ENDPOINTSLICES, "ADDED", SLICE)
    for resource in (EXPERTS, INFERENCESERVICES):
        cluster.put(resource, "SYNCED")


async def test_there_is_no_table_before_all_three_lists_are_complete(world: tuple[FakeCluster, Tables, TableWatch]):
    cluster, tables, _ = world
    await fill(cluster, expert())
    await until(lambda: all(queue.empty() for queue in cluster.events.values()))
    assert tables.found == []
    cluster.put(ENDPOINTSLICES, "SYNCED")
    found = await tables.until(lambda _: True)
    assert sorted(found.routes) == ["smol", "sql"]


async def test_changes_make_a_new_table_and_many_at_once_make_one(world: tuple[FakeCluster, Tables, TableWatch]):
    cluster, tables, _ = world
    await fill(cluster, expert())
    cluster.put(ENDPOINTSLICES, "SYNCED")
    await tables.until(lambda _: True)
    before = len(tables.found)
    for n in range(50):
        cluster.put(EXPERTS, "ADDED", expert(f"e{n}"))
    await tables.until(lambda table: "e49" in table.routes)
    assert len(tables.found) - before <= 2
    cluster.put(EXPERTS, "DELETED", expert("e7"))
    cluster.put(EXPERTS, "MODIFIED", expert("e8", ready="False", message="no"))
    found = await tables.until(lambda table: "e7" not in table.routes)
    assert found.unready == {"e8": "no"}
    cluster.put(ENDPOINTSLICES, "MODIFIED", slice_(endpoint("p2", "10.0.0.2"), suffix="a"))
    await tables.until(lambda table: "sql" not in table.routes)


async def test_a_bad_object_is_left_out_and_said(
    world: tuple[FakeCluster, Tables, TableWatch], caplog: pytest.LogCaptureFixture
):
    cluster, tables, _ = world
    await fill(cluster, expert(), {"metadata": {"name": "odd"}, "spec": {"type": "Elephant"}})
    cluster.put(ENDPOINTSLICES, "SYNCED")
    assert "sql" in (await tables.until(lambda _: True)).routes
    assert "experts/odd is left out" in caplog.text


async def test_a_watch_that_breaks_off_keeps_the_table_and_goes_on(
    world: tuple[FakeCluster, Tables, TableWatch], caplog: pytest.LogCaptureFixture
):
    cluster, tables, _ = world
    await fill(cluster, expert())
    cluster.put(ENDPOINTSLICES, "SYNCED")
    await tables.until(lambda _: True)
    cluster.events[EXPERTS].put_nowait(ClusterError("connection refused"))
    cluster.put(EXPERTS, "ADDED", expert("later"))
    found = await tables.until(lambda table: "later" in table.routes)
    assert "sql" in found.routes
    assert "the watch on experts broke off" in caplog.text


async def test_a_change_that_means_nothing_to_a_request_makes_no_new_table(
    world: tuple[FakeCluster, Tables, TableWatch],
):
    cluster, tables, _ = world
    await fill(cluster, expert(routing={"keywords": [{"pattern": "sql"}]}))
    cluster.put(ENDPOINTSLICES, "SYNCED")
    await tables.until(lambda _: True)
    cluster.put(EXPERTS, "MODIFIED", expert(routing={"keywords": [{"pattern": "sql"}]}, message="probed again"))
    await asyncio.sleep(2 * watch.DEBOUNCE_SECONDS)
    cluster.put(EXPERTS, "MODIFIED", expert(routing={"keywords": [{"pattern": "mysql"}]}))
    await tables.until(lambda table: table.public.matcher.scores("mysql"))
    assert len(tables.found) == 2


async def test_slices_of_other_services_are_not_looked_at(world: tuple[FakeCluster, Tables, TableWatch]):
    cluster, tables, _ = world
    await fill(cluster, expert())
    cluster.put(ENDPOINTSLICES, "SYNCED")
    await tables.until(lambda _: True)
    before = len(tables.found)
    cluster.put(ENDPOINTSLICES, "ADDED", {"metadata": {"name": "other"}, "endpoints": []})
    cluster.put(EXPERTS, "ADDED", expert("later"))
    await tables.until(lambda table: "later" in table.routes)
    assert len(tables.found) <= before + 2


@asynccontextmanager
async def followed(cluster: FakeCluster, tables: Tables, path: Path) -> AsyncIterator[None]:
    found = TableWatch(cluster, "team", engine_key=lambda _: "k", publish=tables.publish, snapshot_file=path)
    task = asyncio.create_task(found.run())
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_router_that_starts_while_the_api_server_is_away_serves_what_the_last_one_knew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "snapshot.json"
    cluster, tables = FakeCluster(), Tables()
    async with followed(cluster, tables, path):
        await fill(cluster, expert(spec={"access": {"clients": ["team"]}, "limits": {"timeoutSeconds": 9}}))
        cluster.put(ENDPOINTSLICES, "SYNCED")
        before = await tables.until(lambda table: "sql" in table.routes)
        await until(path.exists)
    assert before.snapshot_age_seconds is None
    away, again = FakeCluster(), Tables()
    async with followed(away, again, path):
        found = await again.until(lambda _: True)
        assert found == before
        assert 0 <= found.snapshot_age_seconds < 60
        assert "the API server does not answer" in caplog.text
        # It is back: what it says counts, also where that is the same.
        await fill(away, expert(spec={"access": {"clients": ["team"]}, "limits": {"timeoutSeconds": 9}}))
        away.put(ENDPOINTSLICES, "SYNCED")
        assert await again.until(lambda table: table.snapshot_age_seconds is None) == before


async def test_an_api_server_that_answers_in_time_makes_the_snapshot_needless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "snapshot.json"
    snapshot.write(path, "team", Objects([expert("old")], [service()], [SLICE]))
    answered = asyncio.Event()

    async def patience(seconds: float):
        await (answered.wait() if seconds == watch.PATIENCE_SECONDS else real(seconds))

    real = asyncio.sleep
    monkeypatch.setattr(watch.asyncio, "sleep", patience)
    cluster, tables = FakeCluster(), Tables()
    async with followed(cluster, tables, path):
        await fill(cluster, expert("new"))
        cluster.put(ENDPOINTSLICES, "SYNCED")
        await tables.until(lambda table: "new" in table.routes)
        answered.set()
        cluster.put(EXPERTS, "ADDED", expert("newer"))
        await tables.until(lambda table: "newer" in table.routes)
    assert all("old" not in table.routes for table in tables.found)


@pytest.mark.usefixtures("impatient")
async def test_a_snapshot_that_cannot_be_used_is_said_and_the_api_server_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "snapshot.json"
    path.write_text("{")
    cluster, tables = FakeCluster(), Tables()
    async with followed(cluster, tables, path):
        await until(lambda: "is not used" in caplog.text)
        assert tables.found == []
        await fill(cluster, expert())
        cluster.put(ENDPOINTSLICES, "SYNCED")
        await tables.until(lambda table: "sql" in table.routes)


async def test_a_snapshot_that_cannot_be_written_is_said_and_nothing_else_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cluster, tables = FakeCluster(), Tables()
    async with followed(cluster, tables, tmp_path / "missing" / "snapshot.json"):
        await fill(cluster, expert())
        cluster.put(ENDPOINTSLICES, "SYNCED")
        await until(lambda: "no snapshot is kept" in caplog.text)
        cluster.put(EXPERTS, "ADDED", expert("later"))
        await tables.until(lambda table: "later" in table.routes)


async def test_the_snapshot_follows_the_objects(tmp_path: Path):
    path = tmp_path / "snapshot.json"
    cluster, tables = FakeCluster(), Tables()
    async with followed(cluster, tables, path):
        await fill(cluster, expert())
        cluster.put(ENDPOINTSLICES, "SYNCED")
        await until(path.exists)
        cluster.put(EXPERTS, "DELETED", expert())
        await until(lambda: not json.loads(path.read_text())["experts"])
    await until(lambda: not path.with_name("snapshot.json.new").exists())
