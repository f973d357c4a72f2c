"""`python -m dev.cluster`: the local cluster from the shell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from dev import cluster
from dev.cluster.programs import ensure_programs
from dev.steps import StepError, report


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except StepError as error:
        return report(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make the cluster run and be ready; nothing is done when it is")
    commands.add_parser("stop", help="end its processes; its state stays for the next `up`")
    commands.add_parser("down", help="end its processes and remove its state")
    commands.add_parser("renew", help="end its processes and remove objects and volumes; images stay")
    commands.add_parser("status", help="what runs, as JSON; exit code 1 when it is not ready")
    commands.add_parser("programs", help="only build the programs that are missing")
    load = commands.add_parser("load", help="import an OCI archive into the cluster")
    load.add_argument("tar", type=Path)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    if arguments.command == "status":
        found = cluster.status()
        print(json.dumps(found, indent=2))
        return 0 if found["ready"] else 1
    if arguments.command == "up":
        cluster.up()
        seconds = time.monotonic() - started
        print(f"the cluster is ready after {seconds:.1f} s: export KUBECONFIG={cluster.kubeconfig()}")
    elif arguments.command == "stop":
        cluster.stop()
    elif arguments.command == "down":
        cluster.down()
    elif arguments.command == "renew":
        cluster.renew()
    elif arguments.command == "programs":
        ensure_programs()
    elif arguments.command == "load":
        cluster.import_archive(arguments.tar)
    return 0


if __name__ == "__main__":
    sys.exit(main())
