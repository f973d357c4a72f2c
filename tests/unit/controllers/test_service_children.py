"""What stands around an engine comes, changes and goes with the spec."""

from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.controllers.servicechildren import applies_replicas
from largeforge.kube.cluster import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SCALEDOBJECTS,
    SECRETS,
)
from tests.unit.serving import NAMESPACE, World, metadata, model_expert, pod_manifest, second_pod, service_manifest
from tests.unit.training import NOW, SETTINGS

NAME = "smol-engine"


def world_of(**spec):
    world = World(service_manifest(**spec))
    world.settings = SETTINGS.model_copy(update={"operator_namespace": "largeforge-system"})
    return world


def replicas(world):
    return world.raw("deployments", NAME)["spec"].get("replicas")


async def test_a_budget_is_there_for_several_pods_and_goes_with_them():
    world = world_of(replicas=2)
    await world.look()
    assert world.cluster.all(PODDISRUPTIONBUDGETS)[0]["spec"]["maxUnavailable"] == 1
    world.edit("inferenceservices", "smol", replicas=1)
    await world.look()
    assert world.cluster.all(PODDISRUPTIONBUDGETS) == []


async def test_the_policy_lets_in_the_router_the_operator_and_who_is_named():
    world = world_of(networkPolicy={"allowFrom": [{"podLabels": {"app": "prometheus"}}]})
    await world.look()
    (rule,) = world.cluster.all(NETWORKPOLICIES)[0]["spec"]["ingress"]
    chart = {"app.kubernetes.io/name": "largeforge"}
    assert rule["from"] == [
        {"podSelector": {"matchLabels": chart | {"app.kubernetes.io/component": "router"}}},
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "largeforge-system"}},
            "podSelector": {"matchLabels": chart | {"app.kubernetes.io/component": "operator"}},
        },
        {"podSelector": {"matchLabels": {"app": "prometheus"}}},
    ]
    world.edit("inferenceservices", "smol", networkPolicy={"enabled": False})
    await world.look()
    assert world.cluster.all(NETWORKPOLICIES) == []


async def test_an_operator_outside_the_cluster_shuts_itself_out_of_nothing():
    world = World(service_manifest())
    await world.look()
    assert world.cluster.all(NETWORKPOLICIES) == []


async def test_replicas_have_another_manager_before_they_leave_our_apply():
    world = world_of(replicas=3)
    await world.look()
    world.cluster.writes.clear()
    world.edit("inferenceservices", "smol", autoscaling={"maxReplicas": 4})
    await world.look()
    deployments = [w for w in world.cluster.writes if w[1] in ("Deployment", "HorizontalPodAutoscaler")]
    assert deployments[:3] == [
        ("apply", "Deployment", NAME),  # replicas alone, as largeforge-scale
        ("apply", "Deployment", NAME),
        ("apply", "HorizontalPodAutoscaler", NAME),
    ]
    assert replicas(world) == 3  # not 1, the default of a field that its only manager drops
    assert world.service().status.autoscaler == "HorizontalPodAutoscaler"


async def test_an_autoscaler_decides_how_many_pods_are_wanted():
    world = world_of(autoscaling={"minReplicas": 1, "maxReplicas": 4})
    world.cluster.put(pod_manifest())
    await world.look()
    assert replicas(world) is None
    world.raw("deployments", NAME)["spec"]["replicas"] = 2  # as the autoscaler writes it
    world.cluster.put(second_pod())
    await world.look()
    assert replicas(world) == 2
    assert world.said(world.service(), "Ready") == ("True", "Ready", "2 of 2 replicas answered a generation")


async def test_an_autoscaler_that_cannot_measure_is_quoted():
    world = world_of(autoscaling={"maxReplicas": 4})
    world.cluster.put(pod_manifest())
    await world.look()
    world.raw("deployments", NAME)["spec"]["replicas"] = 1
    said = "the HPA was unable to compute the replica count: no matches for kind"
    active = {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": said}
    world.raw("horizontalpodautoscalers", NAME)["status"] = {"conditions": [active]}
    await world.look()
    ready = f"1 of 1 replicas answered a generation; HorizontalPodAutoscaler: {said}"
    assert world.said(world.service(), "Ready") == ("True", "Ready", ready)
    world.raw("horizontalpodautoscalers", NAME)["status"] = {"conditions": [active | {"status": "True"}]}
    await world.look()
    assert world.said(world.service(), "Ready")[2] == "1 of 1 replicas answered a generation"


async def test_without_autoscaling_the_spec_has_the_number_again():
    world = world_of(autoscaling={"maxReplicas": 4})
    await world.look()
    world.raw("deployments", NAME)["spec"]["replicas"] = 4
    world.edit("inferenceservices", "smol", autoscaling=None, replicas=2)
    await world.look()
    assert replicas(world) == 2
    assert world.cluster.all(HORIZONTALPODAUTOSCALERS) == []
    assert world.service().status.autoscaler is None


async def test_keda_is_used_where_it_is_and_can_ask():
    world = world_of(autoscaling={"maxReplicas": 4})
    await world.look()
    assert world.service().status.autoscaler == "HorizontalPodAutoscaler"
    world.cluster.extensions.add("scaledobjects")
    await world.look()
    assert world.service().status.autoscaler == "HorizontalPodAutoscaler"  # nobody to ask for the engine's figures
    world.settings = world.settings.model_copy(update={"prometheus_address": "http://prometheus.monitoring:9090"})
    await world.look()
    assert world.service().status.autoscaler == "ScaledObject"
    assert world.cluster.all(HORIZONTALPODAUTOSCALERS) == []
    assert world.cluster.all(SCALEDOBJECTS)[0]["spec"]["maxReplicaCount"] == 4
    world.edit("inferenceservices", "smol", autoscaling=None)
    await world.look()
    assert world.cluster.all(SCALEDOBJECTS) == []


async def test_the_cpu_scales_with_keda_alone():
    world = world_of(autoscaling={"maxReplicas": 4, "metric": "CPU"})
    world.cluster.extensions.add("scaledobjects")
    await world.look()
    assert world.cluster.all(SCALEDOBJECTS)[0]["spec"]["triggers"][0]["metadata"] == {"value": "80"}


async def test_stopped_has_no_pods_and_keeps_the_rest():
    world = world_of(autoscaling={"minReplicas": 2, "maxReplicas": 4})
    world.cluster.put(pod_manifest())
    await world.look()
    world.edit("inferenceservices", "smol", stopped=True)
    await world.look()
    assert replicas(world) == 0
    assert world.cluster.all(HORIZONTALPODAUTOSCALERS) == world.cluster.all(PODDISRUPTIONBUDGETS) == []
    assert world.said(world.service(), "Reconciling")[:2] == ("True", "Reconciling")
    world.cluster.drop(PODS, NAMESPACE, "smol-engine-1")
    await world.look()
    said = "spec.stopped is true; set it to false to serve"
    assert world.said(world.service(), "Ready") == ("False", "Stopped", said)
    assert world.said(world.service(), "Reconciling") is None
    assert len(world.cluster.all(SECRETS)) == 1
    world.edit("inferenceservices", "smol", stopped=False)
    await world.look()
    assert replicas(world) == 2  # at 0, an autoscaler would do nothing
    assert len(world.cluster.all(HORIZONTALPODAUTOSCALERS)) == 1


async def test_a_token_in_a_wrong_argument_is_not_repeated_in_the_status():
    world = world_of(engine={"dtype": "hf_0123456789abcdef"})
    await world.look()
    _, reason, message = world.said(world.service(), "Stalled")
    assert reason == "BadArgument"
    assert message.endswith("(got '***')")


async def test_a_wrong_argument_makes_no_pod_and_stops_none():
    world = world_of(engine={"extraArgs": {"max-num-seq": "8"}})
    await world.look()
    assert world.cluster.all(DEPLOYMENTS) == []
    status, reason, message = world.said(world.service(), "Stalled")
    assert (status, reason) == ("True", "BadArgument")
    assert message == (
        "spec.engine.extraArgs.max-num-seq: flags are written in full; it is the beginning of max-num-seqs"
    )
    assert world.said(world.service(), "Ready")[:2] == ("False", "BadArgument")
    world.edit("inferenceservices", "smol", engine={})
    world.cluster.put(pod_manifest())
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"
    assert world.said(world.service(), "Stalled") is None
    world.edit("inferenceservices", "smol", engine={"dtype": "bfloat61"})
    await world.look()
    said = "1 of 1 replicas answered a generation; see Stalled"
    assert world.said(world.service(), "Ready") == ("True", "Ready", said)
    assert "spec.engine.dtype: must be one of auto, bfloat16" in world.said(world.service(), "Stalled")[2]
    world.edit("inferenceservices", "smol", engine={"dtype": "bfloat61"}, stopped=True)
    await world.look()
    assert replicas(world) == 0


async def test_code_of_a_model_runs_only_where_the_chart_says():
    world = world_of(model={"uri": "pvc://models/base", "trustRemoteCode": True})
    await world.look()
    assert world.said(world.service(), "Stalled")[:2] == ("True", "RemoteCodeNotAllowed")
    world.settings = world.settings.model_copy(update={"remote_code_namespaces": frozenset({NAMESPACE})})
    await world.look()
    command = world.raw("deployments", NAME)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--trust-remote-code" in command


async def test_an_experts_artifact_is_served_whether_the_expert_is_ready_or_not():
    world = world_of(model={"expertRef": {"name": "general"}}, lora=None)
    await world.look("smol")
    said = "spec.model.expertRef: no Expert 'general' in namespace 'team'"
    assert world.said(world.service(), "Ready") == ("False", "SourceNotFound", said)
    expert = model_expert()
    world.cluster.put(expert)
    await world.look("smol")
    assert world.said(world.service(), "Ready")[1] == "SourceNotComplete"
    world.cluster.put(expert | {"status": {"resolved": {"uri": "pvc://models/v1"}}})
    await world.look("smol")
    assert world.said(world.service(), "Ready")[1] == "Inspecting"
    world.inspect()
    await world.look("smol")
    (mount,) = [m for m in engine(world)["volumeMounts"] if m["mountPath"] == "/mnt/model"]
    assert (mount["subPath"], world.service().status.model.uri) == ("v1", "pvc://models/v1")
    world.cluster.drop_named("experts", "general")
    await world.look("smol")
    assert world.service().status.model.uri == "pvc://models/v1"
    assert world.said(world.service(), "Stalled") is None


def engine(world):
    return world.raw("deployments", NAME)["spec"]["template"]["spec"]["containers"][0]


async def test_a_template_that_is_not_there_is_named():
    world = world_of(engine={"chatTemplate": "configmap://templates/x.jinja"})
    await world.look()
    said = "spec.engine.chatTemplate: no ConfigMap 'templates' in namespace 'team'; create it"
    assert world.said(world.service(), "Ready") == ("False", "StorageNotReady", said)
    world.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("templates"), "data": {"y": ""}})
    await world.look()
    said = "spec.engine.chatTemplate: ConfigMap 'templates' has no entry 'x.jinja'; add it"
    assert world.said(world.service(), "Ready")[2] == said


async def test_of_two_services_with_one_served_name_the_older_has_it():
    world = world_of()
    world.cluster.put(service_manifest("other", created=NOW + timedelta(hours=1), servedModelNames=["x", "smol"]))
    await world.look()
    said = (
        "InferenceService 'smol' is older and holds the name 'smol' at the router;"
        " choose another in spec.servedModelNames"
    )
    assert world.said(world.service("other"), "Ready") == ("False", "NameTaken", said)
    assert world.said(world.service("smol"), "Ready")[1] == "Reconciling"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], False),
        ([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}], False),
        ([{"manager": "largeforge", "operation": "Apply", "fieldsV1": {"f:spec": {"f:selector": {}}}}], False),
        ([{"manager": "largeforge", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}], True),
    ],
)
def test_who_applies_replicas_is_read_from_the_managed_fields(fields, expected):
    assert applies_replicas({"metadata": {"managedFields": fields}}) is expected
