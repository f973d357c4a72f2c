from __future__ import annotations

import json
from typing import Any

import pytest

from largeforge.router.clients import Clients
from tests.unit.router.lab import EXPERTS, KEY, Lab, chat, get, post, table_of
from tests.unit.router.test_table import ask, expert, refusal, table

OTHER = "other-key-0123456789"
THIRD = "third-key-0123456789"


def closed(name: str, *clients: str, **extra: Any):
    return expert(name, spec={"access": {"clients": list(clients)}}, **extra)


def listed(found: Any, client: str):
    return [card["id"] for card in json.loads(found.of(client).models)["data"]]


def test_an_expert_is_there_for_those_that_it_names_alone():
    found = table([closed("sql", "team"), expert("art")])
    assert ask(found, "sql").route.name == "sql"
    unknown = refusal(found, "nobody", client="other")
    hidden = refusal(found, "sql", client="other")
    assert (hidden.status, hidden.message) == (404, unknown.message.replace("nobody", "sql"))
    assert listed(found, "team") == ["auto", "art", "smol", "sql"]
    assert listed(found, "other") == listed(found, "") == ["auto", "art", "smol"]


def test_an_expert_that_names_nobody_is_there_for_all():
    found = table([expert("sql")])
    assert found.public is found.everything
    assert found.by_client == {}


@pytest.mark.parametrize("change", [{"ready": "False", "message": "secret plan"}, {"routing": {"enabled": False}}])
def test_an_expert_that_cannot_answer_is_hidden_like_one_that_can(change: dict[str, Any]):
    found = table([closed("sql", "team", **change)])
    assert refusal(found, "sql", client="other").message == "no ready expert named 'sql'; see GET /v1/models"
    assert refusal(found, "sql", client="team").message != "no ready expert named 'sql'; see GET /v1/models"


def test_auto_chooses_among_the_experts_that_the_client_may_use():
    keywords = {"keywords": [{"pattern": "sql"}, {"pattern": "join"}]}
    found = table([closed("best", "team", routing=keywords), expert("good", routing={"domains": ["sql"]})])
    assert ask(found, text="sql join", client="team").route.name == "best"
    assert ask(found, text="sql join", client="other").route.name == "good"


def test_the_fallback_is_the_oldest_that_the_client_may_use():
    found = table(
        [
            closed("first", "team", created="2026-01-02T00:00:00Z", routing={"fallback": True}),
            expert("second", created="2026-01-03T00:00:00Z", routing={"fallback": True}),
        ]
    )
    assert ask(found, client="team").route.name == "first"
    assert ask(found, client="other").route.name == "second"


def test_nothing_is_said_of_a_fallback_that_the_client_may_not_use():
    found = table([closed("first", "team", routing={"fallback": True}, ready="False", message="secret plan")])
    assert "secret plan" in refusal(found, client="team").message
    assert (refusal(found, client="other").status, "first" in refusal(found, client="other").message) == (404, False)


def test_clients_with_the_same_rights_share_a_view():
    found = table([closed("a", "x", "y"), closed("b", "x", "y", "z"), closed("c", "z")])
    assert found.of("x") is found.of("y")
    assert found.of("z") is not found.of("x")
    assert sorted(found.of("z").routes) == ["b", "c", "smol"]


def test_a_name_stays_the_older_objects_for_those_that_may_not_use_it():
    found = table([closed("smol", "team", created="2025-01-01T00:00:00Z")])
    assert ask(found, "smol", client="team").reason == "pinned"
    assert refusal(found, "smol", client="other").status == 404


async def two_clients(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine, clients=Clients({"team": [KEY], "other": [OTHER]}))
    experts = EXPERTS.replace("    routing: {keywords", "    access: {clients: [team]}\n    routing: {keywords")
    router.dispatcher.replace_table(table_of(engine.port, experts=experts))
    return engine, router


async def test_each_request_sees_what_its_client_may_use(lab: Lab):
    engine, router = await two_clients(lab)
    sonnet = chat("a sonnet, please")
    mine, theirs = await router.ask(post(sonnet)), await router.ask(post(sonnet, key=OTHER))
    assert mine.headers["x-largeforge-expert"] == "poetry"
    assert theirs.headers["x-largeforge-expert"] == "general"
    pinned = await router.ask(post(chat("hi", model="poetry"), key=OTHER))
    assert (pinned.status, json.loads(pinned.body)["error"]["code"]) == (404, "model_not_found")
    assert len(engine.received) == 2


async def test_lists_cards_and_explanations_leave_out_what_the_client_may_not_use(lab: Lab):
    _, router = await two_clients(lab)
    assert b"poetry" in (await router.ask(get(b"/v1/models"))).body
    assert b"poetry" not in (await router.ask(get(b"/v1/models", key=OTHER))).body
    assert (await router.ask(get(b"/v1/models/poetry"))).status == 200
    assert (await router.ask(get(b"/v1/models/poetry", key=OTHER))).status == 404
    found = await router.ask(post(chat("a sonnet"), path=b"/v1/route", key=OTHER))
    assert b"poetry" not in found.body
    assert json.loads(found.body)["expert"] == "general"
