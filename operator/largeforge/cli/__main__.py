"""`kubectl largeforge`: what the four kinds do, and questions to the router, from a terminal."""

from __future__ import annotations

import logging

from largeforge.cli.app import app


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(message)s")
    # What its loader of kubeconfigs warns of is in our error, too.
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    app(prog_name="kubectl-largeforge")


if __name__ == "__main__":
    main()
