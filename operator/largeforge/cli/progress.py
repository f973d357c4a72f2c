"""A job while it goes on: a bar, the figures, and the loss over the steps."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import Progress
from largeforge.api.meta import condition, is_true
from largeforge.api.names import COMPLETE, FAILED
from largeforge.api.quantizejob import QuantizeJob
from largeforge.cli.logs import container_of, pods_of
from largeforge.cli.plot import Point, plot
from largeforge.cli.session import CliError, Terminal
from largeforge.cli.state import row
from largeforge.cli.targets import KINDS, resource, short
from largeforge.kube.cluster import ClusterError, Manifest

STEP = re.compile(r"step (\d+)/\d+ loss (\S+) ")
"""What a trainer's log says of each step (`docs/contracts.md`)."""
LOG_LINES = 20_000
"""The newest lines of a log that are read: a point for each column of dots needs fewer."""
PLOT_HEIGHT = 8
WIDEST = 100
SHOWN = ("train_loss", "eval_loss_before", "eval_loss", "perplexity")
"""The metrics that are shown at the end, where they were measured."""


@dataclass(slots=True)
class Course:
    """The losses of one attempt, by step."""

    attempt: str = ""
    """Its Job's name; another one begins anew, from its checkpoint."""
    losses: dict[int, float] = field(default_factory=dict)

    def note(self, job: FineTuneJob | QuantizeJob) -> None:
        """Take what *job*'s status says now."""
        attempt = job.status.run.job_name if job.status.run else ""
        if attempt != self.attempt:
            self.attempt = attempt
            self.losses.clear()
        now = job.status.progress
        # At the end `loss` is the held-out loss, which is no point of this line.
        if now is not None and now.step is not None and now.loss and not is_true(job.status.conditions, COMPLETE):
            self.losses[now.step] = float(now.loss)

    def note_log(self, lines: Iterable[str]) -> None:
        """Take the steps of a trainer's log."""
        for line in lines:
            found = STEP.match(line)
            if found:
                self.losses[int(found[1])] = float(found[2])

    @property
    def points(self) -> list[Point]:
        """The losses in the order of the steps."""
        return sorted(self.losses.items())


class Screen:
    """Where a job is shown: a picture that refreshes in a terminal, elsewhere a line for each change."""

    def __init__(self, console: Console, course: Course, *, refreshes: bool) -> None:
        self._console = console
        self._course = course
        self._live = Live(console=console, auto_refresh=False) if refreshes and console.is_terminal else None
        self._said = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, job: FineTuneJob | QuantizeJob) -> None:
        """Show *job* as it is now."""
        if self._live is not None:
            self._live.update(picture(job, self._course, width=self._console.width), refresh=True)
        elif self._console.is_terminal:
            self._console.print(picture(job, self._course, width=self._console.width))
        elif (now := line(job)) != self._said:
            self.say(now)
            self._said = now

    def say(self, text: str) -> None:
        """One line, as long as it is."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


async def follow(cluster: Terminal, found: Manifest, *, console: Console, once: bool) -> None:
    """Show the job *found* until it has ended; a `CliError` with its own words where it failed or is deleted."""
    course = Course()
    job = _job(found)
    course.note(job)
    course.note_log(await _logged(cluster, found))
    with Screen(console, course, refreshes=not once) as screen:
        screen.show(job)
        if not (once or _ended(job)):
            async for job in _versions(cluster, found):
                course.note(job)
                screen.show(job)
                if _ended(job):
                    break
    failed = condition(job.status.conditions, FAILED)
    if failed is not None and failed.status == "True":
        raise CliError(f"{short(found)} failed, {failed.reason}: {failed.message}")
    for told in outcome(job):
        screen.say(told)


async def _versions(cluster: Terminal, found: Manifest) -> AsyncIterator[FineTuneJob | QuantizeJob]:
    """The job as it is, then each time that it changes; a `CliError` where it is deleted."""
    metadata = found["metadata"]
    there = False
    async for event in cluster.watch(resource(found["kind"]), metadata["namespace"]):
        if event.type == "SYNCED":
            if not there:
                raise CliError(f"{short(found)} was deleted")
        elif event.object["metadata"]["name"] == metadata["name"]:
            if event.type == "DELETED":
                raise CliError(f"{short(found)} was deleted")
            there = True
            yield _job(event.object)


async def _logged(cluster: Terminal, found: Manifest) -> list[str]:
    """The log of the attempt so far; nothing where it has no pod, or where it may not be read, which is said."""
    try:
        pods = await pods_of(cluster, found)
    except CliError:  # it waits for its pod, or has ended
        return []
    except ClusterError as exc:
        return _unread(exc)
    pod = pods[0]["metadata"]
    lines = cluster.log(pod["namespace"], pod["name"], container_of(pods[0], None), tail=LOG_LINES)
    try:
        return [line async for line in lines]
    except ClusterError as exc:
        return _unread(exc)


def _unread(exc: ClusterError) -> list[str]:
    typer.echo(f"note: the steps so far are not shown, because the log cannot be read: {exc}", err=True)
    return []


def _job(manifest: Manifest) -> FineTuneJob | QuantizeJob:
    job = KINDS[manifest["kind"]].model.model_validate(manifest)
    assert isinstance(job, FineTuneJob | QuantizeJob)  # noqa: S101 - the command takes no other kind
    return job


def _ended(job: FineTuneJob | QuantizeJob) -> bool:
    return is_true(job.status.conditions, COMPLETE) or is_true(job.status.conditions, FAILED)


def line(job: FineTuneJob | QuantizeJob) -> str:
    """What the job does now, in one line."""
    told = row(job.manifest(), now=datetime.now(UTC))
    return f"{told.state}: {told.message}" if told.message else told.state


def picture(job: FineTuneJob | QuantizeJob, course: Course, *, width: int) -> RenderableType:
    """What the job does, its bar, its figures, and the loss over the steps."""
    now = job.status.progress or Progress()
    narrow = min(width, WIDEST)
    bar = Padding(ProgressBar(total=100, completed=now.percent or 0, width=narrow), 0)  # which ends its line
    losses = [Text(each) for each in plot(course.points, width=narrow, height=PLOT_HEIGHT)]
    return Group(Text(line(job)), bar, Text(figures(now)), *losses)


def figures(now: Progress) -> str:
    """«step 12/60, epoch 0.20, loss 1.832, 1200 tokens/s, ETA 41s», as far as it is known."""
    told = (
        f"step {now.step}/{now.total_steps}" if now.step is not None and now.total_steps is not None else None,
        now.epoch and f"epoch {now.epoch}",
        now.loss and f"loss {now.loss}",
        f"{now.tokens_per_second} tokens/s" if now.tokens_per_second is not None else None,
        now.eta and f"ETA {now.eta}",
    )
    return ", ".join(part for part in told if part)


def outcome(job: FineTuneJob | QuantizeJob) -> list[str]:
    """What a complete job measured, and where its result lies; nothing of one that goes on."""
    if not is_true(job.status.conditions, COMPLETE):
        return []
    if isinstance(job, FineTuneJob):
        known = {m.name: m.value for m in job.status.metrics}
        measured = [f"{name} {known[name]}" for name in SHOWN if name in known]
    else:
        measured = [
            f"{a.method}: perplexity {a.perplexity_before} -> {a.perplexity_after}, {(a.verdict or 'open').lower()}"
            for a in job.status.attempts
        ]
    artifact = job.status.artifact
    return [*([", ".join(measured)] if measured else []), *([artifact.uri] if artifact else [])]
