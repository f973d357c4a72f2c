from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from largeforge.controllers import workqueue
from largeforge.controllers.workqueue import Key, WorkQueue, backoff
from largeforge.kube.cluster import ClusterError

A, B = Key("team", "a"), Key("team", "b")


class Desk:
    """A reconcile that notes who came, and does what the test says."""

    def __init__(self):
        self.seen = []
        self.at_once = 0
        self.most_at_once = 0
        self.gates = {}
        self.answers = {}

    async def __call__(self, key):
        self.seen.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if key in self.gates:
                await self.gates[key].wait()
            answer = self.answers.get(key)
            if isinstance(answer, list):
                answer = answer.pop(0) if answer else None
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.at_once -= 1


@asynccontextmanager
async def working(desk, **options):
    queue = WorkQueue("things", desk, **options)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a deadline stands above
            await asyncio.sleep(0.001)


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 0.01)
    return Desk()


async def test_a_key_that_waits_is_looked_at_once(desk):
    async with working(desk, workers=1) as queue:
        for _ in range(5):
            queue.add(A)
        queue.add(B)
        await until(lambda: len(desk.seen) == 2)
        await asyncio.sleep(0.02)
    assert desk.seen == [A, B]


async def test_a_key_that_is_woken_while_it_is_looked_at_is_looked_at_again_but_never_twice_at_a_time(desk):
    desk.gates[A] = asyncio.Event()
    async with working(desk, workers=4) as queue:
        queue.add(A)
        await until(lambda: desk.seen == [A])
        queue.add(A)
        queue.add(A)
        await asyncio.sleep(0.02)
        assert desk.seen == [A]
        desk.gates[A].set()
        await until(lambda: desk.seen == [A, A])
    assert desk.most_at_once == 1


async def test_a_slow_object_does_not_delay_another(desk):
    desk.gates[A] = asyncio.Event()
    async with working(desk, workers=2) as queue:
        queue.add(A)
        queue.add(B)
        await until(lambda: B in desk.seen)


async def test_a_bad_object_backs_off_alone(desk):
    desk.answers[A] = [ClusterError("gone"), ClusterError("gone"), ValueError("a mistake"), None]
    async with working(desk, workers=1) as queue:
        queue.add(A)
        queue.add(B)
        await until(lambda: desk.seen.count(A) == 4)
        await asyncio.sleep(0.05)
    assert desk.seen.count(A) == 4
    assert desk.seen.count(B) == 1


async def test_what_the_log_says_of_a_failed_look_has_no_token(desk, caplog):
    desk.answers[A] = [ClusterError("spec.image: Invalid value: hf_0123456789abcdef"), None]
    async with working(desk, workers=1) as queue:
        queue.add(A)
        await until(lambda: desk.seen.count(A) == 2)
    assert "spec.image: Invalid value: ***" in caplog.text


async def test_a_look_that_hangs_is_ended(desk, monkeypatch):
    monkeypatch.setattr(workqueue, "DEADLINE", 0.01)
    desk.gates[A] = asyncio.Event()
    async with working(desk, workers=1) as queue:
        queue.add(A)
        await until(lambda: desk.seen.count(A) == 2)


async def test_an_object_is_looked_at_again_when_it_asked_for_it(desk):
    desk.answers[A] = [0.01, None]
    async with working(desk) as queue:
        queue.add(A)
        await until(lambda: desk.seen == [A, A])
        await asyncio.sleep(0.03)
    assert desk.seen == [A, A]


async def test_a_wake_comes_before_a_planned_look_and_replaces_it(desk):
    desk.answers[A] = [0.03, None]
    async with working(desk) as queue:
        queue.add(A)
        await until(lambda: desk.seen == [A])
        await asyncio.sleep(0)
        queue.add(A)
        await until(lambda: desk.seen == [A, A])
        await asyncio.sleep(0.06)
    assert desk.seen == [A, A]


async def test_the_sooner_of_two_planned_looks_counts(desk):
    async with working(desk) as queue:
        queue.add_after(A, 60)
        queue.add_after(A, 0.01)
        queue.add_after(A, 60)
        await until(lambda: desk.seen == [A])


def test_backoff_doubles_with_jitter_up_to_a_limit():
    assert 0.375 <= backoff(1) <= 0.625
    assert 0.75 <= backoff(2) <= 1.25
    assert all(90 <= backoff(n) <= 150 for n in (10, 100, 10_000))
