"""Clients that ask without a pause, while something changes; none of their requests may fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai
from openai import OpenAI

from dev.kubectl import wait_for

TOKENS = 6
"""Short, so that many requests begin and end in each swap."""


@dataclass
class Load:
    """What the clients saw so far."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> int:
        """Requests that ended."""
        with self.lock:
            return self.answers.total() + len(self.failures)

    def await_more(self, count: int, *, seconds: float = 120) -> None:
        """Wait until *count* more requests have ended."""
        wanted = self.asked + count
        wait_for(f"{count} more requests", lambda: self.asked >= wanted, seconds=seconds, show=lambda: repr(self))

    def ask(self, client: OpenAI, model: str, question: str) -> None:
        """One request after the other, until it is told to stop."""
        while not self.stop.is_set():
            try:
                said = answer(client, model, question)
            except openai.OpenAIError as exc:
                with self.lock:
                    self.failures.append(f"{type(exc).__name__}: {exc}")
            else:
                with self.lock:
                    self.answers[said] += 1


def answer(client: OpenAI, model: str, question: str) -> str:
    """The first tokens of the answer to *question*."""
    whole = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=TOKENS, temperature=0
    )
    return whole.choices[0].message.content or ""


@contextmanager
def clients(client: OpenAI, model: str, question: str, *, count: int = 20) -> Iterator[Load]:
    """*count* clients at a time, for the time of the block."""
    load = Load()
    patient = client.with_options(max_retries=0, timeout=120)
    threads = [threading.Thread(target=load.ask, args=(patient, model, question)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(timeout=150)
