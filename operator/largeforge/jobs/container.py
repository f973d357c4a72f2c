"""What the control group says of this container: its processors, and processes killed for memory."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = CGROUP) -> int:
    """Whole processors: the control group's quota where there is one, else what the scheduler lets this process use."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores
    return cores


def memory_kills(cgroup: Path = CGROUP) -> int | None:
    """Processes of this control group that the kernel killed for memory so far; None where it does not say."""
    try:
        for line in (cgroup / "memory.events").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return None
    return None
