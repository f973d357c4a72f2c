"""What the node has on the machine, outside its namespaces: a link, cgroups, kernel settings. Made and removed here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dev.cluster import layout
from dev.steps import StepError, run

CGROUPS = Path("/sys/fs/cgroup")
SETTINGS = layout.RUN / "settings.json"
CNI_CACHE = Path("/var/lib/cni")
KUBELET = Path("/var/lib/kubelet")
MOUNT_POINTS = (CNI_CACHE, KUBELET)
"""Fixed paths of the CNI library and the kubelet: the node mounts something there, on the machine they are empty."""

KERNEL = Path("/proc/sys")
KUBELET_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
"""Under `KERNEL`; the kubelet changes them for the whole machine."""

CGROUP_REMOVAL_SECONDS = 10.0


def remember_settings() -> None:
    """Keep the kernel settings as they were before the kubelet; a second call changes nothing."""
    if SETTINGS.exists():
        return
    values = {name: (KERNEL / name).read_text().strip() for name in KUBELET_SETTINGS}
    new = SETTINGS.with_name(f".{SETTINGS.name}.new")
    new.write_text(json.dumps(values))
    new.rename(SETTINGS)


def restore_settings() -> None:
    """Undo the kubelet's changes, if there were any."""
    if SETTINGS.exists():
        for name, value in json.loads(SETTINGS.read_text()).items():
            (KERNEL / name).write_text(value)
        SETTINGS.unlink()


def make_cgroups() -> None:
    """Make the node's folder in every cgroup hierarchy of this machine."""
    if (CGROUPS / "cgroup.controllers").exists():
        _enable_controllers()
    for hierarchy in _hierarchies():
        folder = hierarchy / layout.CGROUP
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / name).exists() and (folder / name).exists() and not (folder / name).read_text().strip():
                (folder / name).write_text((hierarchy / name).read_text())


def remove_cgroups() -> None:
    """Remove the node's folders; their processes may take a moment to be gone."""
    deadline = time.monotonic() + CGROUP_REMOVAL_SECONDS
    while left := [folder for hierarchy in _hierarchies() if (folder := hierarchy / layout.CGROUP).is_dir()]:
        for top in left:
            for below, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(below).rmdir()
        if time.monotonic() > deadline:
            raise StepError(
                f"cgroups are still in use: {', '.join(map(str, left))}",
                remedy=f"see the processes named in {left[0]}/**/cgroup.procs",
            )
        time.sleep(0.05)


def connect() -> None:
    """Join the machine's network and that of the node's first process by a pair of links.

    The caller's children, and so `ip`, are already in the node's PID namespace, where that process is number 1.
    """
    disconnect()
    run("ip", "link", "add", layout.HOST_LINK, "type", "veth", "peer", "name", layout.NODE_LINK, "netns", "1")
    run("ip", "address", "add", f"{layout.HOST_ADDRESS}/30", "dev", layout.HOST_LINK)
    run("ip", "link", "set", layout.HOST_LINK, "up")


def disconnect() -> None:
    """Remove the link; also one that a killed node has left."""
    if Path("/sys/class/net", layout.HOST_LINK).exists():
        # It may go away by itself between the two: its other end is in a network that is being taken down.
        subprocess.run(["ip", "link", "delete", layout.HOST_LINK], capture_output=True, check=False)


def make_mount_points() -> None:
    for folder in MOUNT_POINTS:
        folder.mkdir(parents=True, exist_ok=True)


def remove_mount_points() -> None:
    """Remove those that nobody else uses."""
    for folder in MOUNT_POINTS:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def unmount_below(root: Path) -> None:
    """Undo mounts of the machine below *root*, before it is removed; the node's own are not among them."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = line.split()[4].encode().decode("unicode_escape")
        if Path(place).is_relative_to(root):
            run("umount", "--lazy", place, remedy=f"unmount {place} by hand")


def ensure_bridge_filter() -> None:
    """Bridged packets must pass the packet filter, or answers from a Service on the same node get lost."""
    if not Path("/proc/sys/net/bridge").exists():
        run("modprobe", "br_netfilter", remedy="load the kernel module br_netfilter on the machine")


def _hierarchies() -> Iterator[Path]:
    if (CGROUPS / "cgroup.procs").exists():
        yield CGROUPS
    elif CGROUPS.is_dir():
        yield from sorted(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())


def _enable_controllers() -> None:
    available = (CGROUPS / "cgroup.controllers").read_text().split()
    enabled = (CGROUPS / "cgroup.subtree_control").read_text().split()
    for controller in sorted(set(available) & {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"} - set(enabled)):
        try:
            (CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            raise StepError(
                f"cgroup controller {controller} cannot be enabled: {error}",
                remedy="in a container, move the processes of the root cgroup into a child cgroup first "
                "(mkdir /sys/fs/cgroup/init; write each of its cgroup.procs to init/cgroup.procs)",
            ) from error
