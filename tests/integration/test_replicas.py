"""Three operators and one Lease: the acting one is killed, stopped and ended in the middle of a FineTuneJob's life."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.integration.faults import proxy
from tests.integration.lives import begin, ended, ends_as, finish, live, pause, rest, spec_of, train, until
from tests.integration.operators import operator
from tests.integration.played import play

pytestmark = [pytest.mark.integration, pytest.mark.long]

NAMESPACE = "replicas"
LEASE_SECONDS = 3
"""A fifth of the real one, and so is all that follows from it."""
VARIABLES = {
    "LARGEFORGE_NAMESPACES": NAMESPACE,
    "LARGEFORGE_OPERATOR_NAMESPACE": NAMESPACE,
    "LARGEFORGE_LEASE_NAME": "largeforge-operator",
    "LARGEFORGE_LEASE_SECONDS": str(LEASE_SECONDS),
}


@pytest.fixture(scope="module")
def kubeconfig(server):
    for words in (("namespace", NAMESPACE), ("serviceaccount", "default", "-n", NAMESPACE)):
        assert server.kubectl("create", *words).returncode == 0
    return server.kubeconfig


class Replica:
    """An operator behind a proxy of its own, which knows what this one wrote."""

    def __init__(self, running, between):
        self.name, self.running, self.between = running.name, running, between

    async def says(self, *texts):
        """Wait until its log has one of *texts*."""

        async def said():
            return any(text in self.running.log() for text in texts)

        await until(said, self._log)

    async def ends(self, code):
        async def ended():
            return self.running.process.poll() is not None

        await until(ended, self._log)
        assert self.running.process.returncode == code, self.running.log()

    async def answers(self, path):
        """What it answers on its port of probes; None where nobody listens."""
        try:
            url = f"http://127.0.0.1:{self.running.port}{path}"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return await answer.text() if answer.status == 200 else None
        except aiohttp.ClientConnectionError:
            return None

    async def acts(self):
        return "largeforge_operator_leader 1.0" in (await self.answers("/metrics") or "")

    async def _log(self):
        return self.running.log()


@pytest.fixture
async def start(kubeconfig, tmp_path):
    """Start a replica of a name; it is ready, whether it acts or not."""
    async with AsyncExitStack() as stack:

        async def begun(name):
            through = tmp_path / f"{name}-kubeconfig"
            between = await stack.enter_async_context(proxy(kubeconfig, through))
            variables = VARIABLES | {"LARGEFORGE_POD_NAME": name}
            found = Replica(stack.enter_context(operator(through, tmp_path, name, variables)), between)
            await found.says(f"{name} leads", f"{name} follows")

            async def ready():
                return await found.answers("/readyz") == "ok\n"

            await until(ready, found._log)
            return found

        yield begun


async def test_a_life_goes_on_when_the_acting_replica_is_killed_stopped_and_ended(kubeconfig, monkeypatch, start):
    first = await start("first")
    async with play(kubeconfig, monkeypatch, NAMESPACE, "quiet", **spec_of("quiet")) as job:
        await live(job)
        await rest(first.between)
        whole = await ended(job)

    second = await start("second")
    assert (await first.acts(), await second.acts()) == (True, False)
    async with play(kubeconfig, monkeypatch, NAMESPACE, "handed", **spec_of("handed")) as job:
        await begin(job)
        first.running.send(signal.SIGKILL)
        await train(job)
        assert await second.acts()

        third = await start("third")
        second.running.send(signal.SIGSTOP)
        stopped_at = len(second.between.writes)
        await pause(job)
        assert await third.acts()
        second.running.send(signal.SIGCONT)
        await second.ends(1)
        await second.says("third holds lease replicas/largeforge-operator now: this replica ends")
        # One may have been under way: it is the same as the third's, or is refused by its resourceVersion.
        assert len(second.between.writes) <= stopped_at + 1

        fourth = await start("fourth")
        third.running.send(signal.SIGTERM)
        await finish(job)
        await third.ends(0)
        await third.says("third has given up lease replicas/largeforge-operator")
        assert await fourth.acts()

        await ends_as(job, whole)
        made = sum((each.between.made for each in (first, second, third, fourth)), Counter())
        assert [name for name, times in made.items() if times > 1] == []
        assert await fourth.answers("/healthz") == "ok\n"
