"""Experts of type External: who may be asked, what a request to one looks like, and what of its answer comes back."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from largeforge.router import external, table_file
from largeforge.router.endpoints import Pod
from largeforge.router.external import ExternalError, Externals
from largeforge.router.table import build
from tests.unit.router.authority import Authority
from tests.unit.router.lab import (
    CHAT_STREAM,
    ENGINE_KEY,
    KEY,
    LAST,
    STREAM,
    Answer,
    Engine,
    Lab,
    Received,
    Router,
    chunk,
    completion,
    event,
    post,
    until,
    whole,
)
from tests.unit.router.test_table import expert, service

HOST = "localhost"
FOREIGN_KEY = "sk-foreign-0123456789"


def outside(name: str = "gpt", url: str = "https://api.example/openai", **more: Any):
    """An Expert of type External that the operator has found ready."""
    spec = {
        "type": "External",
        "sourceRef": None,
        "inferenceServiceRef": None,
        "endpoint": {"url": url, **more.pop("endpoint", {})},
        **more.pop("spec", {}),
    }
    return expert(name, spec=spec, **more)


def allowed(*hosts: str, **more: Any) -> Externals:
    return Externals(hosts, **more)


def table_of(*experts: Any, externals: Externals | None = None):
    return build(experts, [service()], [], lambda _: ENGINE_KEY, externals)


# Who may be asked


def test_without_a_list_no_host_may_be_asked_and_the_report_says_so():
    found = table_of(outside())
    assert found.routes == {}
    assert found.externals == {}
    assert found.refused == {"gpt": found.unready["gpt"]}
    assert found.refused["gpt"] == (
        "host 'api.example' of spec.endpoint.url is not allowed; add it to the chart's value router.externalHosts,"
        " or name another server"
    )


@pytest.mark.parametrize(
    ("host", "pattern", "routes"),
    [
        ("api.example", "api.example", {"gpt"}),
        ("API.example", "api.EXAMPLE", {"gpt"}),
        ("api.example", "*.example", {"gpt"}),
        ("a.b.example", "*.example", {"gpt"}),
        ("example", "*.example", set()),
        ("notexample", "*.example", set()),
        ("api.example.evil", "api.example", set()),
        ("evil-api.example", "api.example", set()),
    ],
)
def test_a_host_is_allowed_by_its_name_or_by_what_it_lies_below(host: str, pattern: str, routes: set[str]):
    found = table_of(outside(url=f"https://{host}"), externals=allowed(pattern))
    assert set(found.routes) == routes


@pytest.mark.parametrize(
    ("url", "pod", "origin", "prefix"),
    [
        ("https://api.example", Pod("api.example", 443, external=True, tls=True), "https://api.example", b""),
        ("https://api.example/", Pod("api.example", 443, external=True, tls=True), "https://api.example", b""),
        (
            "https://api.example:8443/a/b",
            Pod("api.example", 8443, external=True, tls=True),
            "https://api.example:8443",
            b"/a/b",
        ),
        ("http://api.example", Pod("api.example", 80, external=True), "http://api.example", b""),
        ("http://api.example:8000", Pod("api.example", 8000, external=True), "http://api.example:8000", b""),
    ],
)
def test_an_address_is_taken_apart(url: str, pod: Pod, origin: str, prefix: bytes):
    item = outside(generation=3)
    found = allowed("api.example").of(item, item.spec.endpoint.model_copy(update={"url": url}))
    assert (found.pod, found.origin, found.prefix, found.generation) == (pod, origin, prefix, 3)


def test_a_port_that_cannot_be_is_told():
    item = outside(url="https://api.example:99999")
    with pytest.raises(ExternalError, match=r"spec.endpoint.url: write .* \(got 'https://api.example:99999'\)"):
        allowed("api.example").of(item, item.spec.endpoint)


@pytest.mark.parametrize("key", ["a b", "a\nInjected: yes", "key\x7f", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(key: str):
    found = table_of(outside(), externals=allowed("api.example", keys={"gpt": key}))
    assert "entry 'gpt' of the Secret" in found.refused["gpt"]
    assert key not in found.refused["gpt"]


def test_keys_are_read_by_the_experts_name_and_shown_nowhere(tmp_path: Path):
    (tmp_path / "gpt").write_text(f"{FOREIGN_KEY}\n")
    keys = external.read_keys(tmp_path)
    assert keys == {"gpt": FOREIGN_KEY}
    item = outside()
    assert FOREIGN_KEY not in repr(allowed("api.example", keys=keys).of(item, item.spec.endpoint))
    assert external.read_keys(None) == {}
    assert external.read_keys(tmp_path / "none") == {}


# When it is routed


def test_an_endpoint_is_asked_for_its_model_by_the_configured_name_or_the_experts():
    def model(**endpoint: Any):
        return table_of(outside(endpoint=endpoint), externals=allowed("api.example")).routes["gpt"].model

    assert model() == b'"gpt"'
    assert model(model="org/big-1") == b'"org/big-1"'


def test_one_that_the_operator_has_not_found_ready_is_probed_and_not_routed():
    item = outside(ready="False", message="the router has not reported yet")
    found = table_of(item, externals=allowed("api.example"))
    assert found.unready == {"gpt": "the router has not reported yet"}
    assert set(found.externals) == {"gpt"}


def test_one_that_this_router_has_not_found_answering_is_not_routed():
    found = table_of(outside(), externals=allowed("api.example", problem=lambda found: f"{found.origin} is silent"))
    assert found.unready == {"gpt": "https://api.example is silent"}
    assert set(found.externals) == {"gpt"}


def test_one_that_is_disabled_is_neither_asked_nor_routed():
    found = table_of(outside(routing={"enabled": False}), externals=allowed("api.example"))
    assert (found.externals, found.refused, found.routes) == ({}, {}, {})


def test_a_table_with_other_generations_is_another_one():
    externals = allowed("api.example")
    assert table_of(outside(generation=1), externals=externals) != table_of(outside(generation=2), externals=externals)


# What it gets, and what comes back


def listed(port: int, *, scheme: str = "https", **endpoint: Any) -> list[dict[str, Any]]:
    """A table's file with it as the fallback."""
    url = f"{scheme}://{HOST}:{port}{endpoint.pop('path', '')}"
    spec = {"type": "External", "endpoint": {"url": url, **endpoint}, "routing": {"fallback": True}}
    return [{"kind": "Expert", "metadata": {"name": "gpt"}, "spec": spec}]


async def routed(lab: Lab, engine: Engine, *, trust: ssl.SSLContext | None = None, **endpoint: Any) -> Router:
    router = await lab.router(trust=trust)
    scheme = "https" if trust is not None else "http"
    externals = allowed(HOST, keys={"gpt": FOREIGN_KEY})
    router.dispatcher.replace_table(table_file.table(listed(engine.port, scheme=scheme, **endpoint), externals))
    return router


async def over_tls(lab: Lab, folder: Path, script: Any = None) -> tuple[Engine, Router]:
    authority = Authority(folder)
    engine = await lab.engine(**({"script": script} if script else {}), context=authority.server(HOST))
    return engine, await routed(lab, engine, trust=external.trust(authority.file))


async def test_a_request_goes_there_over_tls_with_its_own_key_and_model(lab: Lab, tmp_path: Path):
    engine, router = await over_tls(lab, tmp_path)
    found = await router.ask(post(b'{"model": "gpt", "messages": [{"role":"user","content":"hi"}], "n" : 1}'))
    assert (found.status, found.body) == (200, completion())
    assert found.headers["x-largeforge-expert"] == "gpt"
    (received,) = engine.received
    assert received.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert received.headers["authorization"] == f"Bearer {FOREIGN_KEY}"
    assert received.headers["host"] == f"{HOST}:{engine.port}"
    assert received.body == b'{"model": "gpt", "messages": [{"role":"user","content":"hi"}], "n" : 1}'


async def test_a_path_before_v1_and_another_model_name_are_put_in(lab: Lab):
    engine = await lab.engine()
    router = await routed(lab, engine, path="/team/openai", model="org/big-1")
    for path in (b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/embeddings"):
        assert (await router.ask(post(b'{"model":"gpt","input":"x"}', path=path))).status == 200
        received = engine.received[-1]
        assert received.head.startswith(b"POST /team/openai%b HTTP/1.1\r\n" % path)
        assert json.loads(received.body)["model"] == "org/big-1"


async def test_streams_come_byte_for_byte_and_connections_are_kept(lab: Lab, tmp_path: Path):
    engine, router = await over_tls(lab, tmp_path)
    raw = await router.connect()
    for _ in range(3):
        await raw.send(post(CHAT_STREAM))
        assert (await raw.answer()).body == chunk(event("Hel")) + chunk(event("lo")) + chunk(b"data: [DONE]\n\n") + LAST
    assert engine.connections == 1


async def test_of_a_clients_headers_only_those_of_a_request_leave_the_cluster(lab: Lab):
    engine = await lab.engine()
    router = await routed(lab, engine)
    sent = (
        b"Accept: text/event-stream\r\nUser-Agent: x\r\nOpenAI-Beta: y\r\nX-Team-Secret: s\r\nCookie: c\r\n"
        b"X-Request-Id: r\r\nTraceparent: t\r\nOpenAI-Organization: theirs\r\nOpenAI-Project: theirs\r\n"
        b"X-Api-Key: k\r\nX-LargeForge-Expert: e\r\nConnection: X-Hop\r\nX-Hop: h\r\n"
    )
    await router.ask(post(b'{"model":"gpt"}', headers=sent))
    assert set(engine.received[0].headers) == {
        *("host", "authorization", "content-length", "content-type"),
        *("accept", "user-agent", "openai-beta"),
    }
    assert KEY not in engine.received[0].head.decode()


async def test_what_a_server_outside_says_of_browsers_and_accounts_does_not_come_back(lab: Lab):
    head = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nAlt-Svc: h3\r\nStrict-Transport-Security: x\r\n"
        b"OpenAI-Organization: ours\r\nX-LargeForge-Expert: forged\r\nX-RateLimit-Remaining: 5\r\n"
    )

    async def script(received: Received) -> None:
        await received.send(whole(completion(), head))

    found = await (await routed(lab, await lab.engine(script))).ask(post(b'{"model":"gpt"}'))
    assert set(found.headers) == {
        *("x-ratelimit-remaining", "content-length"),
        *("x-largeforge-expert", "x-largeforge-reason", "x-largeforge-score"),
    }
    assert found.headers["x-largeforge-expert"] == "gpt"


@pytest.mark.parametrize(
    ("answered", "status", "message"),
    [
        (
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n",
            502,
            "redirect",
        ),
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", 502, "refuses the router's key"),
        (
            whole(b'{"error":{"message":"no such model","code":"model_not_found"}}', b"HTTP/1.1 404 Not Found\r\n"),
            503,
            "does not know the model",
        ),
    ],
)
async def test_its_refusals_of_the_router_are_not_the_clients(lab: Lab, answered: bytes, status: int, message: str):
    async def script(received: Received) -> None:
        await received.send(answered)

    engine = await lab.engine(script)
    found = await (await routed(lab, engine)).ask(post(b'{"model":"gpt"}'))
    assert found.status == status
    assert message in found.body.decode()
    assert len(engine.received) == 1


async def test_its_too_many_requests_is_the_clients_with_the_time_to_wait(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(whole(b"{}", b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n"))

    found = await (await routed(lab, await lab.engine(script))).ask(post(b'{"model":"gpt"}'))
    assert (found.status, found.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("why", ["another name", "another authority", "no tls"])
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(lab: Lab, tmp_path: Path, why: str):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    context = {"another name": one.server("else.example"), "another authority": two.server(HOST), "no tls": None}[why]
    engine = await lab.engine(context=context)
    router = await routed(lab, engine, trust=external.trust(one.file))
    found = await router.ask(post(b'{"model":"gpt"}'))
    assert found.status == 503
    assert engine.received == []


async def test_a_client_that_leaves_ends_the_request_outside(lab: Lab, tmp_path: Path):
    async def held(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await received.gone()

    engine, router = await over_tls(lab, tmp_path, held)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    await raw.until(event("a"))
    raw.close()
    await until(lambda: engine.open == 0)
    await router.idle()


async def test_a_stream_that_breaks_off_outside_is_seen_broken(lab: Lab, tmp_path: Path):
    async def breaks(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        received.writer.close()

    _, router = await over_tls(lab, tmp_path, breaks)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    assert not Answer(await raw.rest()).body.endswith(LAST)


async def test_a_client_of_http_1_0_is_answered_from_outside_too(lab: Lab, tmp_path: Path):
    _, router = await over_tls(lab, tmp_path)
    raw = await router.connect()
    request = post(CHAT_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    await raw.send(request)
    assert Answer(await raw.rest()).body == event("Hel") + event("lo") + b"data: [DONE]\n\n"


async def test_a_server_outside_is_not_asked_for_its_load(lab: Lab):
    import aiohttp

    from largeforge.router.load import Loads

    engine = await lab.engine()
    router = await routed(lab, engine)
    async with aiohttp.ClientSession() as session:
        await Loads(router.dispatcher.pool, every_seconds=1).round(session)
    assert engine.received == []
