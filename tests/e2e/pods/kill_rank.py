"""In a training pod: SIGKILL to the process of RANK. Usage: `python -c "$(cat kill_rank.py)" RANK`, by kubectl exec."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main(rank: str) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"LARGEFORGE" in b"".join(variables) and f"RANK={rank}".encode() in variables and b"-c" not in words:
            os.kill(int(folder.name), signal.SIGKILL)
            return
    sys.exit(f"there is no process of rank {rank}")


main(sys.argv[1])
