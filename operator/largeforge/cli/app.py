"""The commands of `kubectl largeforge`, their arguments and their help."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from largeforge.cli import chat as chatting
from largeforge.cli import explain, logs, progress, suspend, table
from largeforge.cli.router import Options, open_router
from largeforge.cli.session import Session, Terminal, execute, session
from largeforge.cli.state import Row, age, row
from largeforge.cli.targets import JOBS, KINDS, SUSPENDABLE, find, resource, short
from largeforge.kube.cluster import ClusterError, Manifest

COMPLETION_SECONDS = 2.0
"""The shell waits for the names: where the cluster is slower, there are none."""

Work = Callable[[Terminal, Manifest], Awaitable[None]]
"""What a command does with the cluster and the object that was named."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object as the user named it, and what it may be."""

    said: str
    kinds: tuple[str, ...]
    namespace: str | None
    context: str | None


app = typer.Typer(
    name="kubectl-largeforge",
    help="What LargeForge's objects do and wait for, and questions to the router. docs/cli.md has more.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Output(str, Enum):  # noqa: UP042 - typer shows the values of such a class as choices
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


def _names(kinds: tuple[str, ...]) -> Callable[[typer.Context, str], list[str]]:
    """A completion of objects of *kinds*, as `ftj/sql`."""

    async def names(work: Session, context: str | None, namespace: str | None) -> list[str]:
        async with asyncio.timeout(COMPLETION_SECONDS), work.connect(context) as cluster:
            where = namespace or work.default_namespace(context)
            return [short(m) for kind in kinds for m in await cluster.list(resource(kind), where)]

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        given = context.params
        try:
            found = asyncio.run(names(session(context), given.get("context"), given.get("namespace")))
        except (ClusterError, TimeoutError):  # a shell has no place for a message
            return []
        return [name for name in found if name.startswith(incomplete)]

    return complete


Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The namespace; by default that of the kubeconfig's context.")
]
Context = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig; by default its current.")]
OutputAs = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
RouterAt = Annotated[
    str | None,
    typer.Option(
        "--router",
        metavar="URL",
        help="The router's address; by default LARGEFORGE_ROUTER or OPENAI_BASE_URL, else the namespace's router"
        " through kubectl port-forward.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="A file with a client's key; by default LARGEFORGE_API_KEY or OPENAI_API_KEY has the key."
    ),
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="The authorities of the router's certificate, in PEM.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="An Expert or InferenceService by name; auto lets the router choose.")
]
AnyJob = Annotated[
    str, typer.Argument(metavar="JOB", help="ftj/NAME or qj/NAME, or its name alone.", autocompletion=_names(JOBS))
]
Held = Annotated[
    str,
    typer.Argument(
        metavar="OBJECT",
        help="ftj/NAME, qj/NAME or infsvc/NAME, or its name alone.",
        autocompletion=_names(SUSPENDABLE),
    ),
]


@app.callback()
def start(context: typer.Context) -> None:
    """What LargeForge's objects do and wait for, and questions to the router."""
    context.obj = session(context)


@app.command(epilog="Example: kubectl largeforge status -n team")
def status(
    context: typer.Context,
    namespace: Namespace = None,
    *,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    output: OutputAs = Output.TEXT,
    cluster: Context = None,
) -> None:
    """All objects of the four kinds, and what each waits for."""

    async def work() -> None:
        here = session(context)
        where = "" if all_namespaces else namespace or here.default_namespace(cluster)
        async with here.connect(cluster) as reached:
            found = [m for kind in KINDS for m in await reached.list(resource(kind), where)]
        rows = [row(manifest, now=datetime.now(UTC)) for manifest in found]
        if output is Output.JSON:
            typer.echo(json.dumps({"items": [asdict(each) for each in rows]}, indent=2))
        elif rows:
            _print_rows(rows, with_namespace=all_namespaces)
        else:
            typer.echo(f"no objects of LargeForge in {f'namespace {where!r}' if where else 'any namespace'}", err=True)

    execute(work())


def _print_rows(rows: list[Row], *, with_namespace: bool) -> None:
    header = [*(["NAMESPACE"] if with_namespace else []), "OBJECT", "STATE", "AGE", "WAITS FOR, OR ENDED WITH"]
    cells = [
        [
            *([r.namespace] if with_namespace else []),
            *(f"{KINDS[r.kind].short}/{r.name}", r.state, age(r.ageSeconds), r.message),
        ]
        for r in rows
    ]
    for each in table.lines(header, cells):
        _console().print(each, soft_wrap=True)


@app.command(epilog='Example: kubectl largeforge chat "May I wash the brew group with soap?"')
def chat(
    context: typer.Context,
    question: Annotated[
        str | None, typer.Argument(help="What to ask; without it each line that is typed, or of stdin.")
    ] = None,
    namespace: Namespace = None,
    *,
    model: Model = "auto",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.")
    ] = None,
    router: RouterAt = None,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    cluster: Context = None,
) -> None:
    """Ask through the router: the answer as it comes, after who gives it, why, and the score."""
    options = Options(router, key_file, ca_file, namespace, cluster)

    async def work() -> None:
        async with open_router(session(context), options) as reached:
            conversation = chatting.Conversation(model, max_tokens)
            if question is None:
                await chatting.converse(reached, conversation)
            else:
                await chatting.ask(reached, conversation, question)

    execute(work())


@app.command(epilog='Example: kubectl largeforge route "Write a SQL query"')
def route(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="What would be asked.")],
    namespace: Namespace = None,
    *,
    model: Model = "auto",
    output: OutputAs = Output.TEXT,
    router: RouterAt = None,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    cluster: Context = None,
) -> None:
    """Explain which expert a question would get, by each one's scores; nothing is generated."""
    options = Options(router, key_file, ca_file, namespace, cluster)

    async def work() -> None:
        async with open_router(session(context), options) as reached:
            answer = await explain.explained(reached, question, model=model)
        if output is Output.JSON:
            typer.echo(json.dumps(answer, indent=2))
            return
        for each in explain.told(answer):
            _console().print(each, soft_wrap=True)

    execute(work())


@app.command("logs", epilog="Example: kubectl largeforge logs ftj/sql --follow")
def print_logs(
    context: typer.Context,
    named: Held,
    namespace: Namespace = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until the pods have ended.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only so many of the last lines.")] = None,
    container: Annotated[
        str | None, typer.Option("--container", "-c", help="A container; by default the pod's main one.")
    ] = None,
    cluster: Context = None,
) -> None:
    """The logs of a job's newest attempt, or of an InferenceService's engines."""

    async def work(reached: Terminal, found: Manifest) -> None:
        pods = await logs.pods_of(reached, found)
        await logs.show(reached, pods, logs.Wanted(container, follow, tail), say=typer.echo)

    _with(context, Named(named, SUSPENDABLE, namespace, cluster), work)


@app.command("progress", epilog="Example: kubectl largeforge progress ftj/sql")
def show_progress(
    context: typer.Context,
    named: AnyJob,
    namespace: Namespace = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show how far it is, and do not wait for more.")] = False,
    cluster: Context = None,
) -> None:
    """Follow a job to its end, with its loss over the steps; exit code 1 where it fails."""

    async def work(reached: Terminal, found: Manifest) -> None:
        await progress.follow(reached, found, console=_console(), once=once)

    _with(context, Named(named, JOBS, namespace, cluster), work)


@app.command("suspend", epilog="Example: kubectl largeforge suspend ftj/sql")
def hold(context: typer.Context, named: Held, namespace: Namespace = None, *, cluster: Context = None) -> None:
    """Hold a job, which saves a checkpoint first, or stop an InferenceService."""
    _with(context, Named(named, SUSPENDABLE, namespace, cluster), _holding(held=True))


@app.command("resume", epilog="Example: kubectl largeforge resume ftj/sql")
def release(context: typer.Context, named: Held, namespace: Namespace = None, *, cluster: Context = None) -> None:
    """Let go on what was suspended; a job goes on from its newest checkpoint, in the same run."""
    _with(context, Named(named, SUSPENDABLE, namespace, cluster), _holding(held=False))


def _holding(*, held: bool) -> Work:
    async def work(reached: Terminal, found: Manifest) -> None:
        typer.echo(await suspend.hold(reached, found, held=held))

    return work


def _with(context: typer.Context, named: Named, work: Work) -> None:
    """Do *work* with the object that was *named*."""

    async def all_of_it() -> None:
        here = session(context)
        async with here.connect(named.context) as reached:
            namespace = named.namespace or here.default_namespace(named.context)
            await work(reached, await find(reached, namespace, named.said, named.kinds))

    execute(all_of_it())


def _console() -> Console:
    return Console(highlight=False)
