from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.controllers import inferenceservice
from largeforge.controllers.enginepods import engine_pods, last_words
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import DEPLOYMENTS, PERSISTENTVOLUMECLAIMS, PODS, SECRETS, SERVICES
from tests.unit.serving import (
    MASTER_KEY,
    NAMESPACE,
    World,
    complete_job,
    expert_manifest,
    metadata,
    pod_manifest,
    second_pod,
    service_manifest,
)
from tests.unit.training import NOW, SETTINGS


@pytest.fixture
def world():
    return World(service_manifest())


async def test_a_new_service_gets_its_key_before_its_deployment(world):
    await world.look()
    made = [(verb, kind, name) for verb, kind, name in world.cluster.writes if kind != "InferenceService"]
    key = engine_key(namespace_key(MASTER_KEY, NAMESPACE), "uid-of-smol")
    secret = world.cluster.all(SECRETS)[0]
    assert made == [
        ("create", "Secret", secret["metadata"]["name"]),
        ("apply", "Service", "smol-engine"),
        ("apply", "Deployment", "smol-engine"),
    ]
    assert secret["stringData"] == {"key": key}
    assert world.said(world.service(), "Ready") == ("False", "Reconciling", "0 pods are there, 1 are wanted")
    assert world.service().status.url == "http://smol-engine.team.svc:8000"
    assert world.events() == []


async def test_it_is_ready_when_its_pod_has_answered_and_asks_no_pod_twice(world):
    world.cluster.put(pod_manifest(ready=False))
    await world.look()
    assert world.said(world.service(), "Ready") == ("False", "Reconciling", "pod smol-engine-1 loads its model")
    assert world.engines.take() == []
    world.cluster.put(pod_manifest())
    await world.look()
    assert world.said(world.service(), "Ready") == ("True", "Ready", "1 of 1 replicas answered a generation")
    assert world.said(world.service(), "Reconciling") is None
    status = world.service().status
    assert (status.summary, status.ready_replicas, status.pods[0].container_id) == ("1/1", 1, "containerd://c1")
    await world.look()
    assert world.engines.take() == [("probe", "10.0.0.1", "smol")]
    assert world.events() == [("smol", "Normal", "Ready")]


async def test_deciding_again_asks_and_writes_nothing(world):
    world.cluster.put(pod_manifest())
    await world.look()
    observed = await inferenceservice.observe(world, world.service())
    later = NOW + timedelta(hours=1)
    decision = inferenceservice.decide(world.service(), observed, later, settings=SETTINGS)
    assert decision.plan.empty
    assert (decision.calls, decision.cleanup, list(decision.plan.events)) == ([], [], [])
    assert decision.plan.status == world.service().status


async def test_an_engine_that_does_not_answer_a_generation_is_not_ready(world):
    world.cluster.put(pod_manifest())
    world.engines.troubles["probe", "10.0.0.1"] = "EngineCore encountered an issue (500)"
    again = await world.look()
    said = "pod smol-engine-1: EngineCore encountered an issue (500)"
    assert world.said(world.service(), "Ready") == ("False", "EngineSilent", said)
    assert again["smol"] == 10
    world.engines.troubles.clear()
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"


async def test_another_container_of_the_same_pod_has_to_answer_again(world):
    world.cluster.put(pod_manifest())
    await world.look()
    world.engines.take()
    world.restart(container="c2", ready=False)
    await world.look()
    assert world.said(world.service(), "Ready")[:2] == ("False", "Reconciling")
    world.restart(container="c2", ready=True)
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"
    assert world.engines.take() == [("probe", "10.0.0.1", "smol")]


async def test_ready_needs_every_replica_at_first_and_stays_while_it_scales():
    world = World(service_manifest(replicas=2))
    world.cluster.put(pod_manifest())
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "False"
    world.cluster.put(second_pod())
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"
    world.edit("inferenceservices", "smol", replicas=3)
    await world.look()
    said = "2 of 3 replicas answered a generation; see Reconciling"
    assert world.said(world.service(), "Ready") == ("True", "Ready", said)
    assert world.said(world.service(), "Reconciling") == ("True", "Reconciling", "2 pods are there, 3 are wanted")


async def test_scaled_to_zero_is_said(world):
    world.cluster.put(pod_manifest())
    await world.look()
    world.edit("inferenceservices", "smol", replicas=0)
    world.cluster.drop(PODS, NAMESPACE, "smol-engine-1")
    await world.look()
    assert world.said(world.service(), "Ready")[:2] == ("False", "ScaledToZero")
    assert world.said(world.service(), "Reconciling") is None
    assert world.cluster.all(DEPLOYMENTS)[0]["spec"]["replicas"] == 0


WAITING = partial(pod_manifest, ready=False, container="")
CRASHED = {
    "exitCode": 1,
    "reason": "Error",
    "message": "INFO starting\nValueError: the sky is green\n"
    "RuntimeError: Engine core initialization failed. See root cause above.\n",
    "startedAt": "2026-11-25T12:00:00Z",
    "finishedAt": "2026-11-25T12:00:20Z",
}


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (
            WAITING(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}),
            "ImagePullFailed",
            "tag",
        ),
        (
            WAITING(
                state={
                    "waiting": {"reason": "CreateContainerConfigError", "message": 'secret "smol-engine-1" not found'}
                }
            ),
            "SecretMissing",
            "no Secret 'smol-engine-1'",
        ),
        (
            WAITING(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes are available: 1 Insufficient memory.",
                    }
                ]
            ),
            "Unschedulable",
            "Insufficient memory",
        ),
        (
            pod_manifest(
                ready=False,
                state={"waiting": {"reason": "CrashLoopBackOff"}},
                container_status={"restartCount": 3, "lastState": {"terminated": CRASHED}},
            ),
            "EngineFailed",
            "exit code 1: ValueError: the sky is green",
        ),
        (
            pod_manifest(ready=False, container_status={"restartCount": 2, "lastState": {"terminated": CRASHED}}),
            "EngineFailed",
            "exit code 1",
        ),
        (
            pod_manifest(
                ready=False,
                state={"waiting": {"reason": "CrashLoopBackOff"}},
                container_status={"restartCount": 1, "lastState": {"terminated": CRASHED | {"reason": "OOMKilled"}}},
            ),
            "OutOfMemory",
            "raise spec.compute.resources.limits.memory",
        ),
        (
            pod_manifest(
                ready=False,
                container_status={
                    "restartCount": 1,
                    "lastState": {"terminated": CRASHED | {"message": "api_server.py: error: unrecognized arguments"}},
                },
            ),
            "BadArgument",
            "unrecognized arguments",
        ),
        (
            pod_manifest(ready=False, container_status={"restartCount": 1, "lastState": {"terminated": CRASHED}}),
            "Reconciling",
            "loads its model",
        ),
        (
            pod_manifest(
                ready=False,
                container_status={
                    "restartCount": 9,
                    "lastState": {"terminated": CRASHED | {"finishedAt": "2026-11-25T13:00:00Z"}},
                },
            ),
            "Reconciling",
            "loads its model",
        ),
        (pod_manifest(ready=False, container_status={"started": True}), "Reconciling", "health check no more"),
    ],
)
async def test_what_holds_a_pod_up_is_said(world, pod, reason, words):
    world.cluster.put(pod)
    await world.look()
    status, said, message = world.said(world.service(), "Ready")
    assert (status, said) == ("False", reason)
    assert message.startswith("pod smol-engine-1")
    assert words in message


async def test_what_time_does_not_cure_is_stalled(world):
    message = "ValueError: Model architectures ['FooForCausalLM'] are not supported for now."
    world.cluster.put(
        pod_manifest(
            ready=False,
            container_status={"restartCount": 1, "lastState": {"terminated": CRASHED | {"message": message}}},
        )
    )
    await world.look()
    assert world.said(world.service(), "Ready")[:2] == ("False", "UnsupportedArchitecture")
    assert world.said(world.service(), "Stalled")[:2] == ("True", "UnsupportedArchitecture")
    assert world.said(world.service(), "Reconciling") is None


async def test_a_key_that_is_missing_is_made_again(world):
    await world.look()
    secret = world.cluster.all(SECRETS)[0]["metadata"]["name"]
    world.cluster.drop(SECRETS, NAMESPACE, secret)
    await world.look()
    assert world.cluster.all(SECRETS) == []
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": f'secret "{secret}" not found'}}
    world.cluster.put(WAITING(state=state))
    await inferenceservice.reconcile(Key(NAMESPACE, "smol"), world)
    assert [s["metadata"]["name"] for s in world.cluster.all(SECRETS)] == [secret]


async def test_a_claim_that_is_not_there_is_named(world):
    world.cluster.drop(PERSISTENTVOLUMECLAIMS, NAMESPACE, "models")
    again = await world.look()
    said = "spec.model.uri: no PersistentVolumeClaim 'models' in namespace 'team'; create it"
    assert world.said(world.service(), "Ready") == ("False", "StorageNotReady", said)
    assert again["smol"] == 10


async def test_pods_that_are_refused_are_said(world):
    await world.look()
    failure = {"type": "ReplicaFailure", "status": "True", "message": 'pods "smol-engine-1" is forbidden: quota'}
    world.raw("deployments", "smol-engine")["played"] = {"conditions": [failure]}
    await world.look()
    assert world.said(world.service(), "Ready") == (
        "False",
        "Refused",
        'pods are refused: pods "smol-engine-1" is forbidden: quota',
    )


async def test_what_the_api_server_refuses_is_said(world):
    world.cluster.refuse = ("apply", "Deployment")
    again = await inferenceservice.reconcile(Key(NAMESPACE, "smol"), world)
    assert world.said(world.service(), "Ready")[:2] == ("False", "Refused")
    assert again == 60


async def test_drift_is_repaired_and_foreign_fields_stay(world):
    await world.look()
    raw = world.raw("deployments", "smol-engine")
    raw["spec"]["template"]["spec"]["containers"][0]["command"].append("--trust-remote-code")
    raw["metadata"]["labels"]["theirs"] = "yes"
    await world.look()
    raw = world.raw("deployments", "smol-engine")
    assert "--trust-remote-code" not in raw["spec"]["template"]["spec"]["containers"][0]["command"]
    assert raw["metadata"]["labels"]["theirs"] == "yes"


async def test_a_deployment_of_somebody_else_is_left_alone(world):
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("smol-engine"), "spec": {}}
    theirs["metadata"]["labels"] = {"largeforge.ai/inferenceservice": "smol"}
    theirs["spec"] = {"template": {"spec": {"containers": [{}]}}}
    world.cluster.put(theirs)
    again = await world.look()
    assert world.said(world.service(), "Ready")[:2] == ("False", "NameTaken")
    assert ("apply", "Deployment", "smol-engine") not in world.cluster.writes
    assert again["smol"] == 10


async def test_an_older_expert_holds_its_name():
    world = World(service_manifest(created=NOW), expert_manifest("smol", created=NOW - timedelta(hours=1)))
    world.cluster.put(pod_manifest())
    await world.look("smol")
    assert world.said(world.service(), "Ready")[:2] == ("False", "NameTaken")


async def test_adapters_without_an_expert_are_unloaded_and_no_others(world):
    world.cluster.put(pod_manifest())
    for name in ("sql", "sql-beta"):
        world.cluster.put(complete_job(name))
        world.cluster.put(expert_manifest(name, job=name))
    await world.look()
    kept = set(world.engines.served["10.0.0.1"])
    assert kept == {"sql-aaaaaaaa", "sql-beta-aaaaaaaa"}
    assert world.service().status.adapters == ["sql", "sql-beta"]
    world.engines.served["10.0.0.1"] |= {"gone-00000000", "by-hand"}
    world.engines.take()
    await world.look("smol")
    assert world.engines.take() == [("unload", "10.0.0.1", "gone-00000000")]
    assert world.engines.served["10.0.0.1"] == kept | {"by-hand"}


async def test_an_engine_that_cannot_be_asked_loses_nothing(world):
    world.cluster.put(pod_manifest())
    world.engines.served["10.0.0.1"] = {"gone-00000000"}
    world.engines.troubles["list", "10.0.0.1"] = "no answer"
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"
    assert ("unload", "10.0.0.1", "gone-00000000") not in world.engines.take()


async def test_an_adapter_that_cannot_be_unloaded_is_tried_again(world):
    world.cluster.put(pod_manifest())
    world.engines.served["10.0.0.1"] = {"gone-00000000"}
    world.engines.troubles["unload", "10.0.0.1"] = "busy"
    again = await world.look()
    assert again["smol"] == 10


async def test_an_object_that_is_gone_or_going_is_left_alone(world):
    raw = world.raw("inferenceservices", "smol")
    world.cluster.put(raw | {"metadata": raw["metadata"] | {"deletionTimestamp": "2026-11-25T12:00:00Z"}})
    assert await inferenceservice.reconcile(Key(NAMESPACE, "smol"), world) is None
    assert await inferenceservice.reconcile(Key(NAMESPACE, "other"), world) is None
    assert world.cluster.writes == []


async def test_the_service_is_repaired_too(world):
    await world.look()
    world.cluster.drop(SERVICES, NAMESPACE, "smol-engine")
    await world.look()
    assert [s["metadata"]["name"] for s in world.cluster.all(SERVICES)] == ["smol-engine"]


def test_pods_on_their_way_out_do_not_count():
    going = pod_manifest("a")
    going["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"
    evicted = pod_manifest("b", phase="Failed")
    assert [p.name for p in engine_pods([going, pod_manifest("c"), evicted])] == ["c"]


def test_a_pod_without_an_address_is_not_ready():
    assert not engine_pods([pod_manifest(address="")])[0].ready


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("a\nb\nc\nd\n", "b c d"),
        ("", ""),
        (
            "api_server.py: error: unrecognized arguments: --no-such-flag\n",
            "api_server.py: error: unrecognized arguments: --no-such-flag",
        ),
        (
            "ValueError: bad thing\nRuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: bad thing",
        ),
        (
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        (
            "ValidationError: 1 validation error for ModelConfig\n  Value error, Bad: '/mnt/model'.\na\nb\n",
            "ValidationError: 1 validation error for ModelConfig Value error, Bad: '/mnt/model'. a",
        ),
        ("OSError: no token=hf_abcdefghijklmnop\n", "OSError: no token=***"),
    ],
)
def test_last_words_name_the_cause(log, words):
    assert last_words(log) == words


def test_a_service_with_gpus_takes_the_other_image():
    service = InferenceService.model_validate(service_manifest(compute={}))
    observed = inferenceservice.Observed(key="k")
    decision = inferenceservice.decide(service, observed, NOW, settings=SETTINGS)
    images = [
        c["image"]
        for m in decision.plan.apply
        if m["kind"] == "Deployment"
        for c in m["spec"]["template"]["spec"]["containers"]
    ]
    assert images == ["engine:1"]
