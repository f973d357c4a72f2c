from pathlib import Path

import pytest

from dev import cluster
from dev.cluster import kind
from dev.steps import StepError

KUBECONFIG = Path("/cache/kind/kubeconfig")


def test_config_maps_node_ports_to_the_loopback() -> None:
    assert kind.config(node_ports=(30080,)) == {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [
            {
                "role": "control-plane",
                "extraPortMappings": [{"containerPort": 30080, "hostPort": 30080, "listenAddress": "127.0.0.1"}],
            }
        ],
    }


def test_create_command() -> None:
    assert kind.create_command(config_file=Path("/cache/kind/config.json"), kubeconfig_file=KUBECONFIG) == [
        *("kind", "create", "cluster", "--name", "largeforge", "--config", "/cache/kind/config.json"),
        *("--kubeconfig", "/cache/kind/kubeconfig", "--wait", "180s"),
    ]


def test_load_command() -> None:
    assert kind.load_command(Path("/x.tar")) == [
        *("kind", "load", "image-archive", "/x.tar", "--name", "largeforge"),
    ]


def test_delete_command() -> None:
    assert kind.delete_command(kubeconfig_file=KUBECONFIG) == [
        *("kind", "delete", "cluster", "--name", "largeforge", "--kubeconfig", "/cache/kind/kubeconfig"),
    ]


def test_list_images_command() -> None:
    assert kind.list_images_command() == [
        *("docker", "exec", "largeforge-control-plane"),
        *("ctr", "--namespace", "k8s.io", "images", "list", "--quiet"),
    ]


def test_kind_without_an_engine_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGEFORGE_CLUSTER", "kind")
    monkeypatch.setattr(kind, "engine_answers", lambda: False)
    with pytest.raises(StepError, match="no Docker engine answers") as caught:
        cluster.up()
    assert "unset LARGEFORGE_CLUSTER" in caught.value.remedy


def test_client_without_an_engine_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho Client: here\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert not kind.engine_answers()
    docker.write_text("#!/bin/sh\nexit 0\n")
    assert kind.engine_answers()


def test_unknown_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGEFORGE_CLUSTER", "minikube")
    with pytest.raises(StepError, match="LARGEFORGE_CLUSTER=minikube is no cluster"):
        cluster.up()


def test_both_clusters_can_do_all_that_is_asked_of_a_cluster() -> None:
    from dev.cluster import local

    asked = [name for name in vars(cluster.Cluster) if not name.startswith("_")]
    assert [name for module in (local, kind) for name in asked if not callable(getattr(module, name, None))] == []
