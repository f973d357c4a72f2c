"""What is true of the local cluster at this moment: each answer takes some milliseconds."""

from __future__ import annotations

from pathlib import Path

from dev.cluster import layout, manifests
from dev.cluster.api import Api
from dev.cluster.gpus import NODE_PATH, gpu_patch
from dev.cluster.layout import Layout
from dev.cluster.processes import NodeProcess
from dev.cluster.readiness import deployment_has_settled, node_is_ready, pod_is_ready
from dev.paths import CLUSTER
from dev.steps import StepError

PATHS = Layout(CLUSTER)


def own_node() -> NodeProcess | None:
    """The running node; an error if it belongs to another cache, because a machine has room for one."""
    process = NodeProcess.read()
    if process is not None and process.root != str(CLUSTER):
        raise StepError(
            f"a cluster with its state in {process.root} runs on this machine",
            remedy=f"stop it: LARGEFORGE_CACHE={Path(process.root).parent} python -m dev.cluster stop",
        )
    return process


def api_answers() -> bool:
    """Whether the API server answers its administrator."""
    try:
        Api(PATHS).call("GET", "/api/v1/namespaces/kube-system")
    except OSError:
        return False
    return True


def node_is_up() -> bool:
    """Whether the kubelet has said Ready since the node's start."""
    process = own_node()
    try:
        node = Api(PATHS).call("GET", f"/api/v1/nodes/{layout.NODE}")
    except OSError:
        return False
    return process is not None and node_is_ready(node, since=process.started_at())


def own_pods_are_up() -> bool:
    """Whether DNS and storage run in their newest version."""
    process = own_node()
    query = f"labelSelector={manifests.OURS}"
    try:
        deployments = Api(PATHS).call("GET", f"/apis/apps/v1/deployments?{query}")["items"]
        pods = Api(PATHS).call("GET", f"/api/v1/pods?{query}")["items"]
    except OSError:
        return False
    wanted = sum(manifest["kind"] == "Deployment" for manifest in manifests.manifests(PATHS))
    return (
        process is not None
        and len(deployments) == wanted
        and all(deployment_has_settled(deployment) for deployment in deployments)
        and all(pod_is_ready(pod, since=process.started_at()) for pod in pods)
    )


def fake_gpus() -> int | None:
    """How many the node should advertise; nothing where nobody has said."""
    try:
        return int(PATHS.fake_gpus.read_text())
    except (FileNotFoundError, ValueError):
        return None


def gpus_are_advertised() -> bool:
    """Whether the node has as many as it should."""
    wanted = fake_gpus()
    try:
        return wanted is None or not gpu_patch(Api(PATHS).call("GET", NODE_PATH), wanted=wanted)
    except OSError:
        return False
