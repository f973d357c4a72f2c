"""The page's files, as bytes; `test_page_in_a_browser.py` uses them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from largeforge.router import page
from tests.unit.router.lab import KEY, Lab, chunk, get

FOLDER = Path(page.__file__).parent
NO_KEY = b"GET %b HTTP/1.1\r\nHost: router\r\n\r\n"
TEXTS = {path.name: path.read_text() for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}


@pytest.mark.parametrize("path", sorted(page.FILES))
async def test_the_page_needs_no_key(lab: Lab, path: bytes):
    router = await lab.router(await lab.engine())
    answer = await router.ask(NO_KEY % path)
    assert (answer.status, answer.body) == (200, page.FILES[path][1])
    assert (await router.ask(get(path))).body == answer.body
    assert (await router.ask(get(path, key="wrong-key-0123456789"))).status == 200


async def test_the_next_request_on_its_connection_needs_a_key(lab: Lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(get(b"/v1/models"))
    assert (await raw.answer()).status == 200
    await raw.send(NO_KEY % b"/")
    assert (await raw.answer()).status == 200
    await raw.send(NO_KEY % b"/v1/models")
    assert (await raw.answer()).status == 401


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n",
        NO_KEY % b"/v1/models",
        NO_KEY % b"//",
        NO_KEY % b"/index.html",
        NO_KEY % b"/page.js/../v1/models",
        NO_KEY % b"/__init__.py",
    ],
)
async def test_without_a_key_nothing_else_is_read_nor_answered(lab: Lab, request_: bytes):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(request_)
    assert (await raw.answer()).status == 401
    assert await raw.rest() == b""


async def test_a_body_that_comes_with_a_key_is_read_before_the_page_is_sent(lab: Lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    head = b"GET / HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer %b\r\nTransfer-Encoding: chunked\r\n\r\n" % KEY.encode()
    await raw.send(head + chunk(b"hello") + b"0\r\n\r\n")
    assert (await raw.answer()).status == 200


async def test_a_router_that_has_no_table_yet_shows_its_page(lab: Lab):
    assert (await (await lab.router()).ask(NO_KEY % b"/")).status == 200


@pytest.mark.parametrize("path", sorted(page.FILES))
async def test_nothing_inline_and_nothing_from_elsewhere_is_allowed(lab: Lab, path: bytes):
    headers = (await (await lab.router()).ask(NO_KEY % path)).headers
    rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_file_names_no_address(name: str):
    text = TEXTS[name].replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert re.findall(r"\w+://|//[\w.-]+\.\w+|@import|url\(", text) == []


def test_each_file_that_the_page_names_is_there_and_nothing_is_inline():
    class Found(HTMLParser):
        names: list[str] = []
        inline: list[str] = []
        script = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.script = tag in ("script", "style")
            for name, value in attrs:
                if name in ("src", "href") and value:
                    self.names.append(value)
                if name == "style" or name.startswith("on"):
                    self.inline.append(f"{tag} {name}")

        def handle_data(self, data: str) -> None:
            if self.script and data.strip():
                self.inline.append(data)

        def handle_endtag(self, _: str) -> None:
            self.script = False

    found = Found()
    found.feed(TEXTS["index.html"])
    imported = [name for text in TEXTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)]
    assert {f"/{name}".encode() for name in [*found.names, *imported]} | {b"/"} == set(page.FILES)
    assert found.inline == []


def test_the_key_is_kept_nowhere():
    words = re.compile(r"localStorage|sessionStorage|indexedDB|document\.cookie|history\.|location|innerHTML|eval\(")
    assert {name: words.findall(text) for name, text in TEXTS.items() if words.search(text)} == {}
