"""`largeforge-operator`: run the operator, in a cluster or beside one."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from largeforge.controllers.logs import set_up
from largeforge.controllers.process import run
from largeforge.controllers.settings import from_environment
from largeforge.kube.cluster import ClusterError

DESCRIPTION = """\
The LargeForge operator. It uses the cluster that KUBECONFIG names, else the one that its pod runs in.
Settings come from the environment (LARGEFORGE_TRAINER_IMAGE and others: docs/contracts.md).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal comes; 2 where the settings are wrong."""
    parser = argparse.ArgumentParser(
        prog="largeforge-operator", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--namespace", action="append", help="serve this namespace only; may be repeated (LARGEFORGE_NAMESPACES)"
    )
    scope.add_argument("--all-namespaces", action="store_true", help="serve all namespaces, whatever the variable says")
    parser.add_argument(
        "--log-format", choices=("json", "text"), default="text", help="one JSON object a line, or text (default)"
    )
    parser.add_argument("--verbose", action="store_true", help="log what kopf does, too")
    options = parser.parse_args(arguments)
    environment = dict(os.environ)
    if options.namespace or options.all_namespaces:
        environment["LARGEFORGE_NAMESPACES"] = ",".join(options.namespace or [])
    set_up(options.log_format)
    if not options.verbose:
        logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(run(from_environment(environment)))
    except ValueError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    except ClusterError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
