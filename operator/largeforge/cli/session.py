"""What a command works with: the cluster, the environment, and how trouble is told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import typer

from largeforge.cli.forward import Forward, forwarded
from largeforge.client import ClientError
from largeforge.kube.client import connect
from largeforge.kube.cluster import Cluster, ClusterError
from largeforge.kube.transport import Missing, default_namespace

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""
HINTS = {
    "401: ": "the kubeconfig's credentials are not accepted; log in again",
    "403: ": "ask for the ClusterRole <release>-view of the chart, or -edit to change objects; instead of"
    " --all-namespaces, try --namespace",
}
USER_AGENT = "kubectl-largeforge"


class CliError(Exception):
    """What the user is told in one line, with a remedy."""


class Terminal(Cluster, Protocol):
    """The cluster, and the logs of its pods."""

    def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[str]:
        """The lines of a container's log, the last *tail* of them; *follow* waits for more until it has ended."""
        ...


Connect = Callable[[str | None], AbstractAsyncContextManager[Terminal]]


def _connected(context: str | None) -> AbstractAsyncContextManager[Terminal]:
    return connect(user_agent=USER_AGENT, context=context)


@dataclass(frozen=True, slots=True)
class Session:
    """Where commands get what is outside of them; tests put their own here."""

    connect: Connect = _connected
    """The cluster of a context of the kubeconfig."""
    default_namespace: Callable[[str | None], str] = default_namespace
    """The namespace that kubectl would use in a context."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    forward: Forward = forwarded
    """Makes a port of a Service reachable on this machine."""


def session(context: typer.Context) -> Session:
    """The session of this call."""
    return context.obj if isinstance(context.obj, Session) else Session()


def execute(work: Coroutine[Any, Any, None]) -> None:
    """Do *work*; trouble becomes one line on stderr and exit code 1."""
    try:
        asyncio.run(work)
    except (CliError, ClientError) as exc:
        complain(str(exc))
    except ClusterError as exc:
        complain(explained(exc))
    except BrokenPipeError:  # `| head` has seen enough; what is still buffered must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def complain(message: str) -> None:
    """Say *message* on stderr and exit with 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1) from None


def explained(exc: ClusterError) -> str:
    """The API server's words, with what to do."""
    said = str(exc)
    if isinstance(exc, Missing):
        return f"{said}; is LargeForge installed here? kubectl api-resources --api-group=largeforge.ai lists its kinds"
    hint = next((hint for start, hint in HINTS.items() if said.startswith(start)), None)
    if hint is not None:
        return f"{said}; {hint}"
    if said.startswith(("GET ", "PATCH ")):  # no answer
        return f"the API server was not reached, {said}; kubectl cluster-info shows whether it answers"
    return said
