"""chat and route against the router itself, and over TLS."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

from tests.unit.cli.stage import TellingCluster, call, router
from tests.unit.cli.test_ask import routed, router_service
from tests.unit.router.authority import Authority
from tests.unit.router.lab import KEY
from tests.unit.router.scripted import engine

ENVIRON = {"LARGEFORGE_API_KEY": KEY}


async def called(*arguments, environ=None):
    return await asyncio.to_thread(call, *arguments, environ=environ or ENVIRON)


async def test_the_expert_that_a_word_means_answers_and_no_byte_of_its_text_is_lost(lab):
    made = await lab.router(await lab.engine(engine))
    text = "A haiku of grüße aus Köln 東京 😀 end"
    done = await called("chat", text, "--router", made.url)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == text.replace(" ", "")
    assert re.fullmatch(r"poetry \(keyword, [01]\.\d\d\)\n", done.stderr)


async def test_why_is_explained_as_the_router_does(lab):
    made = await lab.router(await lab.engine(engine))
    done = await called("route", "A haiku, please", "--router", made.url)
    assert done.exit_code == 0, done.output
    first, _, _, header, *rows = done.stdout.splitlines()
    assert first.startswith("poetry (keyword, ")
    assert header.split()[:3] == ["EXPERT", "SCORE", "THRESHOLD"]
    assert [row.split()[0] for row in rows[:2]] == ["poetry", "general"]
    pinned = json.loads((await called("route", "x", "-m", "general", "-o", "json", "--router", made.url)).stdout)
    assert (pinned["expert"], pinned["reason"]) == ("general", "pinned")


async def test_a_key_that_it_does_not_know_is_refused(lab):
    made = await lab.router(await lab.engine(engine))
    for environ in ({"LARGEFORGE_API_KEY": "a-key-that-nobody-has"}, {"NONE": ""}):
        done = await called("chat", "hi", "--router", made.url, environ=environ)
        assert done.exit_code == 1
        assert "set LARGEFORGE_API_KEY to a client's key" in done.stderr
        assert "a-key-that-nobody-has" not in done.output


async def test_a_name_that_it_does_not_know_is_told_in_its_words(lab):
    made = await lab.router(await lab.engine(engine))
    done = await called("chat", "hi", "-m", "nobody", "--router", made.url)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: the router answers 404: ")
    assert "nobody" in done.stderr


def test_a_certificate_of_the_services_name_is_trusted_by_its_authority_alone(tmp_path):
    authority = Authority(tmp_path)
    context = authority.server("largeforge-router.team.svc")
    cluster = TellingCluster(router_service(port=443, port_name="https"))
    with router(routed, tls=context) as server:

        @asynccontextmanager
        async def forward(*_):
            yield server.server_port

        trusted = call("route", "q", "--ca-file", str(authority.file), cluster=cluster, forward=forward)
        assert trusted.exit_code == 0, trusted.output
        refused = call("route", "q", cluster=cluster, forward=forward)
    assert refused.exit_code == 1
    assert "is not trusted" in refused.stderr
    assert "--ca-file" in refused.stderr
    assert len(server.asked) == 1


def test_authorities_that_are_no_certificates_are_said(tmp_path):
    (tmp_path / "ca.crt").write_text("nothing")
    done = call("route", "q", "--router", "https://127.0.0.1:9", "--ca-file", str(tmp_path / "ca.crt"))
    assert done.exit_code == 1
    assert "name a file with certificates in PEM" in done.stderr
