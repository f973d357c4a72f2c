"""Which process is the node: known by its number and its start, so that a number used again is never killed."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dev.cluster.layout import RUN

NODE_FILE = RUN / "node.json"
GRACE_SECONDS = 8.0
"""The node gives its components 3 s to end."""


@dataclass(frozen=True)
class NodeProcess:
    """The process that holds the node."""

    pid: int
    started: int
    """In clock ticks since the machine's start."""
    boot: str
    root: str
    fingerprint: str

    @classmethod
    def current(cls, *, root: Path, fingerprint: str) -> NodeProcess:
        """This very process."""
        started = start_ticks(os.getpid())
        if started is None:
            raise ProcessLookupError(os.getpid())
        return cls(os.getpid(), started, boot_id(), str(root), fingerprint)

    @classmethod
    def read(cls) -> NodeProcess | None:
        """The node that runs now on this machine, whoever started it."""
        try:
            found = cls(**json.loads(NODE_FILE.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return found if found.alive() else None

    def write(self) -> None:
        """Tell others of it, until the machine restarts."""
        new = NODE_FILE.with_name(f".{NODE_FILE.name}.new")
        new.write_text(json.dumps(asdict(self)))
        new.rename(NODE_FILE)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == boot_id() and start_ticks(self.pid) == self.started

    def started_at(self) -> datetime:
        """The wall clock's time of its start."""
        uptime_seconds = float(Path("/proc/uptime").read_text().split()[0])
        age_seconds = uptime_seconds - self.started / os.sysconf("SC_CLK_TCK")
        return datetime.now(UTC) - timedelta(seconds=age_seconds)

    def stop(self) -> None:
        """End it, gently at first; returns when it is gone."""
        for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
            if self.alive():
                os.kill(self.pid, number)
            if wait_until_gone(self, seconds=seconds):
                return
        raise TimeoutError(f"process {self.pid} does not end")


def wait_until_gone(process: NodeProcess, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When *pid* started; nothing if there is no such process or it is a zombie."""
    try:
        # The name, in parentheses, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
