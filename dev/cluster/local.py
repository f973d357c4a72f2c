"""The local cluster: one node of processes in namespaces of their own."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dev.cluster import host, images, layout, manifests, probes, programs
from dev.cluster.api import Api
from dev.cluster.components import components, config_files
from dev.cluster.probes import PATHS
from dev.cluster.processes import NodeProcess
from dev.cluster.programs import BIN
from dev.cluster.supervisor import answers
from dev.packages import ensure_packages
from dev.paths import CACHE, CLUSTER, REPO
from dev.steps import StepError, run, step

PACKAGES = (
    "busybox-static",
    "conntrack",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "kmod",
    "mount",
    "nftables",
    "runc",
)
FAKE_GPUS = "LARGEFORGE_FAKE_GPUS"

START_SECONDS = 180.0
"""Ten are usual; the machine may be building images meanwhile."""

POLL_SECONDS = 0.2


def up() -> None:
    """Make the cluster run and be ready; nothing is done when it is.

    A run that was killed is taken up where it stopped; a node of another configuration is started again on its state.
    """
    fingerprint = _fingerprint()
    if _is_complete(fingerprint):
        _set_fake_gpus()
        _await("the fake GPUs", probes.gpus_are_advertised)
        return
    _check_machine()
    with _lock():
        ensure_packages(PACKAGES)
        programs.ensure_programs()
        _prepare()
        _set_fake_gpus()
        _start(fingerprint)
        with step("import the cluster's own images", remedy=_remedy()):
            _await("containerd", lambda: answers(f"unix:{PATHS.containerd_socket}"))
            _import_base_images()
        with step("wait for the API server", remedy=_remedy()):
            _await("the API server", probes.api_answers)
        with step("apply DNS and storage, wait for the node", remedy=_remedy()):
            _apply(manifests.manifests(PATHS))
            _await("the node", probes.node_is_up)
            _await("DNS and storage", probes.own_pods_are_up)
            _await("the fake GPUs", probes.gpus_are_advertised)
        PATHS.complete.write_text(fingerprint)


def stop() -> None:
    """End every process of the cluster and undo what it did to the machine; its state stays for the next `up`."""
    with _lock():
        _tell_whose_pods_end()
        _stop()


def down() -> None:
    """`stop`, and remove the state: objects, volumes, images in containerd. Cached programs and built images stay."""
    with _lock():
        _tell_whose_pods_end()
        _stop()
        with step(f"remove {CLUSTER}", remedy=f"see what holds files in {CLUSTER}, then run this again"):
            host.unmount_below(CLUSTER)
            # Not shutil.rmtree: it would walk into whatever is mounted there.
            run("rm", "-rf", "--one-file-system", CLUSTER)


def renew() -> None:
    """`stop`, and remove objects, pods and volumes; containerd's images and the certificates stay."""
    with _lock():
        _tell_whose_pods_end()
        _stop()
        with step(f"remove the objects, pods and volumes in {CLUSTER}", remedy=f"see what holds files in {CLUSTER}"):
            host.unmount_below(CLUSTER)
            PATHS.complete.unlink(missing_ok=True)
            state = (PATHS.etcd, PATHS.kubelet, PATHS.cni, PATHS.volumes, PATHS.pod_logs, PATHS.logs)
            run("rm", "-rf", "--one-file-system", *state)


def status() -> dict[str, Any]:
    """What runs, for people and programs."""
    process = probes.own_node()
    result: dict[str, Any] = {
        "cluster": "local",
        "running": process is not None,
        "ready": process is not None and probes.node_is_up(),
        "complete": _is_complete(_fingerprint()),
        "kubeconfig": str(PATHS.kubeconfig),
        "nodeAddress": layout.NODE_ADDRESS,
        "state": str(CLUSTER),
    }
    if process is not None:
        result["process"] = asdict(process)
        result["components"] = json.loads(PATHS.supervisor.read_text()) if PATHS.supervisor.exists() else {}
    return result


def kubeconfig() -> Path:
    """Of the administrator; there is one after `up`."""
    return PATHS.kubeconfig


def audit_log() -> Path:
    """What service accounts asked for; `dev.cluster.audit` reads it."""
    return PATHS.audit_log


def node_address() -> str:
    """Where the machine reaches NodePorts."""
    return layout.NODE_ADDRESS


def import_archive(tar: Path) -> None:
    images.import_archive(tar, paths=PATHS)


def content_digests() -> set[str]:
    return images.content_digests(paths=PATHS)


def has_image(reference: str) -> bool:
    return images.has_image(reference, paths=PATHS)


def clean_environment() -> dict[str, str]:
    """For the node and for `kubectl`: no proxy may stand between them and the API server."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TERM") if name in os.environ}
    return {"PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **kept}


def _fingerprint() -> str:
    """Of everything that a running cluster is made from; the same in every checkout of the same version."""
    described = {
        "programs": {name: program.version for name, program in programs.ALL.items()},
        "components": [asdict(component) for component in components(PATHS, BIN, python="python")],
        "files": config_files(PATHS),
        "manifests": manifests.manifests(PATHS),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _is_complete(fingerprint: str) -> bool:
    process = probes.own_node()
    return (
        process is not None
        and process.fingerprint == fingerprint
        and PATHS.complete.exists()
        and PATHS.complete.read_text() == fingerprint
        and probes.node_is_up()
        and probes.own_pods_are_up()
    )


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise StepError("the local cluster makes namespaces, links and cgroups", remedy="run it as root")
    if len(str(PATHS.containerd_socket)) > layout.LONGEST_SOCKET_PATH:
        raise StepError(
            f"{PATHS.containerd_socket} is too long for a Unix socket", remedy="set LARGEFORGE_CACHE to a shorter path"
        )
    if any(CLUSTER.is_relative_to(hidden) for hidden in ("/proc", "/run", "/var/log", "/var/run", *host.MOUNT_POINTS)):
        raise StepError(f"{CLUSTER} would be hidden in the node", remedy="set LARGEFORGE_CACHE to another path")
    probes.own_node()


def _prepare() -> None:
    """Write what the components read; runs again on what a killed run has left."""
    # Imported here: an `up` that has nothing to do need not load it.
    from dev.cluster.certificates import ensure_certificates, identities, write_private

    folders = (PATHS.config / "cni", PATHS.logs, PATHS.pod_logs, PATHS.etcd, PATHS.kubelet, PATHS.cni, PATHS.volumes)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    PATHS.etcd.chmod(0o700)
    host.make_mount_points()
    who = identities(
        node=layout.NODE,
        node_address=layout.NODE_ADDRESS,
        service_address=layout.API_SERVICE_ADDRESS,
        cluster_domain=layout.CLUSTER_DOMAIN,
    )
    ensure_certificates(PATHS.pki, who, server=f"https://{layout.NODE_ADDRESS}:{layout.API_PORT}")
    write_private(PATHS.kubeconfig, PATHS.client_kubeconfig("admin").read_text())
    for name, text in config_files(PATHS).items():
        (PATHS.config / name).write_text(text)


def _set_fake_gpus() -> None:
    """As the variable says; where it is not set, the number stays what it is."""
    wanted = os.environ.get(FAKE_GPUS, "")
    if not wanted:
        return
    if not wanted.isdecimal():
        raise StepError(f"{FAKE_GPUS}={wanted} is not a number", remedy=f"set {FAKE_GPUS} to a number, 0 for none")
    if probes.fake_gpus() != int(wanted):
        # One write of a few bytes: its reader in the node sees all of it or, for once, nothing.
        PATHS.fake_gpus.write_text(wanted)


def _start(fingerprint: str) -> None:
    process = probes.own_node()
    if process is not None and process.fingerprint == fingerprint:
        return
    if process is not None:
        with step("stop the node: its configuration has changed"):
            process.stop()
    with step("start the node", remedy=_remedy()):
        PATHS.supervisor.unlink(missing_ok=True)
        log = PATHS.logs / "node.log"
        with log.open("ab") as output:
            launched = subprocess.Popen(
                [sys.executable, "-m", "dev.cluster.node", str(CLUSTER), fingerprint],
                cwd=REPO,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _await("the node's first process", lambda: PATHS.supervisor.exists() or launched.poll() is not None)
        if launched.poll() is not None:
            raise StepError(f"the node ended at once:\n{_tail(log)}", remedy=_remedy())
        launched.returncode = 0  # it outlives this process on purpose: Popen need not warn of it


def _tell_whose_pods_end() -> None:
    """Name the namespaces with pods: the cluster may have other users than the one who ends it."""
    try:
        pods = Api(PATHS).call("GET", "/api/v1/pods")["items"] if probes.own_node() else []
    except OSError:
        return  # it does not answer, and ending it is the remedy
    ours = {"kube-system", manifests.STORAGE_NAMESPACE}
    others = sorted({pod["metadata"]["namespace"] for pod in pods} - ours)
    if others:
        print(f"    this ends the pods in {', '.join(others)}", flush=True)


def _stop() -> None:
    process = probes.own_node()
    if process is not None:
        with step("stop the node"):
            process.stop()
    host.disconnect()
    host.remove_cgroups()
    host.restore_settings()
    shutil.rmtree(layout.RUN, ignore_errors=True)
    host.remove_mount_points()


def _import_base_images() -> None:
    present = images.references(paths=PATHS)
    wanted = [image for image in images.base_images() if image.reference not in present]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(dir=CLUSTER, prefix=".images-") as folder:
        tar = Path(folder, "base.tar")
        images.write_archive(wanted, tar)
        images.import_archive(tar, paths=PATHS)


def _apply(objects: list[dict[str, Any]]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    run(
        *(BIN / "kubectl", "--kubeconfig", PATHS.kubeconfig, "apply", "--server-side", "--force-conflicts"),
        *("--field-manager", "largeforge-dev", "--cache-dir", CLUSTER / "kubectl", "--filename", "-"),
        stdin=text,
        env=clean_environment(),
        remedy=_remedy(),
    )


def _await(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StepError(f"{what}: not ready after {START_SECONDS:g} s\n{_troubles()}", remedy=_remedy())
        time.sleep(POLL_SECONDS)


def _troubles() -> str:
    """The last lines of the components that have ended or wait."""
    if NodeProcess.read() is None:
        return f"the node does not run:\n{_tail(PATHS.logs / 'node.log')}"
    states = json.loads(PATHS.supervisor.read_text()) if PATHS.supervisor.exists() else {}
    lines = []
    for name, state in states.items():
        if state["waits_for"]:
            lines.append(f"{name} waits for {state['waits_for']}")
        if state["restarts"]:
            lines.append(f"{name} was started again {state['restarts']} times:\n{_tail(PATHS.logs / f'{name}.log')}")
    return "\n".join(lines)


def _tail(path: Path, lines: int = 10) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _remedy() -> str:
    return (
        f"read the logs in {PATHS.logs}; `python -m dev.cluster up` goes on from here, "
        "`python -m dev.cluster down` and `up` begin with nothing"
    )


@contextmanager
def _lock() -> Iterator[None]:
    """One `up`, `stop` or `down` at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "cluster.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
