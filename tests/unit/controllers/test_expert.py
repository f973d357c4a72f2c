from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.controllers import expert
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import FINETUNEJOBS, INFERENCESERVICES, PODS
from tests.unit.serving import (
    BASE,
    NAMESPACE,
    World,
    complete_job,
    expert_manifest,
    model_expert,
    pod_manifest,
    second_pod,
    service_manifest,
)
from tests.unit.training import NOW
from tests.unit.training import manifest as job_manifest

OLD, NEW = "sql-aaaaaaaa", "sql-bbbbbbbb"
OLD_PATH, NEW_PATH = "/mnt/adapters/sql-aaaaaaaaaaaa", "/mnt/adapters/sql-bbbbbbbbbbbb"
DETAILS = ("ArtifactResolved", "Compatible", "Loaded", "Probed", "Ready")


@pytest.fixture
def world():
    return World(service_manifest(), complete_job(), expert_manifest(), pod_manifest())


def conditions(world, name="sql"):
    return {kind: world.said(world.expert(name), kind)[:2] for kind in DETAILS}


def run_again(world, digest="b" * 64, **more):
    """The job's next run is complete."""
    world.cluster.put(complete_job(digest=digest, run=2, **more))


async def test_an_adapter_is_loaded_proven_and_ready(world):
    await world.look("sql")
    assert world.engines.take() == [("load", "10.0.0.1", OLD, OLD_PATH), ("answers", "10.0.0.1", OLD)]
    status = world.expert().status
    assert conditions(world) == {
        "ArtifactResolved": ("True", "Resolved"),
        "Compatible": ("True", "Compatible"),
        "Loaded": ("True", "Loaded"),
        "Probed": ("True", "Probed"),
        "Ready": ("True", "Ready"),
    }
    assert (status.resolved.engine_name, status.resolved.rank, status.resolved.base) == (OLD, 16, BASE)
    assert (status.placement.engine_name, status.placement.summary, status.last_probe_time) == (OLD, "1/1", NOW)
    entry = status.placement.pods[0]
    assert (entry.uid, entry.container_id, entry.loaded) == ("uid-of-smol-engine-1", "containerd://c1", True)
    assert (status.lineage.fine_tune_job, status.lineage.run) == ("sql", 1)
    assert world.said(world.expert(), "Reconciling") is None
    assert world.events() == [("sql", "Normal", "Ready")]


async def test_deciding_again_asks_and_writes_nothing(world):
    await world.look()
    world.engines.take()
    observed = await expert.observe(world, world.expert())
    decision = expert.decide(world.expert(), observed, NOW + timedelta(hours=1))
    assert decision.plan.empty
    assert (list(decision.calls), list(decision.cleanup), list(decision.plan.events)) == ([], [], [])
    assert decision.plan.status == world.expert().status
    await world.look()
    assert world.engines.take() == []


async def test_everything_is_said_at_first_sight():
    world = World(expert_manifest())
    await world.look()
    assert conditions(world) == {
        "ArtifactResolved": ("False", "SourceNotFound"),
        "Compatible": ("False", "ServiceNotFound"),
        "Loaded": ("Unknown", "Pending"),
        "Probed": ("Unknown", "Pending"),
        "Ready": ("False", "SourceNotFound"),
    }
    assert world.expert().status.placement is None


async def test_a_run_that_goes_on_is_waited_for():
    world = World(service_manifest(), expert_manifest(), job_manifest(), pod_manifest())
    await world.look()
    said = "FineTuneJob 'sql' has no complete run yet (Pending)"
    assert world.said(world.expert(), "Ready") == ("False", "SourceNotComplete", said)
    assert world.said(world.expert(), "Reconciling")[:2] == ("True", "Reconciling")
    assert world.said(world.expert(), "Compatible")[:2] == ("Unknown", "Pending")
    assert [event for event in world.events() if event[0] == "sql"] == []
    world.cluster.put(complete_job())
    await world.look()
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_deleting_the_job_takes_no_serving_expert_down(world):
    await world.look()
    world.cluster.drop(FINETUNEJOBS, NAMESPACE, "sql")
    world.restart(container="c2", ready=True)
    await world.look()
    assert conditions(world)["Ready"] == ("True", "Ready")
    said = "run 1 of FineTuneJob 'sql', which is gone"
    assert world.said(world.expert(), "ArtifactResolved") == ("True", "Resolved", said)
    assert world.engines.served["10.0.0.1"] == {OLD}


async def test_another_source_that_is_not_there_leaves_the_old_one_serving(world):
    await world.look()
    world.edit("experts", "sql", sourceRef={"kind": "FineTuneJob", "name": "other"})
    await world.look()
    assert conditions(world)["ArtifactResolved"] == ("False", "SourceNotFound")
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_a_container_that_restarts_loads_again(world):
    await world.look()
    world.engines.take()
    world.restart(container="c2", ready=False)
    await world.look()
    assert conditions(world)["Ready"] == ("False", "ServiceNotReady")
    assert [p.loaded for p in world.expert().status.placement.pods] == [False]
    assert world.expert().status.placement.summary == "0/1"
    world.restart(container="c2", ready=True)
    await world.look("sql")
    assert world.engines.take() == [("load", "10.0.0.1", OLD, OLD_PATH), ("answers", "10.0.0.1", OLD)]
    assert world.expert().status.placement.pods[0].container_id == "containerd://c2"
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_an_adapter_that_somebody_unloaded_is_loaded_again(world):
    await world.look()
    world.engines.served["10.0.0.1"].clear()
    await world.look()
    assert world.engines.served["10.0.0.1"] == {OLD}
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_a_pod_that_is_not_ready_for_a_moment_keeps_what_it_proved(world):
    await world.look()
    world.engines.take()
    world.cluster.put(pod_manifest(ready=False, container_status={"started": True}))
    await world.look()
    assert conditions(world)["Ready"] == ("False", "ServiceNotReady")
    assert world.expert().status.placement.pods[0].loaded
    world.cluster.put(pod_manifest())
    await world.look()
    assert conditions(world)["Ready"] == ("True", "Ready")
    assert world.engines.take() == []


async def test_one_ready_pod_is_enough_and_every_pod_gets_it():
    world = World(
        service_manifest(replicas=2), complete_job(), expert_manifest(), pod_manifest(), second_pod(ready=False)
    )
    await world.look()
    assert world.said(world.expert(), "Ready") == ("True", "Ready", f"served as {OLD} on 1 of 2 pods")
    assert world.expert().status.placement.summary == "1/2"
    assert world.said(world.expert(), "Reconciling") == ("True", "Reconciling", "1 of 2 pods have it")
    world.cluster.put(second_pod())
    await world.look()
    assert world.expert().status.placement.summary == "2/2"
    assert world.said(world.expert(), "Reconciling") is None


async def test_a_load_that_fails_is_said_in_the_engines_words(world):
    world.engines.troubles["load", "10.0.0.1"] = "Loading lora sql failed: No adapter found (404)"
    again = await world.look()
    said = "pvc://models/out/sql-aaaaaaaaaaaa on pod smol-engine-1: Loading lora sql failed: No adapter found (404)"
    assert world.said(world.expert(), "Loaded") == ("False", "LoadFailed", said)
    assert world.said(world.expert(), "Ready") == ("False", "LoadFailed", said)
    assert world.expert().status.placement.pods[0].error == "Loading lora sql failed: No adapter found (404)"
    assert again["sql"] == 10
    assert ("sql", "Warning", "LoadFailed") in world.events()


async def test_a_probe_that_fails_is_said_and_tried_again(world):
    world.engines.troubles["answers", "10.0.0.1", OLD] = "no answer to /v1/chat/completions within 30 s"
    again = await world.look()
    assert conditions(world)["Loaded"] == ("True", "Loaded")
    assert conditions(world)["Probed"] == ("False", "ProbeFailed")
    assert conditions(world)["Ready"] == ("False", "ProbeFailed")
    assert not world.expert().status.placement.pods[0].loaded
    assert again["sql"] == 10
    world.engines.troubles.clear()
    world.engines.take()
    await world.look("sql")
    assert world.engines.take() == [("answers", "10.0.0.1", OLD)]
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_an_engine_that_cannot_be_asked_keeps_what_is_recorded(world):
    await world.look()
    world.engines.troubles["list", "10.0.0.1"] = "no answer to /v1/models within 5 s"
    world.engines.take()
    await world.look()
    assert conditions(world)["Ready"] == ("True", "Ready")
    assert world.engines.take() == []


async def test_an_engine_that_cannot_be_asked_is_asked_for_nothing_more(world):
    world.engines.troubles["list", "10.0.0.1"] = "no answer to /v1/models within 5 s"
    again = await world.look("sql")
    assert world.engines.take() == []
    assert world.said(world.expert(), "Loaded") == (
        "False",
        "LoadFailed",
        "pvc://models/out/sql-aaaaaaaaaaaa on pod smol-engine-1: no answer to /v1/models within 5 s",
    )
    assert again["sql"] == 10


async def test_a_new_version_is_loaded_beside_the_old_one_which_goes_after_its_drain(world):
    await world.look()
    world.wait(3600)
    world.engines.take()
    run_again(world)
    again = await world.look("sql")
    assert world.engines.take() == [("load", "10.0.0.1", NEW, NEW_PATH), ("answers", "10.0.0.1", NEW)]
    assert world.expert().status.placement.engine_name == NEW
    assert world.expert().status.lineage.run == 2
    assert world.engines.served["10.0.0.1"] == {OLD, NEW}
    assert again["sql"] == 50  # the service's drainSeconds
    world.wait(49)
    assert (await world.look("sql"))["sql"] == 1
    world.wait(1)
    await world.look()
    assert world.engines.take() == [("unload", "10.0.0.1", OLD)]
    assert world.engines.served["10.0.0.1"] == {NEW}


async def test_the_name_changes_when_every_pod_that_served_the_old_one_has_proven_the_new():
    world = World(service_manifest(replicas=2), complete_job(), expert_manifest(), pod_manifest(), second_pod())
    await world.look()
    world.engines.troubles["load", "10.0.0.2", NEW] = "no such file"
    run_again(world)
    again = await world.look()
    placement = world.expert().status.placement
    assert (placement.engine_name, placement.summary, placement.resolved.engine_name) == (OLD, "2/2", OLD)
    assert world.expert().status.resolved.engine_name == NEW
    assert world.said(world.expert(), "Ready") == ("True", "Ready", f"served as {OLD} on 2 of 2 pods")
    assert world.said(world.expert(), "Loaded") == (
        "False",
        "LoadFailed",
        "pvc://models/out/sql-bbbbbbbbbbbb on pod smol-engine-2: no such file",
    )
    assert [p.error for p in placement.pods] == [None, "no such file"]
    assert again["sql"] == 10
    assert world.engines.served == {"10.0.0.1": {OLD, NEW}, "10.0.0.2": {OLD}}
    world.engines.troubles.clear()
    await world.look()
    assert world.expert().status.placement.engine_name == NEW
    assert world.expert().status.placement.summary == "2/2"


async def test_a_restart_in_the_middle_of_a_swap_gets_both_versions():
    world = World(service_manifest(replicas=2), complete_job(), expert_manifest(), pod_manifest(), second_pod())
    await world.look()
    world.engines.troubles["load", "10.0.0.2", NEW] = "no such file"
    run_again(world)
    await world.look()
    world.restart(container="c2", ready=True)
    await world.look()
    assert world.engines.served == {"10.0.0.1": {OLD, NEW}, "10.0.0.2": {OLD}}
    assert world.expert().status.placement.summary == "2/2"


async def test_a_new_version_that_does_not_fit_leaves_the_old_one_serving(world):
    await world.look()
    run_again(world, base="pvc://models/other")
    await world.look()
    assert conditions(world)["Compatible"] == ("False", "BaseMismatch")
    assert world.said(world.expert(), "Ready") == ("True", "Ready", f"served as {OLD} on 1 of 1 pods")
    world.wait(3600)
    world.restart(container="c2", ready=True)
    await world.look()
    assert conditions(world)["Ready"] == ("True", "Ready")
    assert world.engines.served["10.0.0.1"] == {OLD}


async def test_a_restarted_operator_finds_what_it_left(world):
    await world.look()
    world.wait(3600)
    world.engines.served["10.0.0.1"] |= {"sql-00000000", "sql-beta-00000000", "sql-0000000", "by-hand"}
    world.engines.take()
    await world.look("sql")
    assert world.engines.take() == [("unload", "10.0.0.1", "sql-00000000")]


async def test_an_expert_whose_name_begins_anothers_unloads_nothing_of_it(world):
    world.cluster.put(complete_job("sql-beta"))
    world.cluster.put(expert_manifest("sql-beta", job="sql-beta"))
    await world.look()
    world.wait(3600)
    await world.look()
    assert world.engines.served["10.0.0.1"] == {OLD, "sql-beta-aaaaaaaa"}


@pytest.mark.parametrize(
    ("service", "artifact", "reason", "words"),
    [
        ({"model": {"uri": "pvc://models/other"}}, {}, "BaseMismatch", "serves pvc://models/other"),
        ({"lora": None}, {}, "NoAdapterStore", "spec.lora.store"),
        ({}, {"rank": 128}, "RankAboveService", "the adapter's rank is 128"),
        ({}, {"kind": "Model", "rank": None}, "UnsupportedAdapter", "peft.type: LoRA"),
        ({}, {"uri": "pvc://models/../etc"}, "ArtifactNotFound", "is no folder of a claim"),
    ],
)
async def test_what_cannot_work_is_said_before_it_is_loaded(service, artifact, reason, words):
    world = World(service_manifest(**service), complete_job(**artifact), expert_manifest(), pod_manifest())
    await world.look("sql")
    status, said, message = world.said(world.expert(), "Compatible")
    assert (status, said) == ("False", reason)
    assert words in message
    assert world.said(world.expert(), "Ready") == ("False", reason, message)
    assert world.engines.take() == []
    assert world.expert().status.placement is None


async def test_a_base_that_changed_takes_the_adapter_away(world):
    await world.look()
    world.wait(3600)
    world.edit("inferenceservices", "smol", model={"uri": "pvc://models/other"})
    await world.look()
    assert conditions(world)["Ready"] == ("False", "BaseMismatch")
    assert world.expert().status.placement is None
    assert world.engines.served["10.0.0.1"] == set()


async def test_slots_go_to_those_that_serve_then_to_the_older_ones():
    world = World(service_manifest(lora={"store": "pvc://models/out", "maxLoras": 1, "maxCpuLoras": 3}), pod_manifest())
    for age, name in enumerate(("young", "middle", "old")):
        world.cluster.put(complete_job(name))
        world.cluster.put(expert_manifest(name, job=name, created=NOW - timedelta(hours=age)))
    for _ in range(2):
        again = await world.look()
    assert {name: conditions(world, name)["Ready"] for name in ("young", "middle", "old")} == {
        "young": ("False", "SlotsExhausted"),
        "middle": ("True", "Ready"),
        "old": ("True", "Ready"),
    }
    assert "held by middle, old" in world.said(world.expert("young"), "Ready")[2]
    assert again["young"] == 30
    world.cluster.put(complete_job("ancient"))
    world.cluster.put(expert_manifest("ancient", job="ancient", created=NOW - timedelta(days=1)))
    await world.look()
    assert conditions(world, "ancient")["Ready"] == ("False", "SlotsExhausted")
    assert conditions(world, "middle")["Ready"] == ("True", "Ready")


async def test_an_older_service_holds_its_name():
    world = World(
        service_manifest(),
        service_manifest("sql", created=NOW - timedelta(hours=1)),
        complete_job(),
        expert_manifest(),
        pod_manifest(),
    )
    await world.look("sql")
    assert conditions(world)["Ready"] == ("False", "NameTaken")
    assert world.engines.take() == []


async def test_an_older_service_that_is_served_under_its_name_holds_it():
    older = service_manifest("other", created=NOW - timedelta(hours=1), servedModelNames=["sql"])
    world = World(service_manifest(), older, complete_job(), expert_manifest(), pod_manifest())
    await world.look("sql")
    status, reason, message = world.said(world.expert(), "Ready")
    assert (status, reason) == ("False", "NameTaken")
    assert message.startswith("InferenceService 'other' is older and holds the name 'sql'")


async def test_another_commit_of_the_base_is_another_base():
    base = "hf://org/base"
    served = service_manifest(model={"uri": base}) | {"status": {"model": {"uri": base, "commit": "c" * 40}}}
    world = World(served, complete_job(base=base, baseCommit="d" * 40), expert_manifest(), pod_manifest())
    await world.look("sql")
    status, reason, message = world.said(world.expert(), "Ready")
    assert (status, reason) == ("False", "BaseMismatch")
    assert f"made for commit {'d' * 40}" in message
    world.cluster.put(complete_job(base=base, baseCommit="c" * 40))
    await world.look("sql")
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_a_model_that_its_service_serves_by_reference_fits():
    referring = service_manifest(model={"expertRef": {"name": "general"}})
    world = World(referring, model_expert(), pod_manifest())
    await world.look("general")
    assert conditions(world, "general")["Ready"] == ("True", "Ready")


@pytest.mark.parametrize(("kind", "reason"), [("QuantizeJob", "Ready"), ("FineTuneJob", "BaseMismatch")])
async def test_a_base_that_was_quantized_is_still_that_base(kind, reason):
    small = "pvc://models/small"
    referring = service_manifest(model={"expertRef": {"name": "general"}}) | {"status": {"model": {"uri": small}}}
    model = model_expert()
    del model["spec"]["artifact"]
    model["spec"]["sourceRef"] = {"kind": kind, "name": "small"}
    model["status"] = {"resolved": {"uri": small, "base": BASE, "engineName": "smol"}}
    world = World(referring, complete_job(), expert_manifest(), model, pod_manifest())
    await world.look("sql")
    assert conditions(world)["Ready"][1] == reason


async def test_an_adapter_waits_for_the_model_that_its_service_takes_from_an_expert():
    referring = service_manifest(model={"expertRef": {"name": "general"}})
    world = World(referring, complete_job(), expert_manifest(), pod_manifest())
    await world.look("sql")
    assert conditions(world)["Ready"] == ("False", "ServiceNotReady")
    world.cluster.put(referring | {"status": {"model": {"uri": BASE}}})
    await world.look("sql")
    assert conditions(world)["Ready"] == ("True", "Ready")


async def test_a_model_expert_is_proven_and_nothing_is_loaded():
    world = World(service_manifest(), model_expert(), pod_manifest())
    await world.look("general")
    assert world.engines.take() == [("probe", "10.0.0.1", "smol")]
    assert conditions(world, "general") == {
        "ArtifactResolved": ("True", "Resolved"),
        "Compatible": ("True", "Compatible"),
        "Loaded": ("True", "Loaded"),
        "Probed": ("True", "Probed"),
        "Ready": ("True", "Ready"),
    }
    assert world.expert("general").status.placement.engine_name == "smol"
    world.restart(container="c2", ready=True)
    await world.look("general")
    assert world.engines.take() == [("probe", "10.0.0.1", "smol")]


async def test_a_model_expert_of_another_base_is_refused():
    world = World(service_manifest(model={"uri": "pvc://models/other"}), model_expert(), pod_manifest())
    await world.look()
    assert conditions(world, "general")["Ready"] == ("False", "BaseMismatch")


async def test_an_expert_that_moves_leaves_nothing_behind(world):
    world.cluster.put(service_manifest("other"))
    world.cluster.put(pod_manifest("other-engine-1", service="other", address="10.0.1.1"))
    await world.look()
    world.edit("experts", "sql", inferenceServiceRef={"name": "other"})
    await world.look()
    assert world.engines.served == {"10.0.0.1": set(), "10.0.1.1": {OLD}}
    assert [p.name for p in world.expert().status.placement.pods] == ["other-engine-1"]


async def test_a_service_that_is_gone_is_said(world):
    await world.look()
    world.cluster.drop(INFERENCESERVICES, NAMESPACE, "smol")
    world.cluster.drop(PODS, NAMESPACE, "smol-engine-1")
    await world.look()
    assert conditions(world)["Ready"] == ("False", "ServiceNotFound")
    assert world.expert().status.placement is None


async def test_why_the_service_is_not_ready_is_said(world):
    world.cluster.put(
        pod_manifest(ready=False, state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}})
    )
    await world.look()
    status, reason, message = world.said(world.expert(), "Ready")
    assert (status, reason) == ("False", "ServiceNotReady")
    assert "no such tag" in message


async def test_an_object_that_is_gone_or_unreadable_is_left_alone(world):
    assert await expert.reconcile(Key(NAMESPACE, "nobody"), world) is None
    raw = world.raw("experts", "sql")
    world.cluster.put(raw | {"spec": raw["spec"] | {"type": "Oracle"}})
    world.engines.served["10.0.0.1"] = {OLD}
    await world.look()
    stalled = next(c for c in world.raw("experts", "sql")["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Unreadable")
    assert world.engines.served["10.0.0.1"] == {OLD}
