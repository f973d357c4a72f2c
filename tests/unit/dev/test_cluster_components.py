import hashlib
import ipaddress
import json
import sys
from pathlib import Path

import pytest

from dev.cluster import components, layout, local, manifests
from dev.cluster.layout import Layout

PATHS = Layout(Path("/state"))
PROGRAMS = Path("/programs")


def test_components_start_in_order_of_their_needs() -> None:
    assert [(component.name, component.needs) for component in components.components(PATHS, PROGRAMS)] == [
        ("etcd", ()),
        ("containerd", ()),
        ("kube-apiserver", ("tcp:127.0.0.1:2379",)),
        ("kube-controller-manager", ("https://127.0.0.1:6443/readyz",)),
        ("kube-scheduler", ("https://127.0.0.1:6443/readyz",)),
        ("kubelet", ("tcp:127.0.0.1:6443", "unix:/state/containerd.sock")),
        ("kube-proxy", ("https://127.0.0.1:6443/readyz",)),
        ("fake-gpus", ("https://127.0.0.1:6443/readyz", "file:/state/fake-gpus")),
    ]


def test_fingerprint_is_the_same_for_another_checkouts_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = local._fingerprint()
    monkeypatch.setattr(sys, "executable", "/another/.venv/bin/python")
    assert local._fingerprint() == before


def test_etcd_listens_on_the_loopback_only() -> None:
    assert components.etcd_flags(PATHS) == [
        "--data-dir=/state/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync=true",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
    ]


def test_apiserver_trusts_the_clusters_authorities() -> None:
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in components.apiserver_flags(PATHS))
    assert flags == {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",
        "advertise-address": "172.31.255.2",
        "secure-port": "6443",
        "service-cluster-ip-range": "10.96.0.0/16",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "client-ca-file": "/state/pki/ca.crt",
        "tls-cert-file": "/state/pki/apiserver.crt",
        "tls-private-key-file": "/state/pki/apiserver.key",
        "service-account-key-file": "/state/pki/service-accounts.pub",
        "service-account-signing-key-file": "/state/pki/service-accounts.key",
        "audit-policy-file": "/state/config/audit.json",
        "audit-log-path": "/state/logs/audit.log",
        "audit-log-mode": "blocking",
        "audit-log-maxsize": "50",
        "audit-log-maxbackup": "1",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "kubelet-client-certificate": "/state/pki/apiserver-kubelet.crt",
        "kubelet-client-key": "/state/pki/apiserver-kubelet.key",
        "kubelet-certificate-authority": "/state/pki/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": "/state/pki/front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": "/state/pki/front-proxy.crt",
        "proxy-client-key-file": "/state/pki/front-proxy.key",
    }


def test_kubelet_config() -> None:
    assert components.kubelet_config(PATHS) == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///state/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/largeforge",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "/state/config/resolv.conf",
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "tlsCertFile": "/state/pki/kubelet-serving.crt",
        "tlsPrivateKeyFile": "/state/pki/kubelet-serving.key",
        "authentication": {
            "x509": {"clientCAFile": "/state/pki/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "healthzBindAddress": "127.0.0.1",
    }


def test_pods_get_addresses_of_the_nodes_range() -> None:
    bridge, portmap = components.cni_config(PATHS)["plugins"]
    assert bridge == {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/state/cni",
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}


def test_config_files_are_those_that_the_commands_name() -> None:
    commands = [" ".join(component.command) for component in components.components(PATHS, PROGRAMS)]
    files = components.config_files(PATHS)
    assert sorted(files) == [
        "audit.json",
        "cni/10-bridge.conflist",
        "containerd.toml",
        "kubelet.json",
        "proxy.json",
        "resolv.conf",
        "scheduler.json",
    ]
    for name in ("audit.json", "containerd.toml", "kubelet.json", "proxy.json", "scheduler.json"):
        assert any(f"/state/config/{name}" in command for command in commands)
    assert 'conf_dir = "/state/config/cni"' in files["containerd.toml"]


def test_pods_use_the_sandbox_image_that_is_imported() -> None:
    assert 'sandbox = "localhost/pause:1"' in components.containerd_config(PATHS)


def test_dns_answers_at_the_address_that_the_kubelet_tells_pods() -> None:
    service = next(manifest for manifest in manifests.manifests(PATHS) if manifest["kind"] == "Service")
    assert [service["spec"]["clusterIP"]] == components.kubelet_config(PATHS)["clusterDNS"]


def test_default_storage_class_makes_local_volumes_in_the_state_folder() -> None:
    objects = manifests.storage(PATHS)
    storage_class = objects[-1]
    assert storage_class["metadata"]["annotations"] == {
        "storageclass.kubernetes.io/is-default-class": "true",
        "defaultVolumeType": "local",
    }
    config_map = next(manifest for manifest in objects if manifest["kind"] == "ConfigMap")
    assert json.loads(config_map["data"]["config.json"]) == {
        "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/state/volumes"]}]
    }


def test_changed_config_is_a_changed_pod() -> None:
    deployment = next(manifest for manifest in manifests.dns() if manifest["kind"] == "Deployment")
    digest = hashlib.sha256(json.dumps({"Corefile": manifests.COREFILE}).encode()).hexdigest()[:16]
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"largeforge.ai/dev-config": digest}


def test_service_and_pod_ranges_are_the_ones_of_the_fixed_addresses() -> None:
    services = ipaddress.ip_network(layout.SERVICE_RANGE)
    assert ipaddress.ip_address(layout.API_SERVICE_ADDRESS) == services[1]
    assert ipaddress.ip_address(layout.DNS_ADDRESS) in services
    assert ipaddress.ip_network(layout.NODE_POD_RANGE).subnet_of(ipaddress.ip_network(layout.POD_RANGE))
