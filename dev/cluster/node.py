"""The node: a process that makes the namespaces, and in them the first process, which runs the components.

Killed in any way, either of the two takes the other, every component, container, mount and network of the node with it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path

from dev.cluster import host, layout
from dev.cluster.components import components
from dev.cluster.layout import Layout
from dev.cluster.processes import NODE_FILE, NodeProcess
from dev.cluster.programs import BIN
from dev.cluster.supervisor import Supervisor
from dev.steps import run

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
"""From the kernel's sched.h and prctl.h; Python 3.11 has no `os.unshare`."""

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the node; started by `python -m dev.cluster up`.")
    parser.add_argument("root", type=Path, help="the folder of the cluster's state")
    parser.add_argument("fingerprint", help="of the configuration that it runs")
    arguments = parser.parse_args()
    layout.RUN.mkdir(mode=0o755, exist_ok=True)
    with (layout.RUN / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("a node runs already on this machine", file=sys.stderr)
            return 1
        NodeProcess.current(root=arguments.root, fingerprint=arguments.fingerprint).write()
        try:
            return _hold(Layout(arguments.root))
        finally:
            NODE_FILE.unlink(missing_ok=True)


def _hold(paths: Layout) -> int:
    """Start the first process of the node, connect it, and wait for its end."""
    host.remember_settings()
    host.make_cgroups()
    host.ensure_bridge_filter()
    _unshare(CLONE_NEWPID)  # of the children that follow, not of this process
    from_node, to_holder = os.pipe()
    from_holder, to_node = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_node)
        os.close(to_node)
        _first_process(paths, told=from_holder, tell=to_holder)
    os.close(from_holder)
    os.close(to_holder)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(child, received))
    if os.read(from_node, 1):
        host.connect()
        os.write(to_node, b"1")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _first_process(paths: Layout, *, told: int, tell: int) -> None:
    """PID 1 of the node; never returns."""
    code = 1
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
        os.write(tell, b"1")
        if os.read(told, 1):  # nothing comes when the holder has died before the line above that follows its death
            _mount(paths)
            _configure_network()
            socket.sethostname(layout.NODE)
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            Supervisor(components(paths, BIN), logs=paths.logs, report=paths.supervisor).run()
            code = 0
    except Exception:  # noqa: BLE001 - whatever it is, it belongs into the log, and this process must end here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _unshare(namespaces: int) -> None:
    if LIBC.unshare(namespaces) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _mount(paths: Layout) -> None:
    # First apart from the machine's mounts, then shared below, as the kubelet wants it.
    run("mount", "--make-rprivate", "/")
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    run("mount", "--bind", paths.pod_logs, "/var/log")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", host.CNI_CACHE)
    run("mount", "--bind", paths.kubelet, host.KUBELET)


def _configure_network() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{layout.NODE_ADDRESS}/30", "dev", layout.NODE_LINK)
    run("ip", "link", "set", layout.NODE_LINK, "up")
    run("ip", "route", "add", "default", "via", layout.HOST_ADDRESS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")


if __name__ == "__main__":
    sys.exit(main())
