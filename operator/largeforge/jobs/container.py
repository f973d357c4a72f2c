"""What the control group says of this container: its processors, its memory, and processes killed for want of it."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 says «no limit» by a number near 2**63."""


def available(cgroup: Path = CGROUP) -> int:
    """Whole processors: the control group's quota where there is one, else what the scheduler lets this process use."""
    cores = len(os.sched_getaffinity(0))
    quota = _read(cgroup / "cpu.max") or " ".join(
        _read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    amounts = quota.split()
    if len(amounts) != 2 or not all(amount.isdigit() for amount in amounts):
        return cores  # `max`, -1, or no control group to be seen
    return min(cores, max(1, int(amounts[0]) // int(amounts[1])))


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes that this container may hold; None where there is no limit, or the control group does not say."""
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):  # version 2, version 1
        text = _read(path).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def memory_kills(cgroup: Path = CGROUP) -> int | None:
    """Processes of this control group that the kernel killed for memory so far; None where it does not say."""
    for path in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):  # version 2, version 1
        for line in _read(path).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdigit():
                return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
