"""What every cluster has beside its components: names for Services, and volumes for claims."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dev.cluster import layout, programs
from dev.cluster.layout import Layout

Manifest = dict[str, Any]

DNS_PORT = 1053
"""Above 1024: the server runs as an ordinary user."""

STORAGE_NAMESPACE = "local-path-storage"
PROVISIONER = "local-path-provisioner"
STORAGE_CLASS = "local-path"

OURS = "largeforge.ai/dev"
"""Label of the Deployments and pods below; `up` waits for them."""

COREFILE = f"""\
.:{DNS_PORT} {{
    errors
    health :8080
    ready :8181
    kubernetes {layout.CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        ttl 5
    }}
    cache 5
}}
"""
# A short ttl: the names of a Job's pods must be seen soon after their start.

SETUP = """\
#!/bin/sh
set -eu
mkdir -m 0755 -p "$VOL_DIR"
"""
"""As a fresh disk: root's. A pod that is not root sets fsGroup."""

TEARDOWN = """\
#!/bin/sh
set -eu
rm -rf "$VOL_DIR"
"""

PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
RESTRICTED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def manifests(paths: Layout) -> list[Manifest]:
    """Everything to apply, in order."""
    return [*dns(), *storage(paths)]


def dns() -> list[Manifest]:
    name, namespace, labels = "coredns", "kube-system", {"k8s-app": "kube-dns"}
    data = {"Corefile": COREFILE}
    probe = {"periodSeconds": 2, "failureThreshold": 5}
    container = {
        "name": name,
        "image": f"localhost/coredns:{programs.ALL['coredns'].version}",
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": DNS_PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": DNS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, **probe},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, **probe, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": name,
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    rules = [
        _rule("", ["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
        _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
    ]
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns-tcp"},
    ]
    return [
        _object("v1", "ServiceAccount", name, namespace),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns", rules=rules),
        _cluster_binding("system:coredns", account=name, namespace=namespace),
        _object("v1", "ConfigMap", name, namespace, data=data),
        _deployment(name, namespace, labels=labels, pod=pod, config=data),
        _object(
            "v1",
            "Service",
            "kube-dns",
            namespace,
            metadata={"labels": labels},
            spec={"selector": labels, "clusterIP": layout.DNS_ADDRESS, "ports": ports},
        ),
    ]


def storage(paths: Layout) -> list[Manifest]:
    """The default StorageClass and its provisioner.

    Volumes are of type `local`, whose files the kubelet gives to the pod's fsGroup; those of type hostPath it leaves.
    """
    labels = {"app": PROVISIONER}
    data = {
        "config.json": json.dumps(
            {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(paths.volumes)]}]}
        ),
        "setup": SETUP,
        "teardown": TEARDOWN,
        "helperPod.yaml": json.dumps(_helper_pod()),
    }
    container = {
        "name": PROVISIONER,
        "image": f"localhost/{PROVISIONER}:{programs.ALL[PROVISIONER].version}",
        "imagePullPolicy": "IfNotPresent",
        "args": ["start", "--config", "/etc/config/config.json", "--service-account-name", PROVISIONER],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CONFIG_MOUNT_PATH", "value": "/etc/config/"},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": PROVISIONER,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "local-path-config"}}],
    }
    every = ["get", "list", "watch", "create", "patch", "update", "delete"]
    cluster_rules = [
        _rule("", ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], ["get", "list", "watch"]),
        _rule("", ["persistentvolumes"], every),
        _rule("", ["events"], ["create", "patch"]),
        _rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
    ]
    rules = [_rule("", ["pods"], every)]
    return [
        # The pods that make and remove a volume's folder need the node's file system.
        _object("v1", "Namespace", STORAGE_NAMESPACE, metadata={"labels": PRIVILEGED}),
        _object("v1", "ServiceAccount", PROVISIONER, STORAGE_NAMESPACE),
        _object("rbac.authorization.k8s.io/v1", "Role", PROVISIONER, STORAGE_NAMESPACE, rules=rules),
        _binding(PROVISIONER, namespace=STORAGE_NAMESPACE),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", PROVISIONER, rules=cluster_rules),
        _cluster_binding(PROVISIONER, account=PROVISIONER, namespace=STORAGE_NAMESPACE),
        _object("v1", "ConfigMap", "local-path-config", STORAGE_NAMESPACE, data=data),
        _deployment(PROVISIONER, STORAGE_NAMESPACE, labels=labels, pod=pod, config=data),
        _object(
            "storage.k8s.io/v1",
            "StorageClass",
            STORAGE_CLASS,
            metadata={
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true", "defaultVolumeType": "local"}
            },
            provisioner="rancher.io/local-path",
            volumeBindingMode="WaitForFirstConsumer",
            reclaimPolicy="Delete",
        ),
    ]


def _helper_pod() -> Manifest:
    container = {"name": "helper-pod", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent"}
    spec = {"priorityClassName": "system-node-critical", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"}, "spec": spec}


def _object(
    api_version: str,
    kind: str,
    name: str,
    namespace: str | None = None,
    *,
    metadata: Manifest | None = None,
    **content: Any,
) -> Manifest:
    place = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, **place, **(metadata or {})},
        **content,
    }


def _deployment(
    name: str, namespace: str, *, labels: dict[str, str], pod: Manifest, config: dict[str, str]
) -> Manifest:
    # Neither program sees all changes of its files: another configuration is another pod.
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
    metadata = {"labels": {**labels, OURS: name}, "annotations": {f"{OURS}-config": digest}}
    template = {"metadata": metadata, "spec": pod}
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": template,
    }
    return _object("apps/v1", "Deployment", name, namespace, metadata={"labels": {**labels, OURS: name}}, spec=spec)


def _rule(group: str, resources: list[str], verbs: list[str]) -> Manifest:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _binding(name: str, *, namespace: str) -> Manifest:
    return _object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        name,
        namespace,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    )


def _cluster_binding(role: str, *, account: str, namespace: str) -> Manifest:
    return _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        role,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    )
