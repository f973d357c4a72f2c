"""How many connections and requests are let in, and that who is slow or silent hurts nobody else."""

from __future__ import annotations

import asyncio
import json

import pytest

from largeforge.router.admission import TURNED_AWAY, Connections, Quota
from largeforge.router.clients import Clients
from largeforge.router.openai import ApiError
from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    KEY,
    LAST,
    STREAM,
    Answer,
    Lab,
    Raw,
    Received,
    Router,
    chunk,
    event,
    get,
    post,
    until,
)

OTHER = "other-key-0123456789"
TWO = {"team": [KEY], "lab": [OTHER]}


class Guest:
    def __init__(self) -> None:
        self.idle = False
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_who_never_showed_a_key_makes_room_the_oldest_first():
    connections = Connections(3)
    known, _, second, third = guests = [Guest() for _ in range(4)]
    assert all(connections.opened(guest) for guest in guests[:3])
    connections.known(known)
    assert connections.opened(third)
    assert [guest.aborted for guest in guests] == [False, True, False, False]
    assert set(connections) == {known, second, third}


def test_then_one_that_lies_idle_makes_room():
    connections = Connections(2)
    busy, idle, new = Guest(), Guest(), Guest()
    for guest in (busy, idle):
        connections.opened(guest)
        connections.known(guest)
    idle.idle = True
    assert connections.opened(new)
    assert (busy.aborted, idle.aborted, len(connections)) == (False, True, 2)


def test_where_all_are_busy_a_newcomer_is_turned_away_and_few_of_those_are_kept():
    connections = Connections(1)
    busy = Guest()
    connections.opened(busy)
    connections.known(busy)
    newcomers = [Guest() for _ in range(TURNED_AWAY + 1)]
    assert not any(connections.opened(guest) for guest in newcomers)
    assert (len(connections), len(list(connections))) == (1, 1 + TURNED_AWAY)
    assert [guest.aborted for guest in newcomers] == [True] + [False] * TURNED_AWAY
    for guest in (busy, *newcomers):
        connections.closed(guest)
    assert list(connections) == []


def test_a_quota_counts_each_client_for_itself_and_keeps_nothing_of_who_left():
    quota = Quota(2, retry_after_seconds=7)
    for client in ("a", "a", "b"):
        quota.enter(client)
    with pytest.raises(ApiError, match="client 'a' has 2 requests under way") as caught:
        quota.enter("a")
    assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "7"})
    for client in ("a", "b", "a"):
        quota.leave(client)
    assert quota.under_way == {}


# Over the wire


async def held(received: Received) -> None:
    await received.send(STREAM + chunk(event("a")))
    await received.gone()


async def streams(router: Router, count: int, key: str = KEY) -> list[Raw]:
    raws = [await router.connect() for _ in range(count)]
    for raw in raws:
        await raw.send(post(CHAT_STREAM, key=key))
        await raw.until(event("a"))
    return raws


async def refused(router: Router, request: bytes) -> Answer:
    raw = await router.connect()
    await raw.send(request)
    return Answer(await raw.rest())


async def test_a_client_with_too_many_requests_is_told_to_wait_and_others_are_not(lab: Lab):
    router = await lab.router(await lab.engine(held), clients=Clients(TWO), max_requests_per_client=3)
    raws = await streams(router, 3)
    for request in (post(CHAT), get(b"/v1/models")):
        found = await refused(router, request)
        body = json.loads(found.body)["error"]
        assert (found.status, body["code"], body["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
        assert found.headers["retry-after"] == "5"
        assert "client 'team' has 3 requests" in body["message"]
    await streams(router, 1, OTHER)
    raws[0].close()
    await until(lambda: router.dispatcher.quota.under_way["team"] == 2)
    await streams(router, 1)


async def test_a_request_that_is_still_being_sent_counts(lab: Lab):
    router = await lab.router(await lab.engine(), max_requests_per_client=2)
    for _ in range(2):
        await (await router.connect()).send(post(CHAT)[:-3])
    await until(lambda: router.dispatcher.quota.under_way == {"team": 2})
    assert (await refused(router, post(CHAT))).status == 429


async def test_requests_on_one_connection_never_count_twice_whatever_becomes_of_them(lab: Lab):
    router = await lab.router(await lab.engine(), max_requests_per_client=1)
    raw = await router.connect()
    many = [post(CHAT), get(b"/v1/nothing"), post(b"{"), get(b"/v1/models"), post(CHAT_STREAM)]
    for request in many * 3:
        await raw.send(request)
        assert (await raw.answer()).status in (200, 400, 404)
    await raw.send(b"".join(many))
    for _ in many:
        await raw.answer()
    await until(lambda: router.dispatcher.quota.under_way == {})


async def test_a_wrong_key_takes_nothing_from_a_quota(lab: Lab):
    router = await lab.router(await lab.engine(), max_requests_per_client=1)
    for _ in range(3):
        assert (await refused(router, post(CHAT, key="wrong-key-0123456789"))).status == 401
    assert router.dispatcher.quota.under_way == {}


async def test_a_connection_too_many_is_told_so_and_served_when_there_is_room(lab: Lab):
    router = await lab.router(await lab.engine(held), max_connections=2)
    raws = await streams(router, 2)
    found = await refused(router, post(CHAT))
    assert (found.status, json.loads(found.body)["error"]["code"]) == (503, "too_many_connections")
    assert (found.headers["retry-after"], found.headers["connection"]) == ("5", "close")
    assert router.outcomes()[("", "refused", "503")] == 1
    raws[0].close()
    await until(lambda: len(router.dispatcher.connections) == 1)
    await streams(router, 1)


async def test_silent_connections_make_room_for_who_has_a_key(lab: Lab):
    router = await lab.router(await lab.engine(), max_connections=10)
    silent = [await router.connect() for _ in range(10)]
    await until(lambda: len(router.dispatcher.connections) == 10)
    for _ in range(3):
        assert (await router.ask(post(CHAT))).status == 200
    assert len(router.dispatcher.connections) == 10
    assert await silent[0].rest() == b""


async def test_two_hundred_slow_and_silent_clients_do_not_hurt_a_good_one(lab: Lab):
    router = await lab.router(await lab.engine(), head_seconds=1, body_idle_seconds=1)
    beginnings = (b"", b"POST /v1/chat/comp", post(CHAT)[:-9], post(CHAT, key="wrong-key-0123456789")[:60])
    slow = [await router.connect() for _ in range(200)]
    for number, raw in enumerate(slow):
        await raw.send(beginnings[number % len(beginnings)])
    drip = asyncio.create_task(drop_by_drop(slow[1::4]))
    good = await router.connect()
    for _ in range(100):
        await good.send(post(CHAT_STREAM))
        assert (await good.answer()).body.endswith(LAST)
    await until(lambda: len(router.dispatcher.connections) == 1)  # each was ended by its time
    drip.cancel()


async def drop_by_drop(raws: list[Raw]) -> None:
    while True:
        for raw in raws:
            if not raw.writer.is_closing():
                raw.writer.write(b"x")
        await asyncio.sleep(0.05)


async def test_a_wrong_key_is_refused_before_a_body_is_sent(lab: Lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    head = post(CHAT, key="wrong-key-0123456789")[: -len(CHAT)]
    await raw.send(head.replace(b"%d\r\n" % len(CHAT), b"4000000\r\n"))
    assert Answer(await raw.rest()).status == 401
