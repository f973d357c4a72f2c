from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.controllers.plan import Plan, execute
from largeforge.controllers.progress import parse
from largeforge.controllers.progressboard import FORGET_SECONDS, Board, Busy, Refused
from largeforge.controllers.progresstokens import BoundPod
from largeforge.kube.cluster import FINETUNEJOBS, PODS, QUANTIZEJOBS, ClusterError, Conflict
from tests.unit import quantizing
from tests.unit.fakes import FakeCluster
from tests.unit.progress import JOB_NAME, POD, Clock, batch_job, owner, post, trainer_pod, training_cluster
from tests.unit.training import NOW, finetunejob


def board_of(cluster, **fields):
    clock = Clock()
    return Board(cluster, now=clock.now, clock=clock, **fields), clock


async def shown(cluster):
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    return (raw["status"].get("progress") or {}).get("summary")


def writes(cluster):
    return [w for w in cluster.writes if w[0] == "status"]


async def test_the_first_post_is_written_at_once_and_leaves_all_other_status_alone():
    cluster = training_cluster(phase="Running")
    board, _ = board_of(cluster)
    await board.take(POD, parse(post()))
    status = (await cluster.get(FINETUNEJOBS, "team", "sql"))["status"]
    assert status["progress"]["summary"] == "30% 120/400"
    assert status["metrics"] == [{"name": "loss", "value": "1.832"}]
    assert (status["phase"], status["run"]["number"]) == ("Running", 1)


async def test_status_is_written_once_in_fifteen_seconds_and_the_newest_wins():
    cluster = training_cluster()
    board, clock = board_of(cluster)
    for second in range(0, 31, 5):
        clock.seconds = second
        await board.take(POD, parse(post(100 + second)))
        await board.flush()
    assert [await shown(cluster), len(writes(cluster))] == ["32% 130/400", 3]


async def test_what_waits_is_written_when_its_time_has_come_without_another_post():
    cluster = training_cluster()
    board, clock = board_of(cluster)
    await board.take(POD, parse(post(1)))
    clock.seconds = 5
    await board.take(POD, parse(post(2)))
    clock.seconds = 14
    await board.flush()
    assert await shown(cluster) == "0% 1/400"
    clock.seconds = 15
    await board.flush()
    assert await shown(cluster) == "0% 2/400"


async def test_the_last_step_is_written_at_once_and_does_not_lift_the_limit():
    cluster = training_cluster()
    board, clock = board_of(cluster)
    await board.take(POD, parse(post(399)))
    clock.seconds = 1
    await board.take(POD, parse(post(400)))
    assert await shown(cluster) == "100% 400/400"
    clock.seconds = 2
    await board.take(POD, parse(post(400, loss="9")))
    assert len(writes(cluster)) == 2


async def test_a_pod_that_posts_without_end_is_held_back():
    cluster = training_cluster()
    board, clock = board_of(cluster)
    for _ in range(5):
        await board.take(POD, parse(post()))
    with pytest.raises(Busy):
        await board.take(POD, parse(post()))
    clock.seconds = 1
    await board.take(POD, parse(post()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pod": trainer_pod(uid="uid-of-a-namesake")}, "the pod is gone"),
        ({"pod": trainer_pod(name="another")}, "the pod is gone"),
        ({"pod": trainer_pod(deletionTimestamp="2026-11-25T12:00:00Z")}, "the pod has ended"),
        ({"pod": trainer_pod(phase="Failed")}, "the pod has ended"),
        ({"pod": trainer_pod(phase="Succeeded")}, "the pod has ended"),
        ({"pod": trainer_pod(ownerReferences=[])}, "the pod is not a Job's"),
        (
            {"pod": trainer_pod(controller=owner("largeforge.ai/v1alpha1", "FineTuneJob", "sql", "uid-of-sql"))},
            "the pod is not a Job's",
        ),
        ({"pod": trainer_pod(controller=owner("batch/v1", "Job", "sql-r1-a1", "forged"))}, "the pod is not a Job's"),
        ({"pod": trainer_pod(controller=owner("batch/v1", "Job", "gone", "uid-of-job"))}, "the pod is not a Job's"),
        (
            {"job": batch_job(controller=owner("batch/v1", "CronJob", "sql", "u"))},
            "the pod is not a FineTuneJob or QuantizeJob's",
        ),
        (
            {"job": batch_job(controller=owner("largeforge.ai/v1alpha1", "FineTuneJob", "sql", "forged"))},
            "the pod is not a FineTuneJob or QuantizeJob's",
        ),
        ({"run": {"attempt": 2, "jobName": "sql-r1-a2"}}, "newest attempt"),
        ({"run": {"outcome": "Succeeded"}}, "newest attempt"),
        ({"run": {"stage": "Preflight"}}, "newest attempt"),
    ],
)
async def test_a_pod_that_is_not_the_newest_attempts_is_refused(changes, said):
    cluster = training_cluster(**changes)
    board, _ = board_of(cluster)
    for _ in range(2):
        with pytest.raises(Refused, match=said):
            await board.take(POD, parse(post()))
    assert cluster.writes == []


async def test_a_pod_of_another_job_speaks_for_that_one_whatever_it_is_labelled():
    other = batch_job("csv-r1-a1", uid="uid-csv", controller=owner("largeforge.ai/v1alpha1", "FineTuneJob", "csv", "u"))
    pod = trainer_pod(
        controller=owner("batch/v1", "Job", "csv-r1-a1", "uid-csv"), labels={"largeforge.ai/finetunejob": "sql"}
    )
    cluster = training_cluster(job=other, pod=pod)
    board, _ = board_of(cluster)
    with pytest.raises(Refused):
        await board.take(POD, parse(post()))
    assert await shown(cluster) is None


async def test_a_namespace_that_is_not_served_is_refused_before_anything_is_read():
    board, _ = board_of(FakeCluster(), namespaces=frozenset({"other"}))
    with pytest.raises(Refused, match="'team' is not served"):
        await board.take(BoundPod("team", "a", "b"), parse(post()))


async def test_a_pod_that_goes_while_a_post_waits_writes_nothing_more():
    cluster = training_cluster()
    board, clock = board_of(cluster)
    await board.take(POD, parse(post(1)))
    clock.seconds = 5
    await board.take(POD, parse(post(2)))
    cluster.drop(PODS, "team", POD.name)
    clock.seconds = 20
    await board.flush()
    assert len(writes(cluster)) == 1
    with pytest.raises(Refused):
        await board.take(POD, parse(post(3)))


async def test_a_post_that_meets_another_write_is_written_a_second_later():
    class Contended(FakeCluster):
        conflicts = 1

        async def patch_status(self, written, *, manager="largeforge"):
            if self.conflicts:
                self.conflicts -= 1
                raise Conflict("the object has been modified")
            return await super().patch_status(written, manager=manager)

    cluster = Contended(*training_cluster().objects.values())
    board, clock = board_of(cluster)
    await board.take(POD, parse(post()))
    assert await shown(cluster) is None
    clock.seconds = 1
    await board.flush()
    assert await shown(cluster) == "30% 120/400"


async def test_an_attempt_that_is_over_between_look_and_write_does_not_speak_for_the_next():
    class Overtaken(FakeCluster):
        async def patch_status(self, written, *, manager="largeforge"):
            raw = await self.get(FINETUNEJOBS, "team", "sql")
            raw["status"]["run"] |= {"attempt": 2, "jobName": "sql-r1-a2"}
            self.put(raw)
            return await super().patch_status(written, manager=manager)

    cluster = Overtaken(*training_cluster().objects.values())
    board, clock = board_of(cluster)
    await board.take(POD, parse(post()))
    clock.seconds = 1
    await board.flush()
    assert await shown(cluster) is None


async def test_a_post_that_the_api_server_did_not_take_waits_for_the_next_time():
    class Down(FakeCluster):
        down = True

        async def get(self, resource, namespace, name):
            if self.down:
                raise ClusterError("no answer")
            return await super().get(resource, namespace, name)

    cluster = Down(*training_cluster().objects.values())
    board, clock = board_of(cluster)
    with pytest.raises(ClusterError):
        await board.take(POD, parse(post()))
    clock.seconds = 15
    await board.flush()
    cluster.down = False
    clock.seconds = 30
    await board.flush()
    assert await shown(cluster) == "30% 120/400"


async def test_an_older_post_of_another_replica_does_not_go_back():
    cluster = training_cluster()
    early, early_clock = board_of(cluster)
    late, late_clock = board_of(cluster)
    late_clock.seconds = 16
    early_clock.seconds = 10
    await late.take(POD, parse(post(130)))
    await early.take(POD, parse(post(120)))
    assert await shown(cluster) == "32% 130/400"


async def test_the_operators_own_status_and_the_posts_leave_each_other_alone():
    cluster = training_cluster(phase="Running")
    board, _ = board_of(cluster)
    await board.take(POD, parse(post()))
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    status = finetunejob(status=raw["status"]).status
    await execute(Plan(status=status.model_copy(update={"phase": "Complete"})), cluster, raw, now=NOW)
    assert len(writes(cluster)) == 2
    assert await shown(cluster) == "30% 120/400"
    raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    reset = finetunejob(status=raw["status"]).status.model_copy(update={"progress": None, "metrics": []})
    await execute(Plan(status=reset), cluster, raw, now=NOW)
    assert len(writes(cluster)) == 3
    assert (await cluster.get(FINETUNEJOBS, "team", "sql"))["status"]["phase"] == "Complete"
    assert await shown(cluster) is None


async def test_a_silent_pod_is_forgotten():
    board, clock = board_of(training_cluster())
    await board.take(POD, parse(post()))
    clock.seconds = FORGET_SECONDS + 1
    await board.flush()
    assert board._senders == {}
    assert clock.now() == NOW + timedelta(seconds=FORGET_SECONDS + 1)


@pytest.mark.parametrize(("stage", "taken"), [("Quantize", True), ("Evaluate", True), ("Preflight", False)])
async def test_a_quantizer_posts_to_its_quantizejob(stage, taken):
    run = {"number": 1, "digest": "d" * 64, "stage": stage, "jobName": JOB_NAME}
    job = quantizing.manifest() | {"status": {"run": run, "phase": "Quantizing"}}
    batch = batch_job(controller=owner("largeforge.ai/v1alpha1", "QuantizeJob", "small", "uid-of-small"))
    board, _ = board_of(cluster := FakeCluster(job, batch, trainer_pod()))
    if not taken:
        with pytest.raises(Refused, match="newest attempt"):
            await board.take(POD, parse(post()))
        return
    await board.take(POD, parse(post()))
    status = (await cluster.get(QUANTIZEJOBS, "team", "small"))["status"]
    assert (status["progress"]["summary"], status["phase"]) == ("30% 120/400", "Quantizing")
    assert "metrics" not in status
