"""Keeps what is learnt in step with the table: a process of its own learns, and the result is swapped in whole.

While it learns, and where it fails, the last one stays in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import msgspec
from pydantic import TypeAdapter

from largeforge.api.routerreport import RoutingReport
from largeforge.router import learntfile
from largeforge.router.embedding import Embedder, EmbeddingError
from largeforge.router.embedqueue import EmbedQueue
from largeforge.router.learner import Task
from largeforge.router.learnt import Learnt, Lesson
from largeforge.router.lessonreport import reports_of
from largeforge.router.undecided import Judge

DEBOUNCE_SECONDS = 0.2
"""Several Experts often change at once."""
RETRY_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
"""How long a router that has just started is kept from requests, so that it decides as the others do."""
MOST_SECONDS = 900.0
"""After that a learning is given up; 50,000 examples that are not embedded yet take about 150 s of one core."""

NICE = 10
"""Of the learner once the router serves: streams go first."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The last bits of a product depend on how many threads share it; and streams need the other cores."""
ARGUMENTS = ("-m", "largeforge.router.learner")

Reports = Mapping[str, RoutingReport]
_REPORTS: TypeAdapter[Reports] = TypeAdapter(Reports)

log = logging.getLogger(__name__)


class Learning:
    """Follows the lessons of the table, and gives *judge* what was learnt of them."""

    def __init__(self, judge: Judge, folder: Path | None, *, model: Path | None) -> None:
        self._judge = judge
        self._kept = folder
        self._model = model
        self._changed = asyncio.Event()
        self._lessons: tuple[Lesson, ...] = ()
        self._learnt: tuple[Lesson, ...] | None = None
        self._reports: Reports = {}
        self._settled = False
        """Whether the first lessons were learnt, or could not be."""
        self._began = monotonic()

    def follow(self, lessons: tuple[Lesson, ...]) -> None:
        """Learn these next, if they are not what was learnt last."""
        if lessons != self._lessons or self._learnt is None:
            self._lessons = lessons
            self._changed.set()

    def awaited(self) -> str | None:
        """Why the router should not be asked yet; None where it may be, which it may after a minute at the latest."""
        if self._settled or monotonic() - self._began > PATIENCE_SECONDS:
            return None
        return "learning the experts' examples"

    def report(self, expert: str, _generation: int = 0) -> RoutingReport | None:
        """How well the examples of now tell *expert* from the others; None until they were learnt."""
        lesson = next((lesson for lesson in self._lessons if lesson.expert == expert), None)
        return self._reports.get(expert) if lesson in (self._learnt or ()) else None

    async def run(self) -> None:
        """Learn whenever there is something new, for ever."""
        with contextlib.ExitStack() as stack:
            folder = self._kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.callback(self._close)
            while True:
                await self._changed.wait()
                if self._settled:
                    await asyncio.sleep(DEBOUNCE_SECONDS)
                self._changed.clear()
                if self._lessons != self._learnt:
                    await self._take_over(self._lessons, folder)

    def _close(self) -> None:
        if self._judge.queue is not None:
            self._judge.queue.close()

    async def _take_over(self, lessons: tuple[Lesson, ...], folder: Path) -> None:
        try:
            learnt, reports = await self._learn(lessons, folder)
            if learnt is not None and learnt.full is not None and self._model is not None and not self._judge.queue:
                self._judge.queue = EmbedQueue(await asyncio.to_thread(Embedder, self._model))
        except (OSError, LearningError, EmbeddingError, TimeoutError) as error:
            log.error("the examples could not be learnt, what was learnt last stays: %s", error)  # noqa: TRY400
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)
        else:
            self._learnt, self._reports, self._judge.learnt = lessons, reports, learnt
        self._settled = True

    async def _learn(self, lessons: tuple[Lesson, ...], folder: Path) -> tuple[Learnt | None, Reports]:
        if not any(lesson.examples for lesson in lessons):
            return None, reports_of(lessons, None)
        output = folder / "learnt"
        cache = str(folder / "embeddings.npz")
        task = Task([*lessons], str(output), str(self._model) if self._model else None, cache)
        began = asyncio.get_running_loop().time()
        reports = _REPORTS.validate_json(await _run(msgspec.json.encode(task), nice=NICE * self._settled))
        if not output.exists():
            return None, reports  # of all the examples none has a word
        learnt = learntfile.read(output)
        output.unlink()
        examples = sum(len(lesson.examples) for lesson in lessons)
        took = asyncio.get_running_loop().time() - began
        log.info("learnt from %d examples of %d experts in %.1f s", examples, len(learnt.experts), took)
        return learnt, reports


class LearningError(Exception):
    """The process that learns has failed."""


async def _run(task: bytes, *, nice: int) -> bytes:
    """What the learner says; a `LearningError` where it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *ARGUMENTS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | ONE_THREAD,
    )
    try:
        # From here and not by itself: its imports take half a second of a processor.
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
        async with asyncio.timeout(MOST_SECONDS):
            said, wrong = await process.communicate(task)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        last = " ".join(wrong.decode(errors="replace").split())[-500:]
        raise LearningError(f"the learner ended with {process.returncode}: {last}")
    return said
