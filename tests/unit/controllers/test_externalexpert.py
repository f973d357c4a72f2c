"""An Expert of type External, and what routers report of the others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from largeforge.api.routerreport import RouterReport
from largeforge.controllers.routerreports import NoRouter
from tests.unit.serving import NAMESPACE, World, complete_job, expert_manifest, metadata, pod_manifest, service_manifest
from tests.unit.training import NOW

URL = "https://llm.example.com"


def external(**spec):
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": metadata("cloud"),
        "spec": {"type": "External", "endpoint": {"url": URL}} | spec,
    }


@pytest.fixture
def world():
    return World(external())


def report(world, name="cloud", *, generation=1, **parts):
    told = {"experts": [{"name": name, "generation": generation} | parts]}
    return world.reports.take(NAMESPACE, RouterReport.model_validate(told))


def probed(*, ok=True, message="", time=NOW):
    return {"ok": ok, "message": message, "time": time.isoformat()}


def said(world, kind="Ready", name="cloud"):
    return world.said(world.expert(name), kind)


async def test_an_endpoint_that_answered_the_router_is_ready(world):
    report(world, probe=probed())
    await world.look()
    assert said(world) == ("True", "Ready", "its endpoint answered the router")
    assert said(world, "Probed")[:2] == ("True", "Probed")
    status = world.expert("cloud").status
    assert (status.endpoint, status.source, status.placement) == (URL, URL, None)
    assert status.last_probe_time == NOW
    assert world.engines.take() == []


async def test_every_condition_is_said_at_first_sight(world):
    await world.look()
    kinds = {c.type: c.status for c in world.expert("cloud").status.conditions}
    assert kinds == {
        "ArtifactResolved": "True",
        "Compatible": "True",
        "Loaded": "True",
        "Probed": "Unknown",
        "Distinct": "Unknown",
        "Ready": "False",
    }
    assert said(world) == ("False", "Pending", "no router has asked it yet")


async def test_no_router_is_said(world):
    world.reports.take(NAMESPACE, NoRouter())
    await world.look()
    assert said(world)[:2] == ("False", "NoRouter")
    assert said(world, "Distinct")[:2] == ("Unknown", "NoRouter")


async def test_an_endpoint_that_fails_is_said_in_the_routers_words(world):
    report(world, probe=probed(ok=False, message="401: no valid key; add entry 'cloud' to the Secret"))
    await world.look()
    assert said(world)[:2] == ("False", "ProbeFailed")
    assert "add entry 'cloud' to the Secret" in said(world)[2]
    assert world.expert("cloud").status.endpoint is None


async def test_a_router_that_does_not_answer_changes_nothing(world):
    report(world, probe=probed())
    await world.look()
    assert world.reports.take(NAMESPACE, None) == []
    await world.look()
    assert said(world)[:2] == ("True", "Ready")


async def test_a_report_of_an_older_spec_proves_nothing_of_the_new_one(world):
    report(world, probe=probed())
    await world.look()
    world.edit("experts", "cloud", endpoint={"url": "https://other.example.com"})
    await world.look()
    assert said(world)[:2] == ("False", "Pending")
    report(world, generation=2, probe=probed())
    await world.look()
    assert said(world)[:2] == ("True", "Ready")


async def test_a_probe_each_minute_writes_nothing(world):
    report(world, probe=probed())
    await world.look()
    before = len(world.cluster.writes)
    assert report(world, probe=probed(time=NOW + timedelta(minutes=1))) == []
    await world.look()
    assert len(world.cluster.writes) == before
    report(world, probe=probed(time=NOW + timedelta(minutes=11)))
    await world.look()
    assert world.expert("cloud").status.last_probe_time == NOW + timedelta(minutes=11)


async def test_an_archived_one_is_not_ready(world):
    world.edit("experts", "cloud", stage="Archived")
    report(world, generation=2, probe=probed())
    await world.look()
    assert said(world)[:2] == ("False", "Archived")


async def test_a_service_of_its_name_that_is_older_holds_the_name(world):
    world.cluster.put(service_manifest("cloud", created=NOW - timedelta(hours=1)))
    report(world, probe=probed())
    await world.look()
    assert said(world)[:2] == ("False", "NameTaken")


@pytest.fixture
def adapter():
    return World(service_manifest(), complete_job(), expert_manifest(), pod_manifest())


def learnt(**fields):
    return {"examples": 10, "selfAccuracy": 0.95} | fields


async def test_examples_that_are_its_own_make_it_distinct(adapter):
    report(adapter, "sql", routing=learnt())
    await adapter.look()
    assert said(adapter, "Distinct", "sql") == ("True", "Distinct", "95% of its 10 examples are taken for its own")
    routing = adapter.expert().status.routing
    assert (routing.examples, routing.self_accuracy) == (10, "0.95")


async def test_examples_that_others_would_get_are_said_and_do_not_hold_it_back(adapter):
    overlap = {"expert": "general", "examples": 4, "example": "Which customers"}
    report(adapter, "sql", routing=learnt(selfAccuracy=0.6, overlaps=[overlap], message="give ten more"))
    await adapter.look()
    status, reason, message = said(adapter, "Distinct", "sql")
    assert (status, reason) == ("False", "Overlaps")
    assert message.startswith("60% of its 10 examples are taken for its own, 4 for 'general'; ")
    assert message.endswith("; give ten more")
    assert adapter.expert().status.routing.overlaps[0].example == "Which customers"
    assert said(adapter, "Ready", "sql")[:2] == ("True", "Ready")


async def test_an_expert_without_examples_is_neither(adapter):
    report(adapter, "sql", routing={"examples": 0})
    await adapter.look()
    assert said(adapter, "Distinct", "sql")[:2] == ("Unknown", "NoExamples")


async def test_what_was_learnt_stays_until_the_router_has_learnt_anew(adapter):
    report(adapter, "sql", routing=learnt())
    await adapter.look()
    adapter.edit("experts", "sql", version="2")
    await adapter.look()
    assert said(adapter, "Distinct", "sql")[:2] == ("True", "Distinct")
    assert adapter.expert().status.routing.examples == 10


async def test_a_router_that_goes_takes_its_word_with_it(adapter):
    report(adapter, "sql", routing=learnt())
    await adapter.look()
    assert adapter.reports.take(NAMESPACE, NoRouter()) == ["sql"]
    await adapter.look()
    assert said(adapter, "Distinct", "sql")[:2] == ("Unknown", "NoRouter")
    assert adapter.expert().status.routing is None
