"""What runs in the node, and with which flags and files: pure functions, so that a test can compare them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster import layout
from dev.cluster.audit import audit_flags, policy
from dev.cluster.layout import Layout

ETCD_ADDRESS = "127.0.0.1:2379"
RUNC = "/usr/sbin/runc"
CNI_PLUGINS = "/usr/lib/cni"
"""Where Debian's packages put them."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One process of the node."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    """What must be there before it starts; see `dev.cluster.supervisor.answers`."""


def components(paths: Layout, programs: Path, *, python: str = sys.executable) -> list[Component]:
    """The node's processes, in the order of their start; *programs* is the folder of the binaries."""
    config = paths.config
    api = f"127.0.0.1:{layout.API_PORT}"
    needs_api = (f"https://{api}/readyz",)  # not only its port: until its roles are there it refuses everybody
    return [
        Component(name="etcd", command=[str(programs / "etcd"), *etcd_flags(paths)]),
        Component(
            name="containerd", command=[str(programs / "containerd"), "--config", str(config / "containerd.toml")]
        ),
        Component(
            name="kube-apiserver",
            command=[str(programs / "kube-apiserver"), *apiserver_flags(paths)],
            needs=(f"tcp:{ETCD_ADDRESS}",),
        ),
        Component(
            name="kube-controller-manager",
            command=[str(programs / "kube-controller-manager"), *controller_manager_flags(paths)],
            needs=needs_api,
        ),
        Component(
            name="kube-scheduler",
            command=[str(programs / "kube-scheduler"), "--config", str(config / "scheduler.json")],
            needs=needs_api,
        ),
        Component(
            name="kubelet",
            command=[str(programs / "kubelet"), *kubelet_flags(paths)],
            # It exits when containerd does not answer.
            needs=(f"tcp:{api}", f"unix:{paths.containerd_socket}"),
        ),
        Component(
            name="kube-proxy",
            command=[str(programs / "kube-proxy"), "--config", str(config / "proxy.json")],
            needs=needs_api,
        ),
        Component(
            name="fake-gpus",
            command=[python, "-m", "dev.cluster.gpus", str(paths.root)],
            needs=(*needs_api, f"file:{paths.fake_gpus}"),
        ),
    ]


def config_files(paths: Layout) -> dict[str, str]:
    """File name and content of everything in `paths.config`."""
    objects: dict[str, Any] = {
        "scheduler.json": scheduler_config(paths),
        "kubelet.json": kubelet_config(paths),
        "proxy.json": proxy_config(paths),
        "cni/10-bridge.conflist": cni_config(paths),
        paths.audit_policy.name: policy(),
    }
    return {
        "containerd.toml": containerd_config(paths),
        "resolv.conf": "",  # pods know the cluster's names only: the node has no way out to a name server
        **{name: json.dumps(content, indent=2) + "\n" for name, content in objects.items()},
    }


def flags(values: Mapping[str, object]) -> list[str]:
    """`--name=value` for each of *values*."""
    return [f"--{name}={value}" for name, value in values.items()]


def etcd_flags(paths: Layout) -> list[str]:
    return flags(
        {
            "data-dir": paths.etcd,
            "listen-client-urls": f"http://{ETCD_ADDRESS}",
            "advertise-client-urls": f"http://{ETCD_ADDRESS}",
            # Nothing else listens for peers, but the default would be the name «localhost».
            "listen-peer-urls": "http://127.0.0.1:2380",
            "unsafe-no-fsync": "true",  # a crash of the machine may lose the state, a kill of etcd does not
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "1h",
            "log-level": "warn",
        }
    )


def apiserver_flags(paths: Layout) -> list[str]:
    issuer = f"https://kubernetes.default.svc.{layout.CLUSTER_DOMAIN}"
    return flags(
        {
            "etcd-servers": f"http://{ETCD_ADDRESS}",
            "bind-address": "0.0.0.0",
            "advertise-address": layout.NODE_ADDRESS,
            "secure-port": layout.API_PORT,
            "service-cluster-ip-range": layout.SERVICE_RANGE,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",  # Pod Security is on by default
            "allow-privileged": "true",
            **apiserver_certificates(paths),
            **audit_flags(paths.audit_policy, paths.audit_log),
            "service-account-issuer": issuer,
            "kubelet-client-certificate": paths.certificate("apiserver-kubelet"),
            "kubelet-client-key": paths.key("apiserver-kubelet"),
            "kubelet-certificate-authority": paths.certificate("ca"),
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": paths.certificate("front-proxy-ca"),
            "requestheader-allowed-names": "front-proxy",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": paths.certificate("front-proxy"),
            "proxy-client-key-file": paths.key("front-proxy"),
        }
    )


def apiserver_certificates(paths: Layout) -> dict[str, object]:
    """The flags for who may call and who is called."""
    return {
        "client-ca-file": paths.certificate("ca"),
        "tls-cert-file": paths.certificate("apiserver"),
        "tls-private-key-file": paths.key("apiserver"),
        "service-account-key-file": paths.pki / "service-accounts.pub",
        "service-account-signing-key-file": paths.key("service-accounts"),
    }


def controller_manager_flags(paths: Layout) -> list[str]:
    kubeconfig = paths.client_kubeconfig("controller-manager")
    return flags(
        {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            "service-account-private-key-file": paths.key("service-accounts"),
            "root-ca-file": paths.certificate("ca"),
            "cluster-signing-cert-file": paths.certificate("ca"),
            "cluster-signing-key-file": paths.key("ca"),
            "use-service-account-credentials": "true",
            "allocate-node-cidrs": "true",
            "cluster-cidr": layout.POD_RANGE,
            "service-cluster-ip-range": layout.SERVICE_RANGE,
        }
    )


def scheduler_config(paths: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(paths.client_kubeconfig("scheduler"))},
        "leaderElection": {"leaderElect": False},
    }


def kubelet_flags(paths: Layout) -> list[str]:
    return flags(
        {
            "config": paths.config / "kubelet.json",
            "kubeconfig": paths.client_kubeconfig("kubelet"),
            "hostname-override": layout.NODE,
            "node-ip": layout.NODE_ADDRESS,
        }
    )


def kubelet_config(paths: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.CGROUP}",
        "failCgroupV1": False,  # from 1.35 on the kubelet refuses cgroup v1 without this
        "failSwapOn": False,
        "clusterDNS": [layout.DNS_ADDRESS],
        "clusterDomain": layout.CLUSTER_DOMAIN,
        "resolvConf": str(paths.config / "resolv.conf"),
        "podLogsDir": "/var/log/pods",  # in the node, /var/log is `paths.pod_logs`
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",  # in the node, /var/lib/kubelet is `paths.kubelet`
        # The machine is shared with builds and tests: pods are evicted only just before it has nothing left.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,  # images come from here only; a collected one could not be pulled again
        "serializeImagePulls": False,
        "tlsCertFile": str(paths.certificate("kubelet-serving")),
        "tlsPrivateKeyFile": str(paths.key("kubelet-serving")),
        "authentication": {
            "x509": {"clientCAFile": str(paths.certificate("ca"))},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "healthzBindAddress": "127.0.0.1",
    }


def proxy_config(paths: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(paths.client_kubeconfig("proxy"))},
        "clusterCIDR": layout.POD_RANGE,
        "hostnameOverride": layout.NODE,
        # These limits belong to the machine, not to the node's network: leave them as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def cni_config(paths: Layout) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(paths.cni),
                    "ranges": [[{"subnet": layout.NODE_POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def containerd_config(paths: Layout) -> str:
    # `state` is in the node's own /run: it is gone with the node, so a start never meets leftovers.
    return f"""\
version = 3
root = "{paths.containerd}"
state = "/run/containerd"

[grpc]
address = "{paths.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{paths.containerd}/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
# Without CAP_SYS_RESOURCE runc may not lower oom_score_adj, and every sandbox would fail.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{paths.config}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{RUNC}"
SystemdCgroup = false
"""
