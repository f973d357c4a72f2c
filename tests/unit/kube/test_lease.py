"""Several replicas and one Lease, in a time that the test makes."""

from __future__ import annotations

import asyncio
import copy
import heapq
import itertools

import pytest

from largeforge.kube.cluster import ClusterError, Conflict
from largeforge.kube.lease import LEASE_SECONDS, Lease, LeaseName, NotLeading
from largeforge.kube.transport import Missing

NAME = LeaseName("largeforge-system", "largeforge-operator")
TURNS = 30
"""Of the loop: more than any step of these tests needs."""


class Clock:
    """Time goes on when the test says so, and wakes who sleeps in order."""

    def __init__(self):
        self.now, self._sleepers, self._numbers, self._turn = 100.0, [], itertools.count(), asyncio.sleep

    async def sleep(self, seconds):
        waked = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), waked))
        await waked

    async def advance(self, seconds):
        end = self.now + seconds
        await self._run()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, waked = heapq.heappop(self._sleepers)
            if not waked.done():
                waked.set_result(None)
            await self._run()
        self.now = end

    async def _run(self):
        for _ in range(TURNS):
            await self._turn(0)


class Server:
    """One Lease, written upon its resourceVersion; it may be away, or lose an answer."""

    def __init__(self):
        self.lease, self.away, self.lose_answers, self.asked = None, False, 0, 0
        self._versions = itertools.count(1)

    async def call(self, request):
        self.asked += 1
        if self.away:
            raise ClusterError("connection refused")
        if request.method == "GET":
            if self.lease is None:
                raise Missing("not found")
            return copy.deepcopy(self.lease)
        held = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if request.body["metadata"].get("resourceVersion") != held:
            raise Conflict("the object has been modified")
        metadata = request.body["metadata"] | {"resourceVersion": str(next(self._versions))}
        self.lease = copy.deepcopy(request.body) | {"metadata": metadata}
        if self.lose_answers:
            self.lose_answers -= 1
            raise ClusterError("connection reset")
        return copy.deepcopy(self.lease)

    @property
    def spec(self):
        return self.lease["spec"]


class Replica:
    """A process that wants to lead."""

    def __init__(self, name, server, clock):
        self.lease = Lease(server.call, NAME, identity=name, clock=lambda: clock.now)
        self.follows = 0
        self.task = asyncio.create_task(self.run())

    async def run(self):
        await self.lease.acquire(self._follow)
        await self.lease.keep()

    def _follow(self):
        self.follows += 1

    def kill(self):
        self.task.cancel()

    def stopped(self):
        """As SIGSTOP: nothing of it runs; `run` as SIGCONT."""
        self.task.cancel()

    @property
    def acts(self):
        try:
            self.lease.check()
        except NotLeading:
            return False
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


@pytest.fixture
async def stage(clock):
    """A server, and what starts a replica; none is left running."""
    server, replicas = Server(), []

    def start(name):
        replicas.append(Replica(name, server, clock))
        return replicas[-1]

    yield server, start
    for replica in replicas:
        replica.kill()


async def test_the_first_leads_and_the_second_is_told_that_it_follows(stage, clock):
    server, start = stage
    first = start("first")
    await clock.advance(1)
    second = start("second")
    await clock.advance(120)
    assert (first.acts, second.acts, second.follows > 0) == (True, False, True)
    assert (server.spec["holderIdentity"], server.spec["leaseTransitions"]) == ("first", 0)


async def test_of_two_that_start_at_once_one_leads(stage, clock):
    server, start = stage
    replicas = [start("first"), start("second")]
    await clock.advance(5)
    assert [replica.acts for replica in replicas].count(True) == 1
    assert server.spec["leaseTransitions"] == 0


async def test_after_a_kill_the_next_leads_within_20_s_and_never_before_the_old_one_has_stopped(stage, clock):
    _, start = stage
    first = start("first")
    await clock.advance(1)
    second = start("second")
    await clock.advance(9.9)
    first.kill()
    killed = clock.now
    while not second.acts:
        await clock.advance(0.1)
        assert not (first.acts and second.acts)
    assert LEASE_SECONDS * 0.8 < clock.now - killed < 20


async def test_one_that_gives_up_is_followed_within_a_second(stage, clock):
    server, start = stage
    first = start("first")
    await clock.advance(1)
    second = start("second")
    await clock.advance(10)
    first.kill()
    await first.lease.release()
    assert (first.acts, server.spec.get("holderIdentity")) == (False, None)
    await clock.advance(1)
    assert (second.acts, server.spec["leaseTransitions"]) == (True, 1)


async def test_one_that_was_stopped_notices_before_it_writes_and_ends(stage, clock):
    server, start = stage
    first = start("first")
    await clock.advance(1)
    second = start("second")
    await clock.advance(10)
    first.stopped()
    await clock.advance(30)
    assert (first.acts, second.acts) == (False, True)
    going_on = asyncio.create_task(first.lease.keep())
    await clock.advance(5)
    with pytest.raises(NotLeading, match="second holds lease largeforge-system/largeforge-operator now"):
        await going_on
    await first.lease.release()
    assert server.spec["holderIdentity"] == "second", "what is another's is not given up"


async def test_an_api_server_that_was_away_finds_the_same_one_leading(stage, clock):
    server, start = stage
    first = start("first")
    await clock.advance(1)
    second = start("second")
    await clock.advance(10)
    server.away = True
    await clock.advance(30)
    assert (first.acts, second.acts) == (False, False), "nobody knows who leads"
    await clock.advance(270)
    server.away = False
    await clock.advance(5)
    assert (first.acts, second.acts, server.spec["leaseTransitions"]) == (True, False, 0)
    first.kill()
    await clock.advance(20)
    assert second.acts


async def test_an_answer_that_is_lost_is_no_lost_lease(stage, clock):
    server, start = stage
    server.lose_answers = 1
    first = start("first")
    await clock.advance(1)
    assert first.acts, "it has made the Lease, and hears of it by the next look"
    server.lose_answers = 3
    for _ in range(100):
        await clock.advance(0.2)
        assert first.acts
    assert server.spec["leaseTransitions"] == 0


async def test_a_container_that_starts_again_takes_its_lease_back_at_once(stage, clock):
    _, start = stage
    first = start("pod")
    await clock.advance(10)
    first.kill()
    again = start("pod")
    await clock.advance(0.1)
    assert again.acts


async def test_a_lease_that_somebody_deleted_is_made_anew(stage, clock):
    server, start = stage
    first = start("first")
    await clock.advance(10)
    server.lease = None
    await clock.advance(5)
    assert (first.acts, server.spec["holderIdentity"]) == (True, "first")


async def test_a_holder_that_says_how_long_it_may_be_silent_is_believed(stage, clock):
    server, start = stage
    server.lease = {
        "metadata": {"resourceVersion": "x"},
        "spec": {"holderIdentity": "slow", "leaseDurationSeconds": 60},
    }
    other = start("other")
    await clock.advance(59)
    assert not other.acts
    await clock.advance(3)
    assert other.acts


async def test_a_leader_asks_the_server_seldom(stage, clock):
    server, start = stage
    start("first")
    await clock.advance(10)
    server.asked = 0
    await clock.advance(60)
    assert server.asked <= 31
