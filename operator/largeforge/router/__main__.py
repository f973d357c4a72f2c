"""`largeforge-router`: an OpenAI endpoint in front of the experts of a namespace."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import uvloop

from largeforge.kube.cluster import ClusterError
from largeforge.router.server import Options, run
from largeforge.router.settings import Settings, SettingsError, StartError
from largeforge.router.table_file import TableFileError

EX_CONFIG = 78


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="largeforge-router",
        description="An OpenAI-compatible endpoint that sends each request to the expert that fits it. Routes come from"
        " the cluster's Experts, or from a file. Further settings are LARGEFORGE_* variables: docs/router.md.",
    )
    made.add_argument("--table", type=Path, metavar="FILE", help="routes from this YAML file, without a cluster")
    made.add_argument("--host", default="0.0.0.0", help="the address to listen on (default: all)")
    made.add_argument("--port", type=int, default=8080, help="the port of the OpenAI API (default: 8080)")
    made.add_argument("--health-port", type=int, default=8081, help="the port of health and metrics (default: 8081)")
    return made


def main() -> None:
    """Run until SIGTERM; exits 0 then, and 78 with one line where the configuration is wrong."""
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = Options(arguments.host, arguments.port, arguments.health_port, arguments.table)
    try:
        uvloop.run(run(Settings.from_environment(os.environ), options))
    except (SettingsError, StartError, TableFileError, ClusterError, OSError) as error:
        sys.stderr.write(f"largeforge-router: {error}\n")
        sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
