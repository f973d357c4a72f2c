"""A network that misbehaves and an operator that dies: each life of a FineTuneJob ends as an undisturbed one does."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import ExitStack, asynccontextmanager

import aiohttp
import pytest

from tests.integration.faults import Kill, Late, Refused, Swapped, Watched, proxy, refusal
from tests.integration.lives import ended, ends_as, live, rest, spec_of, until
from tests.integration.operators import operator
from tests.integration.played import play

pytestmark = pytest.mark.integration

NAMESPACE = "faults"
TRAINING = 9
"""The write that makes the Job of the first training. `test_finetunejob` kills at every write, in one process."""
RESYNC_SECONDS = 2
VARIABLES = {"LARGEFORGE_NAMESPACES": NAMESPACE, "LARGEFORGE_RESYNC_SECONDS": str(RESYNC_SECONDS)}
"""A resync is what finds a lost event: in minutes on a cluster, in seconds here."""


@pytest.fixture(scope="module")
def kubeconfig(server):
    for words in (("namespace", NAMESPACE), ("serviceaccount", "default", "-n", NAMESPACE)):
        assert server.kubectl("create", *words).returncode == 0
    return server.kubeconfig


class Stage:
    """A proxy, and one FineTuneJob beside the operators that go through it."""

    def __init__(self, job, between, start, running):
        self.job, self.between, self._start, self._running = job, between, start, running

    def start(self):
        """Another operator; it runs until the end of the test."""
        return self._running.enter_context(self._start())

    async def ends_as(self, whole, *, events=True):
        """Wait until all is as at the end of an undisturbed life; nothing was made twice."""
        expected = {key: value for key, value in whole.items() if events or key != "events"}

        await ends_as(self.job, expected, events=events)
        assert [name for name, times in self.between.made.items() if times > 1] == []


@pytest.fixture
def stage(kubeconfig, monkeypatch, tmp_path):
    """`async with stage(name)`: a `Stage` for a life of that name."""

    @asynccontextmanager
    async def prepared(name):
        through = tmp_path / f"{name}-kubeconfig"
        played = play(kubeconfig, monkeypatch, NAMESPACE, name, **spec_of(name))
        async with played as job, proxy(kubeconfig, through) as between:
            with ExitStack() as running:
                yield Stage(job, between, lambda: operator(through, tmp_path, name, VARIABLES), running)

    return prepared


_WHOLE = {}


async def undisturbed(stage):
    """How a life ends to which nothing happens; it is lived once."""
    if not _WHOLE:
        async with stage("undisturbed") as quiet:
            quiet.start()
            await live(quiet.job)
            await rest(quiet.between)
            _WHOLE.update(await ended(quiet.job))
    return _WHOLE


async def killed(stage, at, *, done):
    """A life whose operator dies at write *at*; another one goes on."""
    whole = await undisturbed(stage)
    async with stage(f"kill-{at}-{'after' if done else 'before'}") as killing:
        first = killing.start()
        killing.between.faults = Kill(at, done=done, kill=first.process.kill)
        life = asyncio.create_task(live(killing.job))

        async def dead():
            return first.process.poll() is not None or life.done()

        await until(dead, lambda: ended(killing.job))
        assert first.process.poll() == -signal.SIGKILL, f"there was no write {at}"
        killing.start()
        await life
        await killing.ends_as(whole)


async def disturbed(stage, name, faults, *, events=True):
    """A life under *faults*, by one operator that stays alive in the eyes of its probes."""
    whole = await undisturbed(stage)
    async with stage(name) as stormy:
        stormy.between.faults = faults
        running = stormy.start()
        await live(stormy.job)
        await stormy.ends_as(whole, events=events)
        assert await alive(running)


async def alive(running):
    """Whether the kubelet would leave it alone."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{running.port}/healthz") as answer:
        return answer.status == 200 and running.process.poll() is None


def expired(number, line):
    """Every third line is the word that the watch's place is no longer known."""
    gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
    error = json.dumps({"type": "ERROR", "object": gone | {"message": "too old resource version"}}).encode() + b"\n"
    return [error] if number % 3 == 0 else [line]


def of_status(asked):
    return asked.status


STORMS = {
    "events-dropped": lambda: Watched(lambda number, line: [line] if number % 2 else []),
    "events-repeated": lambda: Watched(lambda _, line: [line, line]),
    "events-late": Late,
    "events-swapped": Swapped,
    "watches-expired": lambda: Watched(expired),
    "watches-silent": lambda: Watched(lambda _number, _line: []),
    "status-conflicts": lambda: Refused(lambda: refusal(409, "Conflict"), of=of_status),
}


@pytest.mark.long
@pytest.mark.parametrize("name", STORMS)
async def test_a_fault_that_lasts_ends_as_a_quiet_life_does(stage, name):
    await disturbed(stage, name, STORMS[name]())


@pytest.mark.long
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_an_operator_killed_when_it_makes_a_training_makes_no_other(stage, done):
    await killed(stage, TRAINING, done=done)
