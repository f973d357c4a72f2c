from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.meta import condition
from largeforge.controllers.finetunejob import decide, observe, reconcile
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import CONFIGMAPS, EVENTS, EXPERTS, FINETUNEJOBS, JOBS, PODS, ClusterError
from tests.unit.fakes import FakeCluster, Killed
from tests.unit.training import (
    NOW,
    PUBLISH,
    SETTINGS,
    claim,
    failure,
    finetunejob,
    finished,
    manifest,
    pod,
    result,
)

KEY = Key("team", "sql")


@dataclass
class World:
    """A fake cluster with one FineTuneJob, and the operator's clock."""

    cluster: FakeCluster
    settings = SETTINGS
    time = NOW

    def now(self):
        return self.time

    @property
    def job(self):
        return FineTuneJob.model_validate(self.cluster.objects["finetunejobs", "team", "sql"])

    @property
    def status(self):
        return self.job.status

    def said(self, kind):
        found = condition(self.status.conditions, kind)
        return found.status, found.reason, found.message

    async def settle(self):
        """Look until nothing is written any more; returns when to look again."""
        for _ in range(20):
            before = len(self.cluster.writes)
            again = await reconcile(KEY, self)
            if len(self.cluster.writes) == before:
                return again
        raise AssertionError(f"it never rests: {self.cluster.writes[-10:]}")

    def edit(self, **spec):
        raw = self.cluster.objects["finetunejobs", "team", "sql"]
        generation = raw["metadata"]["generation"] + 1
        self.cluster.put(raw | {"metadata": raw["metadata"] | {"generation": generation}, "spec": raw["spec"] | spec})

    def end(self, code, message="", *, said="", kind=None, keep_pod=True):
        """The current attempt's pod ends with *code*, and the Job controller says so."""
        job = self.cluster.objects["jobs", "team", self.status.run.job_name]
        job = self.cluster.put(
            finished(job, kind or ("Failed" if code else "Complete"), message=said, time=self.time.isoformat())
        )
        if keep_pod:
            self.cluster.put(pod(job, code=code, message=message))

    def succeed(self):
        self.end(0, result(digest=self.status.run.digest))

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)

    def events(self):
        return [(e["type"], e["reason"]) for e in self.cluster.all(EVENTS)]

    def jobs(self):
        return sorted(j["metadata"]["name"] for j in self.cluster.all(JOBS))


@pytest.fixture
def world():
    return World(FakeCluster(manifest(publish=PUBLISH), claim("models"), claim("data")))


async def started(world):
    await world.settle()
    return world


async def test_a_new_object_gets_a_run_and_says_everything_at_once(world):
    await reconcile(KEY, world)
    assert {c.type: (c.status, c.reason) for c in world.status.conditions} == {
        "Complete": ("False", "Pending"),
        "Failed": ("False", "Pending"),
        "Suspended": ("False", "NotSuspended"),
        "Stalled": ("False", "Pending"),
        "StorageReachable": ("Unknown", "Pending"),
        "DatasetValid": ("Unknown", "Pending"),
        "Running": ("False", "Pending"),
        "Published": ("False", "Pending"),
    }
    assert all(c.observed_generation == 1 and c.last_transition_time == NOW for c in world.status.conditions)
    assert (world.status.run.number, world.status.run.attempt, world.status.run.job_name) == (1, 1, "sql-r1-a1")
    assert world.jobs() == []


async def test_the_second_pass_makes_the_job_and_the_third_nothing(world):
    await world.settle()
    assert world.jobs() == ["sql-r1-a1"]
    assert [m["metadata"]["name"] for m in world.cluster.all(CONFIGMAPS)] == ["sql-r1-config"]
    assert world.said("StorageReachable")[:2] == ("True", "Ready")
    observed = await observe(world.cluster, world.job)
    plan = decide(world.job, observed, settings=SETTINGS, now=world.now() + timedelta(hours=1))
    assert plan.empty
    assert list(plan.events) == []
    assert plan.status == world.status


async def test_a_running_pod_is_said(world):
    await started(world)
    world.cluster.put(pod(world.cluster.all(JOBS)[0]))
    await world.settle()
    assert world.said("Running")[:2] == ("True", "Running")
    assert world.status.phase == "Running"


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "ImagePullFailed", "no such image"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}},
            "ContainerConfigError",
            'secret "x" not found',
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes: no GPU",
                    }
                ],
            },
            "Unschedulable",
            "0/1 nodes: no GPU",
        ),
    ],
)
async def test_what_holds_a_pod_up_is_said(world, trouble, reason, words):
    await started(world)
    world.cluster.put(pod(world.cluster.all(JOBS)[0], **trouble))
    await world.settle()
    status, said, message = world.said("Running")
    assert (status, said) == ("False", reason)
    assert words in message
    assert words in world.status.message


async def test_success_is_recorded_published_and_complete(world):
    await started(world)
    world.succeed()
    await world.settle()
    assert world.status.phase == "Complete"
    assert world.said("Complete") == ("True", "Succeeded", "trained: pvc://models/out/sql-0123456789ab")
    assert world.said("Published")[:2] == ("True", "Published")
    assert world.said("DatasetValid") == ("True", "Succeeded", "190 rows, 10 held out")
    assert world.status.run.outcome == "Succeeded"
    assert (world.status.loss, world.status.artifact_run, world.status.resolved.ranks) == ("1.2", 1, 2)
    assert world.status.artifact.digest == "a" * 64
    assert world.status.expert_ref.name == "sql"
    expert = world.cluster.all(EXPERTS)[0]
    assert "ownerReferences" not in expert["metadata"]
    assert expert["spec"] == {
        "type": "Adapter",
        "sourceRef": {"kind": "FineTuneJob", "name": "sql"},
        "inferenceServiceRef": {"name": "qwen"},
        "version": "1.0.0",
    }
    assert world.events() == [("Normal", "Started"), ("Normal", "Succeeded")]


async def test_complete_waits_for_the_expert(world):
    await started(world)
    world.succeed()
    await reconcile(KEY, world)
    assert world.status.run.outcome == "Succeeded"
    assert world.said("Complete")[0] == "False"
    await reconcile(KEY, world)
    assert world.said("Complete")[0] == "False"
    await reconcile(KEY, world)
    assert world.said("Complete")[0] == "True"


async def test_without_publish_it_is_complete_at_once():
    world = World(FakeCluster(manifest(), claim("models"), claim("data")))
    await started(world)
    world.succeed()
    await world.settle()
    assert world.said("Published")[:2] == ("False", "NotRequested")
    assert world.said("Complete")[0] == "True"


async def test_an_expert_of_somebody_else_is_left_alone(world):
    theirs = {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "sql", "namespace": "team"},
        "spec": {"type": "Model"},
    }
    world.cluster.put(theirs)
    await started(world)
    world.succeed()
    again = await world.settle()
    assert world.said("Published")[:2] == ("False", "NameTaken")
    assert world.said("Complete")[:2] == ("False", "NameTaken")
    assert "choose another name" in world.status.message
    assert again == 60
    assert world.cluster.all(EXPERTS)[0]["spec"] == {"type": "Model"}
    world.cluster.drop(EXPERTS, "team", "sql")
    await world.settle()
    assert world.said("Complete")[0] == "True"


@pytest.mark.parametrize(("code", "reason"), [(64, "InvalidConfig"), (65, "DatasetInvalid")])
async def test_a_users_error_ends_the_run_with_its_own_words(world, code, reason):
    await started(world)
    world.end(code, failure(reason, "row 17: no 'messages'", "spec.datasets[0].uri"))
    await world.settle()
    assert world.said("Failed") == ("True", reason, "row 17: no 'messages'")
    assert world.said("Stalled")[0] == "True"
    assert world.said("DatasetValid")[0] == ("False" if code == 65 else "Unknown")
    assert world.status.error.field == "spec.datasets[0].uri"
    assert (world.status.phase, world.status.run.outcome, world.status.run.attempt) == ("Failed", "Failed", 1)
    assert world.jobs() == ["sql-r1-a1"]


async def test_a_users_error_is_known_from_the_job_when_the_pod_is_gone(world):
    await started(world)
    said = "Container trainer for pod team/sql-r1-a1-0-x failed with exit code 65 matching FailJob rule at index 0"
    world.end(65, said=said, keep_pod=False)
    await world.settle()
    assert world.said("Failed")[1] == "DatasetInvalid"


async def test_texts_of_a_container_are_redacted(world):
    await started(world)
    world.end(64, failure("not a reason", "https://me:pw@host/x?sig=abc refused\x1b[0m token=hf_abcdefghijklmnop"))
    await world.settle()
    assert world.said("Failed") == ("True", "TrainingFailed", "https://***@host/x?*** refused [0m token=***")


async def test_other_failures_are_tried_again_with_growing_pauses_until_the_limit(world):
    world.edit(backoffLimit=2)
    await started(world)
    pauses = []
    for attempt in (1, 2, 3):
        assert world.jobs()[-1] == f"sql-r1-a{attempt}"
        world.end(1)
        again = await world.settle()
        if attempt < 3:
            assert world.said("Running")[:2] == ("False", "Retrying")
            assert world.status.error.reason == "TrainingFailed"
            assert world.jobs()[-1] == f"sql-r1-a{attempt}"
            pauses.append(again)
            world.wait(again)
            await world.settle()
    assert pauses == [10, 20]
    assert world.said("Failed")[:2] == ("True", "BackoffLimitExceeded")
    assert "the trainer ended with exit code 1" in world.said("Failed")[2]
    assert world.status.run.failures == 3
    assert world.jobs() == ["sql-r1-a2", "sql-r1-a3"], "logs of the last two are kept"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (75, "failed with exit code 75 matching FailJob rule at index 0"),
        (137, "has condition DisruptionTarget matching"),
    ],
)
async def test_disruptions_are_not_counted(world, code, said):
    world.edit(backoffLimit=0)
    await started(world)
    for _ in range(3):
        world.end(code, said=said)
        world.wait(await world.settle())
        await world.settle()
    assert (world.status.run.attempt, world.status.run.failures, world.status.phase) == (4, 0, "Pending")


async def test_a_kill_for_memory_names_the_remedy(world):
    world.edit(backoffLimit=0)
    await started(world)
    world.end(137)
    await world.settle()
    assert world.status.error.reason == "OutOfMemory"
    assert "spec.compute.resources.limits.memory" in world.status.message


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        result(digest="another"),
        result(artifact=None),
        result(artifact={"kind": "Adapter", "uri": "pvc://other/x", "digest": "", "sizeBytes": 1, "base": ""}),
    ],
)
async def test_a_success_without_its_result_is_tried_again_and_counted(world, message):
    await started(world)
    digest = world.status.run.digest
    if '"runDigest": "d' in message:
        message = message.replace("d" * 64, digest)
    world.end(0, message)
    world.wait(await world.settle())
    assert world.status.error.reason == "ResultMissing"
    assert (world.status.run.attempt, world.status.run.failures) == (2, 1)
    await world.settle()
    world.succeed()
    await world.settle()
    assert world.status.phase == "Complete"
    assert world.status.error is None


async def test_a_result_in_the_pod_of_another_job_is_not_taken(world):
    await started(world)
    job = world.cluster.all(JOBS)[0]
    forged = pod(job | {"metadata": job["metadata"] | {"uid": "other"}}, code=0, message=result())
    world.cluster.put(forged)
    world.end(0, keep_pod=False)
    await world.settle()
    assert world.status.error.reason == "ResultMissing"


async def test_a_missing_claim_is_named_and_looked_for_again():
    world = World(FakeCluster(manifest(), claim("models")))
    again = await world.settle()
    status, reason, message = world.said("StorageReachable")
    assert (status, reason, again) == ("False", "StorageNotReady", 15)
    assert message == (
        "spec.datasets[0].uri: no PersistentVolumeClaim 'data' in namespace 'team'; create it to start the run"
    )
    assert world.status.message == message
    assert world.jobs() == []
    world.cluster.put(claim("data"))
    await world.settle()
    assert world.jobs() == ["sql-r1-a1"]
    assert world.said("StorageReachable")[0] == "True"


async def test_a_missing_config_map_or_key_is_named():
    world = World(FakeCluster(manifest(datasets=[{"uri": "configmap://rows/train.jsonl"}]), claim("models")))
    await world.settle()
    assert world.said("StorageReachable")[1] == "DatasetMissing"
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows", "namespace": "team"}}
    world.cluster.put(rows | {"data": {"other": ""}})
    await world.settle()
    assert "has no key 'train.jsonl'" in world.said("StorageReachable")[2]
    world.cluster.put(rows | {"data": {"train.jsonl": ""}})
    await world.settle()
    assert world.jobs() == ["sql-r1-a1"]


async def test_a_changed_result_stops_the_run_and_starts_the_next(world):
    await started(world)
    world.edit(training={"maxSteps": 5})
    await world.settle()
    assert world.jobs() == ["sql-r2-a1"]
    assert (world.status.run.number, world.status.run.failures) == (2, 0)
    assert [(r.number, r.outcome, r.completion_time) for r in world.status.history] == [(1, None, NOW)]
    assert world.status.observed_generation == 2


async def test_the_next_run_keeps_the_artifact_until_it_has_its_own(world):
    await started(world)
    world.succeed()
    await world.settle()
    world.edit(training={"maxSteps": 5})
    await world.settle()
    assert world.status.artifact.digest == "a" * 64
    assert (world.status.artifact_run, world.status.metrics, world.status.loss) == (1, [], None)
    assert world.said("Complete")[0] == "False"
    world.succeed()
    await world.settle()
    assert world.status.artifact_run == 2


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": False},
        {"backoffLimit": 9},
        {"publish": {"expert": {"name": "other", "inferenceServiceRef": {"name": "qwen"}}}},
        {"compute": {"gpusPerNode": 0, "resources": {"limits": {"memory": "9Gi"}}}},
        {"evalSplitRatio": 0, "training": {"seed": 42}},
    ],
)
async def test_what_does_not_decide_the_result_starts_no_run(world, change):
    await started(world)
    world.edit(**change)
    await world.settle()
    assert (world.status.run.number, world.jobs()) == (1, ["sql-r1-a1"])
    assert world.status.observed_generation == 2


async def test_a_changed_publish_of_a_complete_run_changes_the_experts_without_a_run(world):
    await started(world)
    world.succeed()
    await world.settle()
    world.edit(publish={"expert": {"name": "other", "inferenceServiceRef": {"name": "qwen"}}})
    await world.settle()
    assert sorted(e["metadata"]["name"] for e in world.cluster.all(EXPERTS)) == ["other", "sql"]
    assert (world.status.phase, world.status.expert_ref.name, world.status.run.number) == ("Complete", "other", 1)


async def test_suspend_stops_the_attempt_and_resume_makes_the_next_uncounted(world):
    await started(world)
    world.edit(suspend=True)
    await world.settle()
    assert world.jobs() == []
    assert world.said("Suspended")[:2] == ("True", "SuspendedByUser")
    assert world.status.phase == "Suspended"
    world.edit(suspend=False)
    await world.settle()
    assert world.jobs() == ["sql-r1-a2"]
    assert world.status.run.failures == 0
    assert world.said("Suspended")[:2] == ("False", "NotSuspended")


async def test_suspended_from_the_start_makes_nothing():
    world = World(FakeCluster(manifest(suspend=True), claim("models"), claim("data")))
    await world.settle()
    assert (world.jobs(), world.status.phase) == ([], "Suspended")


async def test_a_finished_attempt_counts_even_if_suspended(world):
    await started(world)
    world.succeed()
    world.edit(suspend=True)
    await world.settle()
    assert world.status.phase == "Complete"


async def test_what_the_api_server_refuses_is_said(world):
    world.cluster.refuse = ("create", "Job")
    await reconcile(KEY, world)
    assert await reconcile(KEY, world) == 60
    assert world.said("Stalled")[:2] == ("True", "Refused")
    assert "affinity: unknown field" in world.status.message
    world.cluster.refuse = None
    await world.settle()
    assert world.said("Stalled")[0] == "False"
    assert world.jobs() == ["sql-r1-a1"]


async def test_what_cannot_be_read_is_said_and_the_record_kept(world):
    await started(world)
    record = world.status.run
    world.edit(method="GRPO")
    await world.settle()
    raw = world.cluster.objects["finetunejobs", "team", "sql"]
    stalled = next(c for c in raw["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Unreadable")
    assert "spec.method" in stalled["message"]
    world.edit(method="SFT")
    await world.settle()
    assert world.status.run == record
    assert world.said("Stalled")[0] == "False"


async def test_a_job_of_a_namesake_before_us_is_not_ours(world):
    await reconcile(KEY, world)
    namesake = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "sql-r1-a1",
            "namespace": "team",
            "labels": {"largeforge.ai/finetunejob": "sql"},
            "ownerReferences": [{"controller": True, "uid": "uid-before"}],
        },
        "spec": {},
    }
    world.cluster.put(finished(namesake, "Complete"))
    with pytest.raises(ClusterError):
        await reconcile(KEY, world)
    world.cluster.drop(JOBS, "team", "sql-r1-a1")
    await world.settle()
    assert world.jobs() == ["sql-r1-a1"]


async def test_a_deleted_object_is_left_to_the_garbage_collector(world):
    world.cluster.drop(FINETUNEJOBS, "team", "sql")
    assert await reconcile(KEY, world) is None
    assert world.cluster.writes == []


def endings(world):
    """What happens to a run, step by step: a failure, a change, a suspension, a success."""
    return [
        lambda: None,
        lambda: world.end(1),
        lambda: world.wait(30),
        lambda: world.edit(training={"maxSteps": 7}),
        lambda: world.edit(suspend=True),
        lambda: world.edit(suspend=False),
        world.succeed,
    ]


async def play(kill_at):
    """The end of the story, with the operator killed at its write number *kill_at* and started again."""
    world = World(FakeCluster(manifest(publish=PUBLISH), claim("models"), claim("data"), kill_at=kill_at))
    for step in endings(world):
        step()
        try:
            await world.settle()
        except Killed:
            world.cluster.kill_at = None
            await world.settle()
    return world


def end_state(world):
    pods = {p["metadata"]["name"] for p in world.cluster.all(PODS)}
    experts = [e["spec"] for e in world.cluster.all(EXPERTS)]
    return world.status, world.jobs(), sorted(pods), experts, sorted(world.events())


async def test_a_kill_at_any_write_ends_the_same():
    whole = await play(None)
    assert whole.status.phase == "Complete"
    for kill_at in range(len(whole.cluster.writes)):
        killed = await play(kill_at)
        assert end_state(killed) == end_state(whole), f"killed at write {kill_at}: {whole.cluster.writes[kill_at]}"
        assert [w for w in killed.cluster.writes if w[:2] == ("create", "Job")], kill_at


def test_the_digest_is_what_the_record_holds():
    job = finetunejob()
    assert len(run_digest(job.spec)) == 64
