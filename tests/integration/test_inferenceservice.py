"""What an InferenceService is made of at a real API server: who owns which field, and what a kill leaves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
import yaml

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition
from largeforge.controllers.context import utc_now
from largeforge.controllers.inferenceservice import reconcile
from largeforge.controllers.workqueue import Key
from largeforge.kube.client import ApiCluster
from largeforge.kube.cluster import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    INFERENCESERVICES,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    SCALEDOBJECTS,
    SERVICES,
)
from largeforge.kube.transport import APPLY, Request, open_transport, path
from tests.integration.played import Dying
from tests.unit.fakes import Killed
from tests.unit.serving import MASTER_KEY, FakeEngines, facts_of, service_manifest
from tests.unit.training import SETTINGS

pytestmark = pytest.mark.integration

NAMESPACE = "services"
KEDA = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""As much of KEDA as it takes to have objects of it."""


class Served:
    """One InferenceService, and what its user and an autoscaler do to it."""

    def __init__(self, transport, name, *, kill_at=None, operator=None):
        self.transport, self.name = transport, name
        self.api = ApiCluster(transport)
        self.cluster = Dying(ApiCluster(operator or transport), kill_at)
        self.engines = FakeEngines()
        self.master_key = MASTER_KEY
        self.settings = SETTINGS.model_copy(update={"operator_namespace": "largeforge-system"})
        self.offset = timedelta()

    def now(self):
        return utc_now() + self.offset

    async def settle(self):
        context = SimpleNamespace(
            **{k: getattr(self, k) for k in ("cluster", "engines", "master_key", "settings", "now")}
        )
        for _ in range(40):
            before = self.cluster.writes
            try:
                await reconcile(Key(NAMESPACE, self.name), context)
            except Killed:
                continue
            if self.cluster.writes == before:
                return
        raise AssertionError("it never rests")

    async def apply(self, **spec):
        """What the user applies; the model's files are known already."""
        raw = service_manifest(self.name, inspected=False, **spec)
        await self.api.apply(raw | {"metadata": {"name": self.name, "namespace": NAMESPACE}}, manager="user")
        made = await self.api.get(INFERENCESERVICES, NAMESPACE, self.name)
        model = facts_of(made) | {"uri": made["spec"]["model"]["uri"]}
        if "status" not in made:
            head = {k: made[k] for k in ("apiVersion", "kind")} | {
                "metadata": {"name": self.name, "namespace": NAMESPACE}
            }
            await self.api.patch_status(head | {"status": {"model": model}})

    async def status(self):
        found = await self.api.get(INFERENCESERVICES, NAMESPACE, self.name)
        return InferenceService.model_validate(found).status

    async def child(self, resource):
        return await self.api.get(resource, NAMESPACE, f"{self.name}-engine")

    async def replicas(self):
        return (await self.child(DEPLOYMENTS))["spec"]["replicas"]

    async def scale(self, replicas):
        """What an autoscaler does: an update of the scale subresource."""
        url = f"{path(DEPLOYMENTS, NAMESPACE, f'{self.name}-engine')}/scale"
        found = await self.transport.call(Request("GET", url))
        found["spec"]["replicas"] = replicas
        await self.transport.call(Request("PUT", url, {"fieldManager": "autoscaler"}, found))


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    assert server.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(claim)).returncode == 0
    return server.kubeconfig


@pytest.fixture
def serve(kubeconfig, monkeypatch):
    @asynccontextmanager
    async def begin(name, *, kill_at=None, **spec):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        async with open_transport(user_agent="largeforge-test") as transport:
            served = Served(transport, name, kill_at=kill_at)
            await served.apply(**spec)
            yield served

    return begin


async def test_all_that_it_is_made_of_is_taken_and_a_second_look_writes_nothing(serve):
    async with serve("whole", replicas=2) as service:
        await service.settle()
        kinds = (DEPLOYMENTS, SERVICES, PODDISRUPTIONBUDGETS, NETWORKPOLICIES)
        assert all([await service.child(kind) for kind in kinds])
        before = service.cluster.writes
        await service.settle()
        assert service.cluster.writes == before
        status = await service.status()
        assert condition(status.conditions, "Ready").reason == "Reconciling"
        assert status.selector == "largeforge.ai/inferenceservice=whole"


async def test_an_autoscaler_takes_the_replicas_over_and_gives_them_back(serve):
    async with serve("scaled", replicas=3) as service:
        await service.settle()
        await service.apply(replicas=3, autoscaling={"maxReplicas": 5})
        await service.settle()
        assert await service.replicas() == 3, "not the default of a field that its only manager drops"
        assert (await service.child(HORIZONTALPODAUTOSCALERS))["spec"]["maxReplicas"] == 5
        await service.scale(5)
        await service.settle()
        assert await service.replicas() == 5
        await service.apply(replicas=2)
        await service.settle()
        assert await service.replicas() == 2
        assert await service.child(HORIZONTALPODAUTOSCALERS) is None


async def test_a_stop_frees_the_pods_and_a_start_brings_them_back_to_the_autoscaler(serve):
    async with serve("paused", autoscaling={"minReplicas": 2, "maxReplicas": 5}) as service:
        await service.settle()
        await service.scale(4)
        await service.apply(autoscaling={"minReplicas": 2, "maxReplicas": 5}, stopped=True)
        await service.settle()
        assert (await service.replicas(), await service.child(HORIZONTALPODAUTOSCALERS)) == (0, None)
        assert condition((await service.status()).conditions, "Ready").reason == "Stopped"
        await service.apply(autoscaling={"minReplicas": 2, "maxReplicas": 5})
        await service.settle()
        assert await service.replicas() == 2
        await service.scale(3)
        await service.settle()
        assert await service.replicas() == 3


async def test_a_stop_comes_through_although_the_spec_is_wrong(serve):
    async with serve("halted", replicas=2) as service:
        await service.settle()
        await service.apply(replicas=2, stopped=True, engine={"extraArgs": {"max-num-seq": "8"}})
        await service.settle()
        assert await service.replicas() == 0
        await service.apply(replicas=2)
        await service.settle()
        assert await service.replicas() == 2


async def test_keda_has_the_replicas_where_its_crd_is(server, serve):
    assert server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(KEDA)).returncode == 0
    done = server.kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    try:
        async with serve("keda", autoscaling={"maxReplicas": 5, "metric": "CPU"}) as service:
            await service.settle()
            assert (await service.child(SCALEDOBJECTS))["spec"]["triggers"][0]["type"] == "cpu"
            assert await service.child(HORIZONTALPODAUTOSCALERS) is None
            assert (await service.status()).autoscaler == "ScaledObject"
            await service.apply()
            await service.settle()
            assert await service.child(SCALEDOBJECTS) is None
    finally:
        server.kubectl("delete", "crd", "scaledobjects.keda.sh", "--timeout=30s")


@pytest.mark.parametrize("kill_at", range(8))
async def test_an_operator_that_is_killed_before_any_write_comes_to_the_same_end(serve, kill_at):
    async with serve(f"killed-{kill_at}", replicas=3, kill_at=kill_at) as service:
        await service.settle()
        await service.apply(replicas=3, autoscaling={"maxReplicas": 5})
        service.cluster.writes, service.cluster.kill_at = 0, kill_at
        await service.settle()
        assert await service.replicas() == 3
        assert (await service.child(HORIZONTALPODAUTOSCALERS))["spec"]["maxReplicas"] == 5
        assert (await service.child(PODDISRUPTIONBUDGETS))["spec"]["maxUnavailable"] == 1
        assert (await service.status()).autoscaler == "HorizontalPodAutoscaler"


async def test_what_others_write_stays_and_what_is_ours_comes_back(serve):
    async with serve("drift") as service:
        await service.settle()
        deployment = await service.child(DEPLOYMENTS)
        url = path(DEPLOYMENTS, NAMESPACE, "drift-engine")
        theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "drift-engine"}}
        theirs["spec"] = {"replicas": 7, "template": {"metadata": {"annotations": {"theirs": "yes"}}}}
        await service.transport.call(Request("PATCH", url, {"fieldManager": "them", "force": "true"}, theirs, APPLY))
        await service.settle()
        after = await service.child(DEPLOYMENTS)
        assert after["spec"]["replicas"] == deployment["spec"]["replicas"] == 1
        assert after["spec"]["template"]["metadata"]["annotations"] == {"theirs": "yes"}
