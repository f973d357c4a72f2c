"""`python -m dev.images`: the images from the shell."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dev import images
from dev.images import catalog, locks
from dev.images.builder import disk_used, export
from dev.images.carry import forget_old
from dev.paths import CACHE
from dev.steps import StepError, report


def main() -> int:
    """Run the command; its exit code."""
    arguments = _parser().parse_args()
    started = time.monotonic()
    try:
        _run(arguments)
    except StepError as error:
        return report(error)
    used = "" if arguments.command in {"lock", "context"} else f"; {CACHE} holds {disk_used() / 1e9:.1f} GB"
    print(f"{arguments.command} took {time.monotonic() - started:.1f} s{used}")
    return 0


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "build":
            images.build(arguments.names)
        case "load":
            images.load(images.build(arguments.names).values())
        case "push":
            images.build(arguments.names)
            for reference in images.push(arguments.registry, arguments.names).values():
                print(reference)
        case "context":
            export(arguments.folder)
        case "prune":
            images.prune(arguments.keep)
            forget_old()
        case "lock":
            locks.lock(arguments.names, upgrade=arguments.upgrade)


def _parser() -> argparse.ArgumentParser:
    known = ", ".join(catalog.IMAGES)
    parser = argparse.ArgumentParser(prog="python -m dev.images", description="Build and carry the container images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    build = commands.add_parser("build", help="build what is missing; nothing is done where nothing changed")
    load = commands.add_parser("load", help="build, then carry into the cluster what it lacks")
    push = commands.add_parser("push", help="build, then copy to a registry")
    push.add_argument("registry", help="for example registry.example/team")
    for command in (build, load, push):
        command.add_argument("names", nargs="*", help=f"of: {known}; all when there is none")
    context = commands.add_parser("context", help="write a folder from which `docker build` makes the same images")
    context.add_argument("folder", type=Path, help="must not exist yet")
    prune = commands.add_parser("prune", help="remove old tags from the store and from the cluster")
    prune.add_argument("--keep", type=int, default=2, help="tags of each image that stay (default: 2)")
    lock = commands.add_parser("lock", help="write the locks with uv")
    lock.add_argument("--upgrade", action="store_true", help="take newer versions than the locks have")
    lock.add_argument("names", nargs="*", help=f"of: {', '.join(locks.NAMES)}; all when there is none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
