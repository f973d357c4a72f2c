from __future__ import annotations

import pytest

from largeforge.api.finetunejobstatus import FineTuneJobStatus, Progress
from largeforge.api.meta import Condition
from largeforge.controllers.plan import Event, Plan, changed, event_manifest, execute, with_status
from largeforge.kube.cluster import EVENTS, FINETUNEJOBS, ClusterError, Conflict
from tests.unit.fakes import FakeCluster
from tests.unit.training import NOW, manifest

STATUS = changed(
    FineTuneJobStatus(phase="Pending"),
    [Condition(type="Running", status="False", reason="Pending")],
    generation=3,
    now=NOW,
)


@pytest.fixture
def cluster():
    return FakeCluster(manifest())


async def test_a_status_is_written_where_it_differs_and_only_there(cluster):
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(status=STATUS), cluster, raw, now=NOW)
    assert [w[0] for w in cluster.writes] == ["status"]
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(status=STATUS), cluster, raw, now=NOW)
    assert [w[0] for w in cluster.writes] == ["status"]


async def test_an_event_of_one_transition_is_one_event(cluster):
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    plan = Plan(events=[Event("Started", "run 1 begins")])
    await execute(plan, cluster, raw, now=NOW)
    await execute(plan, cluster, raw, now=NOW)
    assert len(cluster.all(EVENTS)) == 1
    later = raw | {"metadata": raw["metadata"] | {"resourceVersion": "99"}}
    await execute(plan, cluster, later, now=NOW)
    assert len(cluster.all(EVENTS)) == 2


async def test_an_event_that_cannot_be_posted_holds_nothing_up(cluster):
    class NoEvents(FakeCluster):
        async def create_once(self, _):
            raise ClusterError("exceeded quota")

    cluster = NoEvents(manifest())
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(events=[Event("Started", "run 1 begins")], status=STATUS), cluster, raw, now=NOW)
    assert [w[0] for w in cluster.writes] == ["status"]


def test_a_long_note_is_cut_to_what_the_server_takes():
    raw = manifest()
    note = event_manifest(Event("Failed", "ü" * 2000), raw, now=NOW)["note"]
    assert len(note.encode()) <= 1024
    assert set(note) == {"ü"}


def test_the_transition_time_moves_with_the_status_only():
    later = NOW.replace(hour=13)
    again = changed(STATUS, [Condition(type="Running", status="False", reason="X")], generation=4, now=later)
    assert again.conditions[0].last_transition_time == NOW
    assert again.conditions[0].observed_generation == 4
    turned = changed(again, [Condition(type="Running", status="True", reason="X")], generation=4, now=later)
    assert turned.conditions[0].last_transition_time == later


PROGRESS = Progress(percent=30, summary="30% 120/400")


async def test_progress_is_written_under_a_manager_of_its_own_and_before_the_rest():
    managers = []

    class Noting(FakeCluster):
        async def patch_status(self, written, *, manager="largeforge"):
            managers.append((manager, sorted(written["status"])))
            return await super().patch_status(written, manager=manager)

    cluster = Noting(manifest())
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(status=STATUS.model_copy(update={"progress": PROGRESS})), cluster, raw, now=NOW)
    assert [manager for manager, _ in managers] == ["largeforge-progress", "largeforge"]
    assert managers[0][1] == ["metrics", "progress"]
    assert not {"metrics", "progress"} & set(managers[1][1])
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    assert raw["status"]["progress"]["percent"] == 30
    await execute(Plan(status=STATUS.model_copy(update={"progress": PROGRESS})), cluster, raw, now=NOW)
    assert len(managers) == 2


async def test_a_status_that_differs_in_progress_alone_is_one_write(cluster):
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(status=STATUS), cluster, raw, now=NOW)
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    await execute(Plan(status=STATUS.model_copy(update={"progress": PROGRESS})), cluster, raw, now=NOW)
    assert [w[0] for w in cluster.writes] == ["status", "status"]


async def test_a_post_that_comes_between_look_and_write_makes_the_operator_look_again(cluster):
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    posted = {"progress": PROGRESS.manifest(), "metrics": []}
    await cluster.patch_status(with_status(raw, posted), manager="largeforge-progress")
    with pytest.raises(Conflict):
        await execute(Plan(status=STATUS), cluster, raw, now=NOW)
