"""The cluster as `kind` makes it, where a Docker engine runs: unit-tested, but not run in this project's tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from dev.paths import CLUSTER
from dev.steps import StepError, run, step

NAME = "largeforge"
ADDRESS = "127.0.0.1"
NODE_PORTS = (30080, 30443)
"""Those that the chart's examples use: kind must be told before it makes the node."""

KUBECONFIG = CLUSTER.with_name("kind") / "kubeconfig"
"""Not in the local cluster's folder, which its `down` removes."""

CONFIG = KUBECONFIG.with_name("config.json")


def config(*, node_ports: tuple[int, ...] = NODE_PORTS) -> dict[str, Any]:
    """A cluster of one node whose NodePorts the machine reaches on its loopback address."""
    mappings = [{"containerPort": port, "hostPort": port, "listenAddress": ADDRESS} for port in node_ports]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
    }


def create_command(*, config_file: Path, kubeconfig_file: Path) -> list[str]:
    return [
        *("kind", "create", "cluster", "--name", NAME, "--config", str(config_file)),
        *("--kubeconfig", str(kubeconfig_file), "--wait", "180s"),
    ]


def load_command(tar: Path) -> list[str]:
    return ["kind", "load", "image-archive", str(tar), "--name", NAME]


def delete_command(*, kubeconfig_file: Path) -> list[str]:
    return ["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig_file)]


def list_images_command() -> list[str]:
    """Names of the images in the node, one a line."""
    return ["docker", "exec", f"{NAME}-control-plane", "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"]


def engine_answers() -> bool:
    """Whether a Docker engine answers; a client on PATH is not enough."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def up() -> None:
    """Make the cluster run and be ready; nothing is done when it is."""
    _require_engine()
    if _exists():
        if KUBECONFIG.exists():
            return
        down()  # its creation was interrupted
    KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(json.dumps(config(), indent=2))
    with step("create the kind cluster"):
        run(
            *create_command(config_file=CONFIG, kubeconfig_file=KUBECONFIG),
            remedy="kind pulls its node image from a registry: see its message; `python -m dev.cluster down` removes "
            "a cluster that was begun",
        )


def stop() -> None:
    """Refuse: kind cannot stop a cluster and keep its addresses."""
    raise StepError("a kind cluster cannot be stopped", remedy="remove it: python -m dev.cluster down")


def down() -> None:
    """Remove the cluster."""
    _require_engine()
    with step("delete the kind cluster"):
        run(*delete_command(kubeconfig_file=KUBECONFIG), remedy=f"kind delete cluster --name {NAME}")
        shutil.rmtree(KUBECONFIG.parent, ignore_errors=True)


def renew() -> None:
    """Remove the cluster, if there is one: kind cannot keep a part of it."""
    _require_engine()
    if _exists():
        down()


def status() -> dict[str, Any]:
    """What runs, for people and programs."""
    ready = engine_answers() and shutil.which("kind") is not None and _exists()
    return {"cluster": "kind", "ready": ready, "kubeconfig": str(KUBECONFIG), "nodeAddress": ADDRESS}


def kubeconfig() -> Path:
    return KUBECONFIG


def audit_log() -> None:
    """The API server of kind writes none."""


def node_address() -> str:
    return ADDRESS


def import_archive(tar: Path) -> None:
    """Load a whole archive: kind does not take one whose layers are already there."""
    run(*load_command(tar), remedy=f"see whether {tar} is whole and the cluster runs: kind get clusters")


def content_digests() -> set[str]:
    """Nothing may be left out of an archive for kind."""
    return set()


def has_image(reference: str) -> bool:
    return reference in run(*list_images_command()).split()


def _exists() -> bool:
    return NAME in run("kind", "get", "clusters").split()


def _require_engine() -> None:
    if not engine_answers():
        raise StepError(
            "LARGEFORGE_CLUSTER=kind, and no Docker engine answers (`docker info` fails)",
            remedy="start the engine (systemctl start docker), or unset LARGEFORGE_CLUSTER to use the local cluster",
        )
    if shutil.which("kind") is None:
        raise StepError("there is no kind on PATH", remedy="install kind, or unset LARGEFORGE_CLUSTER")
