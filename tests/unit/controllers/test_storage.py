"""Whether claims can be reached."""

from __future__ import annotations

import pytest

from tests.unit.training import claim, user_pod
from tests.unit.world import world_of

PINNED = {"gpusPerNode": 0, "podTemplate": {"nodeSelector": {"kubernetes.io/hostname": "node-2"}}}


async def blocked(world):
    again = await world.settle()
    status, reason, message = world.said("StorageReachable")
    assert (status, again, world.jobs()) == ("False", 15, [])
    return reason, message


async def test_a_claim_that_has_lost_its_volume_is_named():
    world = world_of(claims=["data"])
    world.cluster.put(claim("models", phase="Lost"))
    reason, message = await blocked(world)
    assert reason == "ClaimLost"
    assert message.startswith("spec.base.uri: PersistentVolumeClaim 'models' has lost its volume")


async def test_a_claim_that_is_going_is_no_claim_any_more():
    world = world_of(claims=["data"])
    going = claim("models")
    world.cluster.put(going | {"metadata": going["metadata"] | {"deletionTimestamp": "2026-11-25T12:00:00Z"}})
    reason, message = await blocked(world)
    assert (reason, "is being deleted" in message) == ("ClaimLost", True)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"cache": {"uri": "pvc://extra/hub"}, "base": {"uri": "hf://org/m"}}, "spec.cache.uri"),
        ({"checkpoint": {"uri": "pvc://extra/state"}}, "spec.checkpoint.uri"),
        ({"evalDataset": {"uri": "pvc://extra/rows.jsonl"}}, "spec.evalDataset.uri"),
        (
            {
                "compute": {
                    "gpusPerNode": 0,
                    "podTemplate": {
                        "volumes": [{"name": "a", "mountPath": "/a", "persistentVolumeClaim": {"claimName": "extra"}}]
                    },
                }
            },
            "spec.compute.podTemplate.volumes[0].persistentVolumeClaim.claimName",
        ),
    ],
)
async def test_every_field_that_names_a_claim_is_looked_at(spec, field):
    reason, message = await blocked(world_of(**spec))
    assert reason == "ClaimNotFound"
    assert message.startswith(f"{field}: no PersistentVolumeClaim 'extra'")


async def test_a_cache_that_nothing_needs_is_not_asked_for():
    world = world_of(cache={"uri": "pvc://extra/hub"})
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]


async def test_a_claim_of_one_pod_that_another_pod_has_is_named():
    world = world_of(claims=["data"])
    world.cluster.put(claim("models", mode="ReadWriteOncePod"))
    world.cluster.put(user_pod("engine", "models"))
    reason, message = await blocked(world)
    assert reason == "ReadWriteOncePodInUse"
    assert "pod 'engine' uses it" in message
    world.cluster.put(user_pod("engine", "models", phase="Succeeded"))
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"], "a pod that is over holds nothing"


async def test_a_claim_of_one_node_that_is_used_on_another_one_is_named():
    world = world_of(claims=["data"], compute=PINNED)
    world.cluster.put(claim("models", mode="ReadWriteOnce"))
    world.cluster.put(user_pod("engine", "models", node="node-1"))
    reason, message = await blocked(world)
    assert reason == "ReadWriteOnceAcrossNodes"
    assert message == (
        "spec.base.uri: PersistentVolumeClaim 'models' is ReadWriteOnce, pod 'engine' uses it on node 'node-1', and"
        " this run's pod is on node 'node-2'; use a ReadWriteMany claim, or bring both to one node by"
        " podTemplate.nodeSelector"
    )


async def test_two_claims_that_are_used_on_two_nodes_leave_none():
    world = world_of(claims=[])
    for name, node in (("models", "node-1"), ("data", "node-2")):
        world.cluster.put(claim(name, mode="ReadWriteOnce"))
        world.cluster.put(user_pod(f"of-{name}", name, node=node))
    reason, message = await blocked(world)
    assert reason == "ReadWriteOnceAcrossNodes"
    assert "claim 'models' is used on node 'node-1'" in message


async def test_a_pod_that_was_put_on_the_wrong_node_is_explained():
    world = await world_of(claims=["data", "models"]).to_training()
    world.cluster.put(claim("models", mode="ReadWriteOnce"))
    world.cluster.put(user_pod("engine", "models", node="node-1"))
    world.start_pod(waiting={"reason": "ContainerCreating"}, node="node-2")
    await world.settle()
    assert world.said("StorageReachable")[:2] == ("False", "ReadWriteOnceAcrossNodes")


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"])
async def test_a_claim_used_on_the_same_node_or_by_many_is_no_hindrance(mode):
    node = "node-2" if mode == "ReadWriteOnce" else "node-1"
    world = world_of(claims=["data"], compute=PINNED)
    world.cluster.put(claim("models", mode=mode))
    world.cluster.put(user_pod("engine", "models", node=node))
    await world.settle()
    assert world.jobs() == ["sql-r1-p1"]
