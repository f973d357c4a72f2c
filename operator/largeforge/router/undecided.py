"""A request whose text is being embedded. When that is known or late, it becomes what was decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from largeforge.router.embedqueue import EmbedQueue, Ticket
from largeforge.router.learnt import Learnt
from largeforge.router.openai import ApiError
from largeforge.router.service import Running
from largeforge.router.terms import Floats

_NEVER = float("inf")

NO_MODEL = "none: this router has no embedding model, so examples count by their words alone"
BUSY = "none: too many texts wait to be embedded, so examples counted by their words alone"
LATE = "none: it was not there in time, so examples counted by their words alone"
FAILED = "none: the model could not embed the text, so examples counted by their words alone"

Proceed = Callable[[Mapping[str, Floats], str], Running | None]
"""Goes on with the embeddings, or with none and the cause; may raise an `ApiError`."""
_OUTCOMES = {"": "used", NO_MODEL: "no_model", BUSY: "busy", LATE: "late", FAILED: "failed"}


class Undecided:
    """For the client's connection it is the request that runs, also after it was decided."""

    def __init__(self, proceed: Proceed, failed: Callable[[ApiError], None]) -> None:
        self._failed = failed
        self._proceed: Proceed | None = proceed
        self._running: Running | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, queue: EmbedQueue, texts: Sequence[str], *, seconds: float) -> bool:
        """Wait for the embeddings of *texts*, but no longer than that; False where the queue is full."""
        self._ticket = queue.ask(texts, self._embedded)
        if self._ticket is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late)
        return self._ticket is not None

    @property
    def deadline(self) -> float:
        """That of the request that runs; before there is one, a timer of its own looks after it."""
        return self._running.deadline if self._running is not None else _NEVER

    def cancel(self) -> None:
        """The client is gone."""
        self._end()
        if self._running is not None:
            self._running.cancel()

    def pause(self) -> None:
        """The client does not read."""
        if self._running is not None:
            self._running.pause()

    def resume(self) -> None:
        """The client reads again."""
        if self._running is not None:
            self._running.resume()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._running is not None:
            self._running.expire()

    def _embedded(self, embeddings: Mapping[str, Floats]) -> None:
        self._go_on(embeddings, "" if embeddings else FAILED)

    def _late(self) -> None:
        self._go_on({}, LATE)

    def _go_on(self, embeddings: Mapping[str, Floats], without: str) -> None:
        proceed = self._end()
        if proceed is None:
            return
        try:
            self._running = proceed(embeddings, without)
        except ApiError as error:
            self._failed(error)

    def _end(self) -> Proceed | None:
        """Wait no longer; what to do next, where that was not done before."""
        if self._ticket is not None:
            self._ticket.abandon()
        if self._timer is not None:
            self._timer.cancel()
        proceed, self._proceed = self._proceed, None
        return proceed


class Judge:
    """What is learnt, and where texts are embedded; one for the process."""

    def __init__(self, *, patience_seconds: float, count: Callable[[str], None] = lambda _: None) -> None:
        self.learnt: Learnt | None = None
        self.queue: EmbedQueue | None = None
        self._patience_seconds = patience_seconds
        self._count = count

    def ask(self, texts: Sequence[str], proceed: Proceed, failed: Callable[[ApiError], None]) -> Running | None:
        """Embed *texts*, then *proceed*; at once where they cannot be embedded now."""

        def counted(embeddings: Mapping[str, Floats], without: str) -> Running | None:
            self._count(_OUTCOMES[without])
            return proceed(embeddings, without)

        if self.queue is None:
            return counted({}, NO_MODEL)
        waiting = Undecided(counted, failed)
        if waiting.begin(self.queue, texts, seconds=self._patience_seconds):
            return waiting
        return counted({}, BUSY)
