"""Embeddings of requests, computed by a thread beside the event loop; few at a time, and never waited for long.

onnxruntime lets go of Python's lock while it computes. The thread yields to the loop's (a higher nice value), so
streams go first where there is one core.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from largeforge.router.embedding import Embedder
from largeforge.router.terms import Floats

MOST_WAITING = 64
"""Requests that wait for their embeddings; more are decided without."""
REMEMBERED = 2048
"""Texts whose embedding is kept, 2 KB each: the earlier messages of a conversation come again with each new one."""
_NICE = 5

log = logging.getLogger(__name__)

Callback = Callable[[Mapping[str, Floats]], None]


class Ticket:
    """A request's place in the queue."""

    __slots__ = ("callback", "texts")

    def __init__(self, texts: Sequence[str], callback: Callback) -> None:
        self.texts = texts
        self.callback: Callback | None = callback

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self.callback = None


class EmbedQueue:
    """One thread that embeds, first come first served; used from the event loop that made it."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()
        self._remembered: OrderedDict[str, Floats] = OrderedDict()
        self.waiting = 0
        self._thread = threading.Thread(target=self._work, name="embed", daemon=True)
        self._thread.start()

    def ask(self, texts: Sequence[str], callback: Callback) -> Ticket | None:
        """Call *callback* in the loop with the embeddings of *texts*, unless it is abandoned; None where it is full."""
        if self.waiting >= MOST_WAITING:
            return None
        self.waiting += 1
        ticket = Ticket(texts, callback)
        self._queue.put(ticket)
        return ticket

    def close(self) -> None:
        """End the thread after what it is at."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (ticket := self._queue.get()) is not None:
            found: dict[str, Floats] = {}
            try:
                if ticket.callback is not None:
                    found = {text: self._vector(text) for text in ticket.texts}
            except Exception:  # the thread must outlive a text that the model's libraries cannot take
                log.exception("a text could not be embedded; it is decided without")
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._done, ticket, found)

    def _vector(self, text: str) -> Floats:
        found = self._remembered.get(text)
        if found is None:
            found = self._remembered[text] = self._embedder.one(text)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    def _done(self, ticket: Ticket, found: Mapping[str, Floats]) -> None:
        self.waiting -= 1
        if ticket.callback is not None:
            ticket.callback(found)
