from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from largeforge.api.keys import report_token
from largeforge.api.names import ROUTER_LABEL
from largeforge.api.routerreport import RouterReport
from largeforge.controllers.enginehttp import connect_session
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.routerreports import HttpAsk, NoRouter, Poller, RouterReports
from largeforge.controllers.workqueue import Key
from tests.unit.fakes import FakeCluster
from tests.unit.serving import MASTER_KEY, NAMESPACE, expert_manifest, metadata

HOST = "127.0.0.1"
TOKEN = report_token(namespace_key(MASTER_KEY, NAMESPACE))


def router(name="forge-report", *, port=8081, address=HOST, **changes):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, labels={ROUTER_LABEL: "forge"}) | changes,
        "spec": {"clusterIP": address, "ports": [{"name": "report", "port": port}]},
    }


def told(**accuracies):
    experts = [
        {"name": name, "generation": 1, "routing": {"examples": 5, "selfAccuracy": accuracy}}
        for name, accuracy in accuracies.items()
    ]
    return RouterReport.model_validate({"experts": experts})


class Routers:
    """What each router's Service answers."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    async def __call__(self, service, token):
        self.asked.append((service["metadata"]["name"], token))
        return self.answers[service["metadata"]["name"]]


@pytest.fixture
def woken():
    return []


def poller(woken, *objects, ask=None, namespaces=()):
    return Poller(RouterReports(), FakeCluster(*objects), ask or Routers(), woken.append, MASTER_KEY, namespaces)


async def test_a_report_is_read_with_the_namespaces_token_and_wakes_its_experts(woken):
    routers = Routers(**{"forge-report": told(sql=0.9)})
    polling = poller(woken, router(), expert_manifest(), expert_manifest("other"), ask=routers)
    await polling.refresh()
    assert routers.asked == [("forge-report", TOKEN)]
    assert polling.reports.of(NAMESPACE, "sql").routing.self_accuracy == 0.9
    assert polling.reports.of(NAMESPACE, "other") is None
    assert sorted(woken) == [Key(NAMESPACE, "other"), Key(NAMESPACE, "sql")]


async def test_only_what_is_new_wakes(woken):
    routers = Routers(**{"forge-report": told(sql=0.9, other=1)})
    polling = poller(woken, router(), expert_manifest(), expert_manifest("other"), ask=routers)
    await polling.refresh()
    woken.clear()
    await polling.refresh()
    assert woken == []
    routers.answers["forge-report"] = told(sql=0.8, other=1)
    await polling.refresh()
    assert woken == [Key(NAMESPACE, "sql")]


async def test_a_namespace_without_a_router_is_said_once(woken):
    polling = poller(woken, expert_manifest())
    await polling.refresh()
    assert polling.reports.of(NAMESPACE, "sql") == NoRouter()
    assert woken == [Key(NAMESPACE, "sql")]
    await polling.refresh()
    assert len(woken) == 1


async def test_the_second_router_is_asked_where_the_first_is_silent(woken):
    routers = Routers(**{"a-report": None, "b-report": told(sql=1)})
    polling = poller(woken, router("a-report"), router("b-report"), expert_manifest(), ask=routers)
    await polling.refresh()
    assert [name for name, _ in routers.asked] == ["a-report", "b-report"]
    assert polling.reports.of(NAMESPACE, "sql").routing.self_accuracy == 1


async def test_a_silent_router_changes_nothing(woken):
    routers = Routers(**{"forge-report": told(sql=0.9)})
    polling = poller(woken, router(), expert_manifest(), ask=routers)
    await polling.refresh()
    routers.answers["forge-report"] = None
    woken.clear()
    await polling.refresh()
    assert polling.reports.of(NAMESPACE, "sql").routing.self_accuracy == 0.9
    assert woken == []


async def test_services_without_the_label_and_of_other_namespaces_are_nobodys_router(woken):
    plain = router("plain") | {"metadata": metadata("plain")}
    elsewhere = router("elsewhere", namespace="another")
    routers = Routers()
    polling = poller(woken, plain, elsewhere, expert_manifest(), ask=routers)
    await polling.refresh()
    assert routers.asked == []
    assert polling.reports.of(NAMESPACE, "sql") == NoRouter()


@asynccontextmanager
async def serving(handler):
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def asked(handler, **changes):
    async with serving(handler) as port, connect_session() as session:
        return await HttpAsk(session)(router(port=port, **changes), TOKEN)


async def test_the_token_travels_as_a_bearer():
    seen = []

    async def answer(request):
        seen.append((request.path, request.headers["authorization"]))
        return web.json_response(told(sql=1).manifest())

    assert await asked(answer) == told(sql=1)
    assert seen == [("/report", f"Bearer {TOKEN}")]


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=401),
        web.Response(text="{"),
        web.json_response({"experts": 3}),
        web.Response(status=302, headers={"location": "http://elsewhere.example/"}),
    ],
)
async def test_what_is_no_report_is_none(answer):
    async def handler(_):
        return answer

    assert await asked(handler) is None


async def test_a_service_without_an_address_is_not_asked():
    async with connect_session() as session:
        ask = HttpAsk(session)
        assert await ask(router(address="None"), TOKEN) is None
        assert await ask(router() | {"spec": {"clusterIP": HOST, "ports": []}}, TOKEN) is None
        assert await ask(router(port=1), TOKEN) is None
