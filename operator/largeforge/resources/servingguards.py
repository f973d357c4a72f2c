"""What stands around an engine: its PodDisruptionBudget, its NetworkPolicy and its autoscaler."""

from __future__ import annotations

from typing import Any

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.serving import Autoscaling, NetworkPeer
from largeforge.resources.engineflags import ENGINE_PORT
from largeforge.resources.names import engine_name
from largeforge.resources.serving import child_metadata, selector, signed

Manifest = dict[str, Any]

COMPONENT = "app.kubernetes.io/component"
CHART = {"app.kubernetes.io/name": "largeforge"}
"""What the chart's pods have in common."""
NAMESPACE_NAME = "kubernetes.io/metadata.name"

POLLING_SECONDS = 15
COOLDOWN_SECONDS = 360
"""As vLLM's production stack has it: an engine that starts costs more than one that idles."""
_ENGINE_METRICS = {
    "RequestsWaiting": "vllm:num_requests_waiting",
    "RequestsRunning": "vllm:num_requests_running",
    "KVCacheUsage": "vllm:kv_cache_usage_perc",
}


def disruption_budget(service: InferenceService) -> Manifest | None:
    """One pod at a time may be evicted; None where there is one pod at most, which would then hold up its node."""
    spec = service.spec
    most = spec.autoscaling.max_replicas if spec.autoscaling is not None else spec.replicas
    if spec.stopped or most < 2:
        return None
    return signed(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": child_metadata(service, engine_name(service.metadata.name)),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(service)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    )


def network_policy(service: InferenceService, *, operator_namespace: str | None) -> Manifest | None:
    """Who may connect to the engine; None where it is not wanted, or where the operator is outside the cluster.

    A node's own kubelet reaches its pods whatever a policy says.
    """
    policy = service.spec.network_policy
    if not policy.enabled or operator_namespace is None:
        return None
    peers: list[Manifest] = [
        {"podSelector": {"matchLabels": CHART | {COMPONENT: "router"}}},
        {
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: operator_namespace}},
            "podSelector": {"matchLabels": CHART | {COMPONENT: "operator"}},
        },
        *(_peer(peer) for peer in policy.allow_from),
    ]
    return signed(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": child_metadata(service, engine_name(service.metadata.name)),
            "spec": {
                "podSelector": {"matchLabels": selector(service)},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": peers, "ports": [{"port": ENGINE_PORT, "protocol": "TCP"}]}],
            },
        }
    )


def horizontal_pod_autoscaler(service: InferenceService, autoscaling: Autoscaling) -> Manifest:
    """Kubernetes' own autoscaler of the engine's Deployment."""
    return signed(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": child_metadata(service, engine_name(service.metadata.name)),
            "spec": {
                "scaleTargetRef": _target(service),
                "minReplicas": autoscaling.min_replicas,
                "maxReplicas": autoscaling.max_replicas,
                "metrics": [_metric(autoscaling)],
            },
        }
    )


def scaled_object(service: InferenceService, autoscaling: Autoscaling, *, prometheus: str | None) -> Manifest:
    """KEDA's autoscaler of the engine's Deployment; *prometheus* is asked for the engine's own figures."""
    return signed(
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": child_metadata(service, engine_name(service.metadata.name)),
            "spec": {
                "scaleTargetRef": _target(service),
                "minReplicaCount": autoscaling.min_replicas,
                "maxReplicaCount": autoscaling.max_replicas,
                "pollingInterval": POLLING_SECONDS,
                "cooldownPeriod": COOLDOWN_SECONDS,
                "triggers": [_trigger(service, autoscaling, prometheus)],
            },
        }
    )


def replicas_handed_over(service: InferenceService, *, replicas: int) -> Manifest:
    """The Deployment's `replicas` alone, for a manager of their own.

    A field that its only manager no longer applies goes back to its default, which is 1: another one has it first.
    """
    name = engine_name(service.metadata.name)
    metadata = {"name": name, "namespace": service.metadata.namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def _target(service: InferenceService) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": engine_name(service.metadata.name)}


def _metric(autoscaling: Autoscaling) -> Manifest:
    if autoscaling.metric == "CPU":
        utilization = {"type": "Utilization", "averageUtilization": autoscaling.goal}
        return {"type": "Resource", "resource": {"name": "cpu", "target": utilization}}
    value = f"{autoscaling.goal * 10}m" if autoscaling.metric == "KVCacheUsage" else str(autoscaling.goal)
    metric = {"name": _ENGINE_METRICS[autoscaling.metric]}
    return {"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": value}}}


def _trigger(service: InferenceService, autoscaling: Autoscaling, prometheus: str | None) -> Manifest:
    if autoscaling.metric == "CPU":
        return {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(autoscaling.goal)}}
    pods = f'namespace="{service.metadata.namespace}",pod=~"{engine_name(service.metadata.name)}-[0-9a-z]+-[0-9a-z]+"'
    threshold = f"{autoscaling.goal / 100:g}" if autoscaling.metric == "KVCacheUsage" else str(autoscaling.goal)
    query = f"sum({_ENGINE_METRICS[autoscaling.metric]}{{{pods}}})"
    about = {"serverAddress": prometheus or "", "query": query, "threshold": threshold}
    return {"type": "prometheus", "metricType": "AverageValue", "metadata": about}


def _peer(peer: NetworkPeer) -> Manifest:
    made: Manifest = {}
    if peer.namespace_labels is not None:
        made["namespaceSelector"] = {"matchLabels": dict(peer.namespace_labels)}
    if peer.pod_labels is not None:
        made["podSelector"] = {"matchLabels": dict(peer.pod_labels)}
    return made
