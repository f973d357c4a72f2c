"""A real kube-apiserver on its etcd, for tests of objects: no node, no controllers, ready in a few seconds.

Without a controller manager nothing follows from an object: no pods from a Job, no garbage collection, and a deleted
namespace stays. Give each test names of its own.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster import layout
from dev.cluster.api import Api
from dev.cluster.audit import audit_flags, policy
from dev.cluster.certificates import ensure_certificates, identities
from dev.cluster.components import apiserver_certificates, flags
from dev.cluster.layout import Layout
from dev.cluster.programs import BIN, ensure_programs
from dev.steps import StepError

START_SECONDS = 60.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
LOOPBACK = "127.0.0.1"


@contextmanager
def api_server() -> Iterator[Path]:
    """The administrator's kubeconfig of a new, empty API server; it is gone at the end of the block.

    `audit_log` tells where it writes what service accounts ask for. Its processes are killed with the thread that
    entered the block, however that ends.
    """
    ensure_programs(["etcd", "kube-apiserver"])
    with tempfile.TemporaryDirectory(prefix="largeforge-api-") as folder:
        paths = Layout(Path(folder))
        paths.logs.mkdir()
        paths.config.mkdir()
        paths.audit_policy.write_text(json.dumps(policy()))
        api_port, etcd_port, peer_port = _free_ports(3)
        who = identities(
            node=layout.NODE,
            node_address=LOOPBACK,
            service_address=layout.API_SERVICE_ADDRESS,
            cluster_domain=layout.CLUSTER_DOMAIN,
        )
        ensure_certificates(paths.pki, who, server=f"https://{LOOPBACK}:{api_port}")
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for name, arguments in (
                ("etcd", etcd_flags(paths, port=etcd_port, peer_port=peer_port)),
                ("kube-apiserver", apiserver_flags(paths, port=api_port, etcd_port=etcd_port)),
            ):
                processes.append(_start(paths, name, arguments))
            _wait(paths, Api(paths, host=LOOPBACK, port=api_port), processes)
            yield paths.client_kubeconfig("admin")
        finally:
            for process in reversed(processes):
                process.kill()  # nothing of it is kept, so nothing need be closed gently
                process.wait(STOP_SECONDS)


def audit_log(kubeconfig: Path) -> Path:
    """The audit log of the API server that `api_server` gave this kubeconfig of."""
    return Layout(kubeconfig.parents[1]).audit_log


def etcd_flags(paths: Layout, *, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{peer_port}"
    return flags(
        {
            "data-dir": paths.etcd,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
    )


def apiserver_flags(paths: Layout, *, port: int, etcd_port: int) -> list[str]:
    return flags(
        {
            "etcd-servers": f"http://{LOOPBACK}:{etcd_port}",
            "bind-address": LOOPBACK,
            "advertise-address": LOOPBACK,
            "endpoint-reconciler-type": "none",  # the loopback may not be an endpoint of a Service
            "secure-port": port,
            "service-cluster-ip-range": layout.SERVICE_RANGE,
            "authorization-mode": "RBAC",
            "disable-admission-plugins": "ServiceAccount",  # nobody makes a namespace's account here
            # Not a default of Kubernetes but OpenShift's: the rights on finalizers are needed for it alone.
            "enable-admission-plugins": "OwnerReferencesPermissionEnforcement",
            "allow-privileged": "true",
            **apiserver_certificates(paths),
            **audit_flags(paths.audit_policy, paths.audit_log),
            "service-account-issuer": f"https://kubernetes.default.svc.{layout.CLUSTER_DOMAIN}",
        }
    )


def _start(paths: Layout, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StepError("there is no setpriv on PATH", remedy="install util-linux")
    with (paths.logs / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [setpriv, "--pdeathsig", "KILL", str(BIN / name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(paths.root)},
        )


def _wait(paths: Layout, api: Api, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            # The last thing that a new server makes; the roles are there before it.
            api.call("GET", "/api/v1/namespaces/default")
            api.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin")
        except OSError as error:
            ended = any(process.poll() is not None for process in processes)
            if ended or time.monotonic() > deadline:
                message = f"the API server does not answer: {error}\n{_logs(paths)}"
                raise StepError(message, remedy="see the logs above; is there memory left?") from error
            time.sleep(POLL_SECONDS)
        else:
            return


def _logs(paths: Layout) -> str:
    return "\n".join(
        f"{file.name}:\n" + "\n".join(file.read_text(errors="replace").splitlines()[-10:])
        for file in sorted(paths.logs.iterdir())
    )


def _free_ports(count: int) -> list[int]:
    """Ports that nobody used a moment ago; all are held until the last is known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind((LOOPBACK, 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()
