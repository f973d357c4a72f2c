"""Whether External experts answer, as the router finds out by itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from largeforge.api.keys import report_token
from largeforge.router import external, probe, snapshot
from largeforge.router.endpoints import Pod
from largeforge.router.external import External
from largeforge.router.probe import Probes, asking
from largeforge.router.settings import Settings, SettingsError, StartError
from largeforge.router.snapshot import Objects
from largeforge.router.source import ExternalKeys, load_trust
from tests.unit.router.authority import Authority
from tests.unit.router.lab import Lab, Raw, Received, completion, post, until, whole
from tests.unit.router.test_external import FOREIGN_KEY, HOST, allowed, outside
from tests.unit.router.test_server import KUBECONFIG, Program, free_ports

START = datetime(2026, 11, 25, 8, tzinfo=UTC)


def target(name: str = "gpt", *, port: int = 1, tls: bool = False, key: str = "", generation: int = 1, **more: Any):
    pod = Pod(HOST, port, external=True, tls=tls)
    return External(name, pod, **{"prefix": b"", "model": "big-1"} | more, key=key, generation=generation)


class Asked:
    """Answers as `outcomes` say, by name; asks are counted, and held while `go` is not set."""

    def __init__(self, **outcomes: str | None) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, external: External) -> str | None:
        self.asked.append(external.name)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.go.wait()
        finally:
            self.under_way -= 1
        return self.outcomes.get(external.name)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
async def clock():
    return Clock()


async def started(asked: Asked, clock: Clock, *externals: External, **settings: Any) -> tuple[Probes, list[int]]:
    changes: list[int] = []
    probes = Probes(asked, now=clock, **settings)
    probes.changed = lambda: changes.append(len(asked.asked))
    probes.use({external.name: external for external in externals}, {})
    return probes, changes


async def test_until_it_has_answered_it_is_not_known_to(clock: Clock):
    asked = Asked()
    asked.go.clear()
    probes, changes = await started(asked, clock, target())
    await until(lambda: asked.asked)
    assert probes.problem(target()) == "http://localhost:1 has not been asked yet whether it answers; try again"
    assert probes.report("gpt", 1) is None
    asked.go.set()
    await until(lambda: changes)
    assert probes.problem(target()) is None
    assert probes.report("gpt", 1).manifest() == {"ok": True, "message": "", "time": "2026-11-25T08:00:00Z"}
    await probes.close()


async def test_one_that_does_not_answer_is_told_with_the_reason(clock: Clock):
    probes, changes = await started(Asked(gpt="it is down"), clock, target())
    await until(lambda: changes)
    assert probes.problem(target()) == "it is down"
    found = probes.report("gpt", 1)
    assert (found.ok, found.message) == (False, "it is down")
    await probes.close()


async def test_it_is_asked_again_and_the_table_hears_of_a_change_only(clock: Clock):
    asked = Asked()
    probes, changes = await started(asked, clock, target(), every_seconds=0.005)
    await until(lambda: len(asked.asked) >= 4)
    assert len(changes) == 1
    clock.time += timedelta(minutes=1)
    asked.outcomes["gpt"] = "it is down"
    await until(lambda: len(changes) == 2)
    assert probes.report("gpt", 1).time == clock.time
    await probes.close()


async def test_what_does_not_change_how_it_is_asked_keeps_the_answer(clock: Clock):
    asked = Asked()
    probes, changes = await started(asked, clock, target(generation=1))
    await until(lambda: changes)
    probes.use({"gpt": target(generation=2)}, {})
    assert probes.report("gpt", 1) is None
    assert probes.report("gpt", 2).ok
    assert asked.asked == ["gpt"]
    await probes.close()


@pytest.mark.parametrize("change", [{"key": "k2"}, {"model": "other"}, {"prefix": b"/v2"}, {"port": 2}, {"tls": True}])
async def test_what_changes_how_it_is_asked_is_asked_at_once(clock: Clock, change: Any):
    asked = Asked()
    probes, changes = await started(asked, clock, target())
    await until(lambda: changes)
    other = target(**change)
    probes.use({"gpt": other}, {})
    assert probes.report("gpt", 1) is None
    assert probes.problem(other) is not None
    await until(lambda: len(asked.asked) == 2)
    await until(lambda: probes.problem(other) is None)
    await probes.close()


async def test_one_that_is_gone_is_asked_no_more_and_forgotten(clock: Clock):
    asked = Asked()
    asked.go.clear()
    probes, _ = await started(asked, clock, target())
    await until(lambda: asked.under_way)
    probes.use({}, {})
    await until(lambda: not asked.under_way)
    assert probes.report("gpt", 1) is None
    await probes.close()


async def test_few_are_asked_at_a_time(clock: Clock):
    asked = Asked()
    asked.go.clear()
    probes, changes = await started(asked, clock, *(target(f"e{n}", port=n + 1) for n in range(12)))
    await until(lambda: asked.under_way == probe.MOST_AT_A_TIME)
    asked.go.set()
    await until(lambda: len(changes) == 12)
    assert asked.most == probe.MOST_AT_A_TIME
    await probes.close()


async def test_one_that_may_not_be_asked_is_told_since_when(clock: Clock):
    asked = Asked()
    probes, _ = await started(asked, clock)
    probes.use({}, {"gpt": "host 'x' is not allowed"})
    clock.time += timedelta(minutes=5)
    probes.use({}, {"gpt": "host 'x' is not allowed"})
    found = probes.report("gpt", 7)
    assert (found.ok, found.message, found.time) == (False, "host 'x' is not allowed", START)
    assert asked.asked == []
    await probes.close()


# Over HTTP


async def answered(external_: External, *, context: Any = None, **settings: Any) -> str | None:
    async with asking(context or external.trust(None), **settings) as ask:
        return await ask(external_)


def saying(data: bytes, status: bytes = b"200 OK"):
    async def script(received: Received) -> None:
        await received.send(whole(data, b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n" % status))

    return script


async def test_it_is_asked_for_a_short_generation_with_its_key(lab: Lab):
    engine = await lab.engine(saying(completion()))
    assert await answered(target(port=engine.port, key=FOREIGN_KEY, prefix=b"/a")) is None
    (received,) = engine.received
    assert received.head.startswith(b"POST /a/v1/chat/completions HTTP/1.1\r\n")
    assert received.headers["authorization"] == f"Bearer {FOREIGN_KEY}"
    assert json.loads(received.body) == {
        "model": "big-1",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
        "max_tokens": 8,
    }


async def test_a_model_that_knows_only_the_newer_bound_is_asked_with_that(lab: Lab):
    async def script(received: Received) -> None:
        if b'"max_tokens"' in received.body:
            error = b'{"error":{"message":"Use \'max_completion_tokens\' instead."}}'
            await saying(error, b"400 Bad Request")(received)
        else:
            await saying(completion())(received)

    engine = await lab.engine(script)
    assert await answered(target(port=engine.port)) is None
    assert json.loads(engine.received[1].body)["max_completion_tokens"] == 8


async def test_over_tls_it_must_prove_its_name(lab: Lab, tmp_path: Path):
    authority = Authority(tmp_path)
    engine = await lab.engine(saying(completion()), context=authority.server(HOST))
    found = target(port=engine.port, tls=True)
    assert await answered(found, context=external.trust(authority.file)) is None
    problem = await answered(found)
    assert "is not trusted" in problem
    assert "router.externalCaConfigMap" in problem
    assert len(engine.received) == 1


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            b"401 Unauthorized",
            b'{"error":{"message":"Incorrect API key provided: %b"}}' % FOREIGN_KEY.encode(),
            "answered 401 when model 'big-1' was asked: .*put its key into entry 'gpt' of the Secret",
        ),
        (b"403 Forbidden", b"", "answered 403 when model 'big-1' was asked; give the key"),
        (b"404 Not Found", b'{"error":"no such model"}', "404 .*no such model.*check spec.endpoint.url"),
        (b"500 Oops", b"x" * 5000, "answered 500 .*see what it says$"),
        (b"307 Temporary Redirect\r\nLocation: http://evil.example/", b"", r"redirect \(307\), which is not followed"),
        (b"200 OK", b"<html>", "did not answer as OpenAI's API does"),
        (b"200 OK", b'{"choices":[]}', "did not answer as OpenAI's API does"),
        (b"200 OK", b'{"choices":[{"text":"x"}]}', "did not answer as OpenAI's API does"),
        (b"200 OK", b" " * (probe.MOST_BYTES + 1), "answered more than 1048576 bytes"),
    ],
)
async def test_what_is_wrong_is_told_with_the_remedy_and_without_the_key(
    lab: Lab, status: bytes, body: bytes, says: str
):
    engine = await lab.engine(saying(body, status))
    problem = await answered(target(port=engine.port, key=FOREIGN_KEY))
    assert problem is not None
    assert problem.startswith(f"http://localhost:{engine.port} ")
    assert re.search(says, problem), problem
    assert FOREIGN_KEY not in problem
    assert len(problem) <= 1024
    assert "\n" not in problem
    assert len(engine.received) == 1


async def test_one_that_takes_no_connection_or_does_not_answer_is_told(lab: Lab):
    async def silent(received: Received) -> None:
        await received.gone()

    engine = await lab.engine(silent)
    assert "did not answer within 0.1 s" in await answered(target(port=engine.port), most_seconds=0.1)
    port, _ = free_ports()
    assert "cannot be reached" in await answered(target(port=port))


# Together


async def test_keys_that_change_are_taken_over_and_unreadable_ones_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: Any, **__: Any) -> str:
        raise PermissionError("not yours")

    changes: list[int] = []
    externals = allowed("api.example")
    keys = ExternalKeys(externals, tmp_path, lambda: changes.append(1))
    (tmp_path / "gpt").write_text("first-key")
    await keys.look()
    await keys.look()
    assert (externals.keys, len(changes)) == ({"gpt": "first-key"}, 1)
    (tmp_path / "gpt").write_text("another-key")
    await keys.look()
    assert (externals.keys, len(changes)) == ({"gpt": "another-key"}, 2)
    os.utime(tmp_path / "gpt", (1, 1))
    monkeypatch.setattr(Path, "read_text", refused)
    await keys.look()
    assert (externals.keys, len(changes)) == ({"gpt": "another-key"}, 2)


async def test_the_program_asks_an_external_expert_routes_to_it_and_reports(lab: Lab, tmp_path: Path):
    authority = Authority(tmp_path)
    engine = await lab.engine(saying(completion()), context=authority.server(HOST))
    url = f"https://{HOST}:{engine.port}"
    objects = Objects(
        [outside(url=url, generation=4, routing={"fallback": True}), outside("refused", url="https://other.example")],
        [],
        [],
    )
    snapshot.write(tmp_path / "snapshot.json", "default", objects)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "key").write_bytes(b"k" * 32)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "gpt").write_text(FOREIGN_KEY)
    port, health = free_ports()
    program = Program(
        *("--host", "127.0.0.1", "--port", str(port), "--health-port", str(health)),
        KUBECONFIG=str(tmp_path / "kubeconfig"),
        LARGEFORGE_ALLOW_UNAUTHENTICATED="true",
        LARGEFORGE_CLIENTS_DIR=str(tmp_path / "none"),
        LARGEFORGE_NAMESPACE_KEY_FILE=str(tmp_path / "key"),
        LARGEFORGE_SNAPSHOT_FILE=str(tmp_path / "snapshot.json"),
        LARGEFORGE_EXTERNAL_HOSTS=f"{HOST}, *.internal.example",
        LARGEFORGE_EXTERNAL_KEYS_DIR=str(tmp_path / "keys"),
        LARGEFORGE_EXTERNAL_CA_FILE=str(authority.file),
    )
    await program.until("route table: gpt")
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    await raw.send(post(b'{"model":"auto","messages":[]}'))
    assert (await raw.answer()).headers["x-largeforge-expert"] == "gpt"
    raw.close()
    assert {each.headers["authorization"] for each in engine.received} == {f"Bearer {FOREIGN_KEY}"}
    headers = {"authorization": f"Bearer {report_token(b'k' * 32)}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"http://127.0.0.1:{health}/report") as response,
    ):
        found = {each["name"]: each for each in (await response.json())["experts"]}
    assert (found["gpt"]["generation"], found["gpt"]["probe"]["ok"]) == (4, True)
    assert "router.externalHosts" in found["refused"]["probe"]["message"]
    program.terminate()
    assert await program.end() == 0
    assert FOREIGN_KEY not in program.log


@pytest.mark.parametrize("hosts", ["https://api.example", "*", "api.example:443", "-x"])
def test_what_is_no_host_is_refused_at_the_start(hosts: str):
    with pytest.raises(SettingsError, match="LARGEFORGE_EXTERNAL_HOSTS: "):
        Settings.from_environment({"LARGEFORGE_EXTERNAL_HOSTS": hosts})


def test_hosts_stand_between_commas():
    found = Settings.from_environment({"LARGEFORGE_EXTERNAL_HOSTS": "api.example, *.internal.example,"})
    assert found.external_hosts == ("api.example", "*.internal.example")


@pytest.mark.parametrize("path", [os.devnull, "/none/ca.crt"])
def test_authorities_that_cannot_be_read_are_told_at_the_start(path: str):
    with pytest.raises(StartError, match="LARGEFORGE_EXTERNAL_CA_FILE"):
        load_trust(Settings(external_ca_file=path))
