from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from largeforge.router.limits import Gate
from largeforge.router.openai import ApiError
from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    EXPERTS,
    LAST,
    STREAM,
    Engine,
    Lab,
    Received,
    Router,
    answer,
    chunk,
    event,
    post,
    table_of,
    until,
)


class Waiter:
    def __init__(self) -> None:
        self.places = 0

    def admitted(self) -> None:
        self.places += 1


class Gates(RuleBasedStateMachine):
    """Requests come, wait, end and leave in any order, while the limit changes."""

    def __init__(self) -> None:
        super().__init__()
        self.most: int | None = 2
        self.gate = Gate("sql", 2, queue_length=3)
        self.inside: list[Waiter] = []
        self.waiting: list[Waiter] = []

    @rule()
    def one_comes(self) -> None:
        waiter = Waiter()
        full = self.most is not None and len(self.inside) >= self.most
        if full and len(self.waiting) == 3:
            with pytest.raises(ApiError):
                self.gate.enter(waiter, retry_after_seconds=5)
        elif self.gate.enter(waiter, retry_after_seconds=5):
            assert not full
            self.inside.append(waiter)
        else:
            assert full
            self.waiting.append(waiter)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.inside))
        self.inside.remove(waiter)
        self.gate.leave(waiter)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_waits_no_longer(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        self.gate.leave(waiter)

    @rule(most=st.none() | st.integers(1, 4))
    def the_limit_changes(self, most: int | None) -> None:
        self.most = most
        self.gate.resize(most)
        self.settle()

    def settle(self) -> None:
        """Whoever got a place waited longest."""
        while self.waiting and self.waiting[0].places:
            self.inside.append(self.waiting.pop(0))

    @invariant()
    def the_counts_are_right_and_nobody_waits_beside_a_free_place(self) -> None:
        assert (self.gate.under_way, self.gate.waiting) == (len(self.inside), len(self.waiting))
        assert all(waiter.places == 0 for waiter in self.waiting)
        assert not self.waiting or (self.most is not None and len(self.inside) >= self.most)


TestGates = Gates.TestCase
TestGates.settings = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def limited(text: str) -> str:
    return EXPERTS.replace("    routing: {fallback: true}", f"    routing: {{fallback: true}}\n    limits: {text}")


async def router_with(lab: Lab, engine: Engine, limits: str, **settings: Any) -> Router:
    router = await lab.router(engine, **settings)
    router.dispatcher.replace_table(table_of(engine.port, experts=limited(limits)))
    return router


class Held:
    """An engine's script that answers when told."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, received: Received) -> None:
        await asyncio.wait_for(self.release.wait(), 5)
        await answer(received)


def error(found: Any):
    return found.status, json.loads(found.body)["error"]["code"]


def waiting(router: Router):
    return router.dispatcher.gates.waiting["general"]


async def test_requests_beyond_the_limit_wait_for_a_place_and_are_answered(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 2}")
    raws = [await router.connect() for _ in range(5)]
    for raw in raws:
        await raw.send(post(CHAT))
    await engine.request(2)
    await until(lambda: waiting(router) == 3)
    assert len(engine.received) == 2
    held.release.set()
    assert [(await raw.answer()).status for raw in raws] == [200] * 5
    assert waiting(router) == 0


async def test_those_that_wait_come_in_the_order_of_their_arrival(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    raws = []
    for n in range(4):
        raw = await router.connect()
        await raw.send(post(CHAT.replace(b"hi", b"number %d" % n)))
        await until(lambda: len(engine.received) + waiting(router) == n + 1)  # noqa: B023 - it ends in this round
        raws.append(raw)
    held.release.set()
    for raw in raws:
        await raw.answer()
    assert [received.body.index(b"number %d" % n) > 0 for n, received in enumerate(engine.received)] == [True] * 4


async def test_a_full_queue_is_said_at_once_with_retry_after(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}", queue_length=1)
    raws = [await router.connect() for _ in range(2)]
    for raw in raws:
        await raw.send(post(CHAT))
    await until(lambda: waiting(router) == 1)
    found = await router.ask(post(CHAT))
    assert error(found) == (429, "rate_limit_exceeded")
    assert (found.headers["retry-after"], found.headers["x-largeforge-expert"]) == ("5", "general")
    assert "spec.limits.maxConcurrentRequests" in json.loads(found.body)["error"]["message"]
    held.release.set()
    assert [(await raw.answer()).status for raw in raws] == [200, 200]


async def test_who_waits_too_long_is_told_to_come_back(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}", queue_seconds=0.05)
    first = await router.connect()
    await first.send(post(CHAT))
    await engine.request()
    assert error(await router.ask(post(CHAT))) == (429, "rate_limit_exceeded")
    held.release.set()
    assert (await first.answer()).status == 200
    assert len(engine.received) == 1


async def test_a_client_that_leaves_the_queue_gives_up_its_turn_at_once(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    raws = [await router.connect() for _ in range(3)]
    for n, raw in enumerate(raws):
        await raw.send(post(CHAT))
        await until(lambda: len(engine.received) + waiting(router) == n + 1)  # noqa: B023 - it ends in this round
    raws[1].close()
    await until(lambda: waiting(router) == 1)
    held.release.set()
    assert [(await raws[0].answer()).status, (await raws[2].answer()).status] == [200, 200]
    assert len(engine.received) == 2


async def test_a_client_that_leaves_amid_its_answer_makes_room_for_the_next(lab: Lab):
    async def script(received: Received) -> None:
        await (received.gone() if len(engine.received) == 1 else answer(received))

    engine = await lab.engine(script)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    first, second = await router.connect(), await router.connect()
    await first.send(post(CHAT))
    await engine.request()
    await second.send(post(CHAT))
    await until(lambda: waiting(router) == 1)
    first.close()
    assert (await second.answer()).status == 200


async def test_an_expert_without_a_limit_is_not_held_up_by_another(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    for _ in range(2):
        await (await router.connect()).send(post(CHAT))
    await until(lambda: waiting(router) == 1)
    await (await router.connect()).send(post(CHAT.replace(b"auto", b"poetry")))
    await engine.request(2)
    held.release.set()


async def test_a_limit_that_is_raised_lets_in_who_waits_and_one_that_is_removed_all(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    raws = [await router.connect() for _ in range(4)]
    for raw in raws:
        await raw.send(post(CHAT))
    await until(lambda: waiting(router) == 3)
    router.dispatcher.replace_table(table_of(engine.port, experts=limited("{maxConcurrentRequests: 2}")))
    await engine.request(2)
    assert waiting(router) == 2
    router.dispatcher.replace_table(table_of(engine.port))
    await engine.request(4)
    held.release.set()
    assert [(await raw.answer()).status for raw in raws] == [200] * 4
    router.dispatcher.replace_table(table_of(engine.port))
    assert router.dispatcher.gates.waiting == {}


async def test_who_waited_is_sent_where_the_table_of_then_says(lab: Lab):
    held = Held()
    old, new = await lab.engine(held), await lab.engine()
    router = await router_with(lab, old, "{maxConcurrentRequests: 1}")
    first, second = await router.connect(), await router.connect()
    await first.send(post(CHAT))
    await old.request()
    await second.send(post(CHAT))
    await until(lambda: waiting(router) == 1)
    renamed = limited("{maxConcurrentRequests: 1}").replace(
        "  metadata: {name: general}",
        "  metadata: {name: general}\n"
        "  status: {placement: {engineName: general-v2, desired: 1, loaded: 1, summary: 1/1}}",
    )
    router.dispatcher.replace_table(table_of(new.port, experts=renamed))
    held.release.set()
    assert [(await first.answer()).status, (await second.answer()).status] == [200, 200]
    assert json.loads(new.received[0].body)["model"] == "general-v2"


async def test_who_waited_for_an_expert_that_has_gone_is_told_to_come_back(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    first, second = await router.connect(), await router.connect()
    await first.send(post(CHAT))
    await engine.request()
    await second.send(post(CHAT))
    await until(lambda: waiting(router) == 1)
    router.dispatcher.replace_table(table_of(engine.port, experts=EXPERTS[: EXPERTS.rindex("- kind: Expert")]))
    assert error(await second.answer()) == (503, "engine_unavailable")
    held.release.set()
    assert (await first.answer()).status == 200


async def test_those_that_wait_are_answered_before_the_router_ends(lab: Lab):
    held = Held()
    engine = await lab.engine(held)
    router = await router_with(lab, engine, "{maxConcurrentRequests: 1}")
    raws = [await router.connect() for _ in range(3)]
    for raw in raws:
        await raw.send(post(CHAT_STREAM))
    await until(lambda: waiting(router) == 2)
    draining = asyncio.create_task(router.dispatcher.drain(5))
    await until(lambda: router.dispatcher.draining)
    held.release.set()
    assert [(await raw.answer()).raw.endswith(LAST) for raw in raws] == [True] * 3
    await draining


# Time


async def test_an_answer_that_has_not_begun_in_the_experts_time_is_an_error(lab: Lab):
    engine = await lab.engine(Received.gone)
    router = await router_with(lab, engine, "{timeoutSeconds: 1}")
    found = await router.ask(post(CHAT))
    assert error(found) == (504, "request_timeout")
    assert "spec.limits.timeoutSeconds" in json.loads(found.body)["error"]["message"]
    await until(lambda: not engine.open)


async def test_an_answer_that_has_not_ended_in_the_experts_time_is_cut(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await received.gone()

    engine = await lab.engine(script)
    router = await router_with(lab, engine, "{timeoutSeconds: 1}")
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    got = await raw.rest()
    assert got.endswith(chunk(event("a")))  # without the last chunk
    await until(lambda: not engine.open)
    assert router.outcomes() == {("general", "fallback", "cut"): 1}


async def test_the_time_in_the_queue_counts(lab: Lab):
    engine = await lab.engine(Received.gone)
    router = await router_with(lab, engine, "{timeoutSeconds: 1, maxConcurrentRequests: 1}")
    raws = [await router.connect() for _ in range(2)]
    for raw in raws:
        await raw.send(post(CHAT))
    assert [error(await raw.answer()) for raw in raws] == [(504, "request_timeout")] * 2
    assert len(engine.received) <= 2


async def test_an_expert_in_time_is_not_cut(lab: Lab):
    engine = await lab.engine()
    router = await router_with(lab, engine, "{timeoutSeconds: 60}", chunk_idle_seconds=1)
    assert (await router.ask(post(CHAT_STREAM))).body.endswith(LAST)
