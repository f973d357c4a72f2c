"""Names, addresses and paths of the local cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE = "largeforge"
NODE_ADDRESS = "172.31.255.2"
HOST_ADDRESS = "172.31.255.1"
"""The two ends of the only link between the node's network and the machine's, a /30."""

HOST_LINK = "lf-host"
NODE_LINK = "lf-node"

API_PORT = 6443
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
POD_RANGE = "10.244.0.0/16"
NODE_POD_RANGE = "10.244.0.0/24"
CLUSTER_DOMAIN = "cluster.local"

CGROUP = "largeforge"

RUN = Path("/run/largeforge")
"""What is true only until the machine restarts: the node's process, the machine's settings before it started."""

LONGEST_SOCKET_PATH = 107
"""The kernel's limit for the path of a Unix socket."""


@dataclass(frozen=True)
class Layout:
    """The folders and files of a cluster whose state is in *root*."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates, keys, and the kubeconfigs of the components."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """The components' files, of `components.config_files`."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """Of the components; those of pods are in `pod_logs`."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """What service accounts asked the API server for; `audit.calls` reads it."""
        return self.logs / "audit.log"

    @property
    def audit_policy(self) -> Path:
        """What is written there."""
        return self.config / "audit.json"

    @property
    def pod_logs(self) -> Path:
        """What is /var/log in the node."""
        return self.root / "var-log"

    @property
    def containerd_socket(self) -> Path:
        """Where `ctr` and the kubelet find containerd."""
        return self.root / "containerd.sock"

    @property
    def etcd(self) -> Path:
        """The API's objects."""
        return self.root / "etcd"

    @property
    def containerd(self) -> Path:
        """Images and containers' file systems."""
        return self.root / "containerd"

    @property
    def kubelet(self) -> Path:
        """What is /var/lib/kubelet in the node."""
        return self.root / "kubelet"

    @property
    def cni(self) -> Path:
        """Which pod has which address."""
        return self.root / "cni"

    @property
    def volumes(self) -> Path:
        """The data of dynamically made PersistentVolumes."""
        return self.root / "volumes"

    @property
    def fake_gpus(self) -> Path:
        """Holds the number of GPUs that the node pretends to have."""
        return self.root / "fake-gpus"

    @property
    def complete(self) -> Path:
        """Holds the fingerprint of what the last whole `up` has made."""
        return self.root / "complete"

    @property
    def supervisor(self) -> Path:
        """What the node's first process knows of the components."""
        return self.root / "supervisor.json"

    def certificate(self, name: str) -> Path:
        """Of *name*, as in `certificates.identities`."""
        return self.pki / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The private key of *name*."""
        return self.pki / f"{name}.key"

    def client_kubeconfig(self, name: str) -> Path:
        """The kubeconfig of *name*."""
        return self.pki / f"{name}.kubeconfig"
