"""A FineTuneJob from its first sight to its end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.api.digest import run_digest
from largeforge.controllers.finetunejob import decide, observe, reconcile
from largeforge.kube.cluster import CONFIGMAPS, EXPERTS, FINETUNEJOBS, JOBS, PODS, ClusterError
from tests.unit.fakes import FakeCluster, Killed
from tests.unit.training import (
    BOUND,
    NOW,
    PUBLISH,
    SETTINGS,
    claim,
    failure,
    finetunejob,
    finished,
    manifest,
    result,
)
from tests.unit.world import KEY, World, publishing, world_of


@pytest.fixture
def world():
    return publishing()


async def test_a_new_object_gets_a_run_and_says_everything_at_once(world):
    await reconcile(KEY, world)
    assert {c.type: (c.status, c.reason) for c in world.status.conditions} == {
        "Complete": ("False", "Pending"),
        "Failed": ("False", "Pending"),
        "Suspended": ("False", "NotSuspended"),
        "Stalled": ("False", "Pending"),
        "Validated": ("Unknown", "Pending"),
        "StorageReachable": ("Unknown", "Pending"),
        "DatasetValid": ("Unknown", "Pending"),
        "Running": ("False", "Pending"),
        "GatePassed": ("False", "NotRequested"),
        "Published": ("False", "Pending"),
    }
    assert all(c.observed_generation == 1 and c.last_transition_time == NOW for c in world.status.conditions)
    run = world.status.run
    assert (run.number, run.stage, run.attempt, run.job_name) == (1, "Preflight", 1, "sql-r1-p1")
    assert (run.base.uri, world.status.base) == ("pvc://models/base", "pvc://models/base")
    assert world.jobs() == []


async def test_preflight_comes_first_and_holds_no_gpu():
    world = world_of(compute={"gpusPerNode": 2})
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]
    (container,) = world.batch["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "largeforge.jobs.preflight"
    assert "nvidia.com/gpu" not in str(world.batch)
    world.start_pod()
    await world.settle()
    assert (world.status.phase, world.said("Running")[:2]) == ("Preflight", ("False", "Preflight"))


async def test_what_preflight_found_is_said_and_training_begins(world):
    await world.settle()
    world.succeed(warnings=["3 rows are cut"])
    await world.settle()
    run = world.status.run
    assert world.jobs() == ["sql-r1-a1", "sql-r1-p1"], "the logs of preflight are kept"
    assert (run.stage, run.attempt, run.job_name, run.base.digest) == ("Training", 1, "sql-r1-a1", BOUND)
    assert world.said("Validated")[:2] == ("True", "Checked")
    assert world.said("DatasetValid") == ("True", "Checked", "190 rows, 10 held out; 3 rows are cut")
    assert world.status.dataset.samples == 190
    assert ("Normal", "Checked") in world.events()


async def test_commits_that_preflight_found_go_into_the_configuration_of_training():
    world = world_of(base={"uri": "hf://org/model"}, datasets=[{"uri": "hf://org/rows", "split": "train"}])
    await world.settle()
    world.succeed(sources={"baseCommit": "c" * 40, "baseDigest": "c" * 40, "datasetCommits": ["d" * 40]})
    await world.settle()
    config = world.cluster.objects["configmaps", "team", "sql-r1-config"]["data"]["config.json"]
    assert f'"commit": "{"c" * 40}"' in config
    assert f'"commit": "{"d" * 40}"' in config
    before = world.cluster.objects["configmaps", "team", "sql-r1-preflight"]["data"]["config.json"]
    assert "c" * 40 not in before


async def test_an_artifact_that_is_there_already_ends_the_run_before_a_gpu_is_taken(world):
    await world.settle()
    world.end(0, result(digest=world.status.run.digest, adopted=True))
    await world.settle()
    assert (world.status.phase, world.jobs()) == ("Complete", ["sql-r1-p1"])
    assert world.said("Running")[2] == "run 1 found what an earlier attempt wrote"
    assert world.status.progress.percent == 100


async def test_a_preflight_that_names_an_artifact_elsewhere_is_not_believed(world):
    await world.settle()
    elsewhere = {"kind": "Adapter", "uri": "pvc://other/x", "digest": "", "sizeBytes": 1, "base": ""}
    world.end(0, result(digest=world.status.run.digest, adopted=True, artifact=elsewhere))
    await world.settle()
    assert (world.status.error.reason, world.status.run.failures) == ("ResultMissing", 1)


async def test_a_training_that_says_it_is_a_preflight_is_not_believed(world):
    await world.to_training()
    world.end(0, result(digest=world.status.run.digest, stage="Preflight", artifact=None))
    await world.settle()
    assert world.status.error.reason == "ResultMissing"


@pytest.mark.parametrize("stage", ["Preflight", "Training"])
async def test_a_second_pass_writes_nothing(world, stage):
    await (world.settle() if stage == "Preflight" else world.to_training())
    for happens in (lambda: None, world.start_pod):
        happens()
        await world.settle()
        plan = decide(
            world.job,
            await observe(world.cluster, world.job),
            settings=SETTINGS,
            now=world.now() + timedelta(seconds=10),
        )
        assert plan.empty
        assert list(plan.events) == []
        assert plan.status == world.status


async def test_a_running_pod_is_said(world):
    await world.to_training()
    world.start_pod()
    await world.settle()
    assert world.said("Running")[:2] == ("True", "Running")
    assert world.status.phase == "Running"


UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ],
}


@pytest.mark.parametrize("stage", ["Preflight", "Training"])
@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "ImagePullFailed", "no such image"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}},
            "SecretMissing",
            "spec.compute.podTemplate.env[0].valueFrom.secretKeyRef: no Secret 'hub' in the namespace",
        ),
        (
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": "couldn't find key token in Secret team/hub",
                }
            },
            "SecretMissing",
            "Secret 'hub' has no entry 'token'",
        ),
        (
            {"waiting": {"reason": "CreateContainerError", "message": "no such device"}},
            "ContainerConfigError",
            "no such device",
        ),
        (UNSCHEDULABLE, "Unschedulable", "no node has enough nvidia.com/gpu free"),
    ],
)
async def test_what_holds_a_pod_up_is_said_once(world, stage, trouble, reason, words):
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    world.edit(compute={"gpusPerNode": 0, "podTemplate": {"env": [secret]}})
    await (world.settle() if stage == "Preflight" else world.to_training())
    world.start_pod(**trouble)
    await world.settle()
    status, said, message = world.said("Running")
    assert (status, said) == ("False", reason)
    assert words in message
    assert words in world.status.message
    world.wait(60)
    await world.settle()
    assert world.events().count(("Warning", reason)) == 1


async def test_a_job_whose_pod_is_refused_says_where_to_look(world):
    await world.settle()
    world.cluster.put(world.batch | {"metadata": world.batch["metadata"] | {"creationTimestamp": NOW.isoformat()}})
    assert await world.settle() == 30
    world.wait(31)
    await world.settle()
    assert world.said("Running")[1] == "Refused"
    assert "kubectl describe job -n team sql-r1-p1" in world.status.message


async def test_success_is_recorded_published_and_complete(world):
    await world.complete(checkpoint={"step": 40, "uri": "pvc://models/out/x", "resumes": 2})
    assert world.status.phase == "Complete"
    assert world.said("Complete") == ("True", "Succeeded", "trained: pvc://models/out/sql-0123456789ab")
    assert world.said("Published")[:2] == ("True", "Published")
    assert world.said("DatasetValid")[:2] == ("True", "Checked")
    run = world.status.run
    assert (run.outcome, run.resumes, run.artifact.digest) == ("Succeeded", 2, "a" * 64)
    assert (world.status.progress.percent, world.status.progress.loss) == (100, "1.2")
    assert (world.status.artifact_run, world.status.resolved.ranks) == (1, 2)
    assert world.status.resolved.image == "trainer:1"
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
    assert world.events() == [("Normal", "Started"), ("Normal", "Checked"), ("Normal", "Succeeded")]


async def test_what_preflight_found_in_the_data_stays_though_training_tells_less(world):
    await world.settle()
    whole = {"digest": "e" * 64, "samples": 190, "tokens": 5000, "formats": ["Messages"]}
    world.succeed(dataset=whole)
    await world.settle()
    world.succeed()
    await world.settle()
    assert (world.status.dataset.tokens, world.status.dataset.formats) == (5000, ["Messages"])


async def test_complete_waits_for_the_expert(world):
    await world.to_training()
    world.succeed()
    await reconcile(KEY, world)
    assert world.status.run.outcome == "Succeeded"
    assert world.said("Complete")[0] == "False"
    await reconcile(KEY, world)
    assert world.said("Complete")[0] == "False"
    await reconcile(KEY, world)
    assert world.said("Complete")[0] == "True"


async def test_without_publish_it_is_complete_at_once():
    world = await world_of().complete()
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
    await world.to_training()
    world.succeed()
    again = await world.settle()
    assert world.said("Published")[:2] == ("False", "NameTaken")
    assert world.said("Complete")[:2] == ("False", "NameTaken")
    assert "choose another name" in world.status.message
    assert world.events().count(("Warning", "NameTaken")) == 1
    assert again == 60
    assert world.cluster.all(EXPERTS)[0]["spec"] == {"type": "Model"}
    world.cluster.drop(EXPERTS, "team", "sql")
    await world.settle()
    assert world.said("Complete")[0] == "True"


@pytest.mark.parametrize("stage", ["Preflight", "Training"])
@pytest.mark.parametrize(
    ("code", "reason", "condition"),
    [
        (64, "InvalidConfig", "Validated"),
        (64, "TargetModulesNotFound", "Validated"),
        (64, "HubUnauthorized", "Validated"),
        (65, "BaseInvalid", "Validated"),
        (65, "DatasetInvalid", "DatasetValid"),
        (65, "DatasetMissing", "DatasetValid"),
    ],
)
async def test_a_users_error_ends_the_run_with_its_own_words(world, stage, code, reason, condition):
    await (world.settle() if stage == "Preflight" else world.to_training())
    found = {"digest": "", "samples": 0, "invalid": 3, "problems": ["rows.jsonl line 17: no 'messages'"]}
    world.end(
        code,
        failure(reason, "row 17: no 'messages'", "spec.datasets[0]", digest=world.status.run.digest, dataset=found),
    )
    await world.settle()
    assert world.said("Failed") == ("True", reason, "row 17: no 'messages'")
    assert world.said("Stalled")[0] == "True"
    assert world.said(condition)[:2] == ("False", reason)
    assert world.status.error.field == "spec.datasets[0]"
    assert world.status.dataset.problems == ["rows.jsonl line 17: no 'messages'"]
    assert (world.status.phase, world.status.run.outcome, world.status.run.attempt) == ("Failed", "Failed", 1)
    assert world.events().count(("Warning", reason)) == 1
    world.wait(3600)
    jobs = world.jobs()
    await world.settle()
    assert world.jobs() == jobs, "no next attempt"


async def test_a_users_error_is_known_from_the_job_when_the_pod_is_gone(world):
    await world.settle()
    said = "Container trainer for pod team/sql-r1-p1-0-x failed with exit code 65 matching FailJob rule at index 0"
    world.end(65, said=said, keep_pod=False)
    await world.settle()
    assert world.said("Failed")[1] == "DatasetInvalid"


async def test_texts_of_a_container_are_redacted(world):
    await world.settle()
    world.end(
        64,
        failure(
            "not a reason",
            "https://me:pw@host/x?sig=abc refused\x1b[0m token=hf_abcdefghijklmnop",
            digest=world.status.run.digest,
            dataset={"digest": "", "samples": 0, "problems": ["password: hunter22"]},
        ),
    )
    await world.settle()
    assert world.said("Failed") == ("True", "TrainingFailed", "https://***@host/x?*** refused [0m token=***")
    assert world.status.dataset.problems == ["password: ***"]


async def test_a_missing_claim_is_named_and_looked_for_again():
    world = world_of(claims=["models"])
    again = await world.settle()
    status, reason, message = world.said("StorageReachable")
    assert (status, reason, again) == ("False", "ClaimNotFound", 15)
    assert message == (
        "spec.datasets[0].uri: no PersistentVolumeClaim 'data' in namespace 'team'; create it to start the run"
    )
    assert world.status.message == message
    assert world.jobs() == []
    world.cluster.put(claim("data"))
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]
    assert world.said("StorageReachable")[0] == "True"


async def test_a_claim_that_goes_while_the_pod_waits_is_said(world):
    await world.to_training()
    world.start_pod(phase="Pending")
    world.cluster.objects.pop(("persistentvolumeclaims", "team", "data"))
    assert await world.settle() == 15
    assert world.said("StorageReachable")[:2] == ("False", "ClaimNotFound")
    world.cluster.put(claim("data"))
    await world.settle()
    assert world.said("StorageReachable")[0] == "True"


async def test_a_missing_config_map_or_key_is_named():
    world = world_of(claims=["models"], datasets=[{"uri": "configmap://rows/train.jsonl"}])
    await world.settle()
    assert world.said("StorageReachable")[1] == "DatasetMissing"
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows", "namespace": "team"}}
    world.cluster.put(rows | {"data": {"other": ""}})
    await world.settle()
    assert "has no key 'train.jsonl'" in world.said("StorageReachable")[2]
    world.cluster.put(rows | {"data": {"train.jsonl": ""}})
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]


async def test_preflight_binds_no_claim_where_no_gpu_may_be():
    world = world_of(compute={"gpusPerNode": 1}, output={"uri": "pvc://out/sql"})
    world.cluster.put(claim("out", phase="Pending"))
    await world.settle()
    assert "'out'" not in str(world.batch["spec"]["template"]["spec"]["volumes"])
    world.start_pod()
    await world.settle()
    assert "without PersistentVolumeClaim out: it is not bound yet" in world.status.message
    world.succeed()
    await world.settle()
    assert "'out'" in str(world.batch["spec"]["template"]["spec"]["volumes"])


async def test_what_the_api_server_refuses_is_said(world):
    world.cluster.refuse = ("create", "Job")
    await reconcile(KEY, world)
    assert await reconcile(KEY, world) == 60
    assert world.said("Stalled")[:2] == ("True", "Refused")
    assert "affinity: unknown field" in world.status.message
    world.cluster.refuse = None
    await world.settle()
    assert world.said("Stalled")[0] == "False"
    assert world.jobs() == ["sql-r1-p1"]


async def test_what_cannot_be_read_is_said_and_the_record_kept(world):
    await world.settle()
    record = world.status.run
    world.edit(method="GRPO")
    await world.settle()
    stalled = next(c for c in world.raw["status"]["conditions"] if c["type"] == "Stalled")
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
            "name": "sql-r1-p1",
            "namespace": "team",
            "labels": {"largeforge.ai/finetunejob": "sql"},
            "ownerReferences": [{"controller": True, "uid": "uid-before"}],
        },
        "spec": {},
    }
    world.cluster.put(finished(namesake, "Complete"))
    with pytest.raises(ClusterError):
        await reconcile(KEY, world)
    world.cluster.drop(JOBS, "team", "sql-r1-p1")
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]


async def test_a_deleted_object_is_left_to_the_garbage_collector(world):
    world.cluster.drop(FINETUNEJOBS, "team", "sql")
    assert await reconcile(KEY, world) is None
    assert world.cluster.writes == []


async def test_children_go_when_their_time_is_over_and_the_record_stays(world):
    world.edit(ttlSecondsAfterFinished=600)
    await world.complete()
    assert await world.settle() == 600
    before = world.status
    world.wait(601)
    await world.settle()
    assert (world.jobs(), world.cluster.all(CONFIGMAPS), world.cluster.all(PODS)) == ([], [], [])
    assert world.status == before
    assert world.cluster.all(EXPERTS) != []
    world.wait(3600)
    await world.settle()
    assert (world.status.run.number, world.jobs()) == (1, [])


async def test_children_of_a_failed_run_go_too(world):
    world.edit(ttlSecondsAfterFinished=0)
    await world.settle()
    world.end(64, failure("InvalidConfig", "no", digest=world.status.run.digest))
    await world.settle()
    assert (world.jobs(), world.cluster.all(CONFIGMAPS)) == ([], [])
    assert world.said("Failed")[:2] == ("True", "InvalidConfig")


async def test_a_config_map_of_another_owner_is_not_removed(world):
    world.edit(ttlSecondsAfterFinished=0)
    await world.to_training()
    theirs = world.cluster.objects["configmaps", "team", "sql-r1-config"]
    world.cluster.put(theirs | {"metadata": theirs["metadata"] | {"ownerReferences": []}})
    world.succeed()
    await world.settle()
    assert [m["metadata"]["name"] for m in world.cluster.all(CONFIGMAPS)] == ["sql-r1-config"]


async def test_a_status_that_was_lost_comes_back_through_preflight(world):
    await world.complete()
    expert = world.cluster.all(EXPERTS)
    lost = {k: v for k, v in world.raw.items() if k != "status"}
    world.cluster.put(lost)
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]
    world.end(0, result(digest=world.status.run.digest, adopted=True))
    await world.settle()
    assert (world.status.phase, world.status.artifact.digest) == ("Complete", "a" * 64)
    assert world.cluster.all(EXPERTS) == expert
    assert not [name for name in world.jobs() if "-a" in name]


@pytest.mark.parametrize(
    ("spec", "settings", "reason", "words"),
    [
        (
            {"base": {"uri": "hf://org/m", "trustRemoteCode": True}},
            {"remote_code_namespaces": frozenset({"team"})},
            "RemoteCodeNotAllowed",
            "namespace 'team' is not in the chart's training.remoteCodeNamespaces",
        ),
        (
            {"serviceAccountName": "trainer"},
            {"service_accounts": frozenset({"trainer"})},
            "ServiceAccountNotAllowed",
            "'trainer' is not in the chart's training.serviceAccounts",
        ),
    ],
)
async def test_what_the_installation_does_not_allow_starts_nothing(spec, settings, reason, words):
    world = world_of(**spec)
    await world.settle()
    assert world.said("Validated")[:2] == ("False", reason)
    assert words in world.status.message
    assert (world.status.run, world.jobs()) == (None, [])
    assert world.events() == [("Warning", reason)]
    world.settings = SETTINGS.model_copy(update=settings)
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]
    assert world.said("Validated")[0] == "Unknown"


async def test_the_default_account_is_always_allowed():
    world = world_of(serviceAccountName="default")
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]


def story(world):
    """What happens to a run, step by step."""
    return [
        lambda: None,
        lambda: world.end(1),
        lambda: world.wait(30),
        world.succeed,
        lambda: world.end(1),
        lambda: world.wait(30),
        lambda: world.edit(training={"maxSteps": 7}),
        world.succeed,
        lambda: world.edit(suspend=True),
        lambda: world.edit(suspend=False),
        world.succeed,
        lambda: world.wait(700),
    ]


async def play(kill_at):
    """The end of the story, with the operator killed at its write number *kill_at* and started again."""
    raw = manifest(publish=PUBLISH, ttlSecondsAfterFinished=600, gate={"maxEvalLoss": 2}, evalSplitRatio=0.1)
    world = World(FakeCluster(raw, claim("models"), claim("data"), kill_at=kill_at))
    for step in story(world):
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
    configs = sorted(m["metadata"]["name"] for m in world.cluster.all(CONFIGMAPS))
    return world.status, world.jobs(), sorted(pods), experts, configs, sorted(world.events())


async def test_a_kill_at_any_write_ends_the_same():
    whole = await play(None)
    assert whole.status.phase == "Complete"
    assert len(whole.cluster.writes) > 50
    for kill_at in range(len(whole.cluster.writes)):
        killed = await play(kill_at)
        assert end_state(killed) == end_state(whole), f"killed at write {kill_at}: {whole.cluster.writes[kill_at]}"


def test_the_digest_is_what_the_record_holds():
    job = finetunejob()
    assert len(run_digest(job.spec)) == 64
