"""Long work, told while it is done: each step says what it does, how long it took, and what to do when it fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class StepError(Exception):
    """A step failed; `remedy` says what a person can do about it."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@contextmanager
def step(title: str, *, remedy: str = "") -> Iterator[None]:
    """Announce *title*, then its duration; a failed command ends in one readable message with *remedy*."""
    print(f"==> {title}", flush=True)
    started = time.monotonic()
    try:
        yield
    except StepError:
        raise
    except (OSError, subprocess.SubprocessError) as error:
        raise StepError(f"{title}: {error}", remedy=remedy) from error
    print(f"    done in {time.monotonic() - started:.1f} s", flush=True)


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    remedy: str = "",
) -> str:
    """The standard output of *argv*; on failure a `StepError` with the last lines that it printed."""
    done = subprocess.run(
        [str(part) for part in argv],
        env=None if env is None else dict(env),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StepError(_failure(argv, done.returncode, done.stdout + done.stderr), remedy=remedy)
    return done.stdout


def _failure(argv: Sequence[str | Path], code: int, output: str) -> str:
    tail = "\n".join(output.strip().splitlines()[-20:])
    return f"{' '.join(map(str, argv[:6]))} … exited with {code}:\n{tail}"


def report(error: StepError) -> int:
    """Print *error* with its remedy; the exit code for the shell."""
    print(f"\nfailed: {error}", file=sys.stderr)
    if error.remedy:
        print(f"what to do: {error.remedy}", file=sys.stderr)
    return 1
