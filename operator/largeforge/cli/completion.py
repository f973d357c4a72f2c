"""`kubectl_complete-largeforge`: what kubectl asks for the completions of `kubectl largeforge`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from largeforge.cli.app import app

PROGRAM = "kubectl-largeforge"
NO_FILES = ":4"
"""Cobra's directive that the shell adds no file names; a line of its own after the candidates."""


def asked(words: Sequence[str]) -> Mapping[str, str]:
    """The environment by which typer is asked to complete the last of *words*, in the form that Bash uses."""
    return {
        "_KUBECTL_LARGEFORGE_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join([PROGRAM, *words]),
        "COMP_CWORD": str(len(words)),
    }


def main() -> None:
    """Print the candidates for the last argument, one a line, and cobra's directive."""
    logging.disable()  # a shell that completes has no place for a message
    os.environ.update(asked(sys.argv[1:]))
    try:
        app(prog_name=PROGRAM)
    finally:
        sys.stdout.write(f"{NO_FILES}\n")
