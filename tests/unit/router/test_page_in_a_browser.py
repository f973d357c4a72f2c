"""The page, used as people use it: a real browser, a real router, a scripted engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from largeforge.api.expert import Expert
from largeforge.router.table import RouteTable, build
from tests.unit.router.browser import Browser, Tab, browser
from tests.unit.router.lab import KEY, LAST, STREAM, Lab, Received, Router, chunk, event

HALVES = ("A sonnet has fourteen lines,", " and <b>one</b> turn.")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@contextlib.asynccontextmanager
async def opened(chromium: Browser, router: Router, key: str | None = KEY) -> AsyncIterator[Tab]:
    """The page of *router*, with *key* typed in."""
    async with chromium.tab() as tab:
        await tab.open(f"http://127.0.0.1:{router.port}/")
        if key is not None:
            await tab.type("#key", key)
            await tab.click("#login button")
        yield tab
        base = f"http://127.0.0.1:{router.port}/"
        assert [url for url in tab.requests if not url.startswith(base) and url != "about:blank"] == []
        assert tab.complaints == []


async def ask(tab: Tab, prompt: str) -> None:
    await tab.type("#prompt", prompt)
    await tab.click("#send")


class Slow:
    """An engine that sends the second half of its answer when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, received: Received) -> None:
        await received.send(STREAM + chunk(event(HALVES[0])))
        await self.go.wait()
        await received.send(chunk(event(HALVES[1])) + chunk(b"data: [DONE]\n\n") + LAST)


async def test_what_is_typed_is_answered_piece_by_piece_and_it_says_who_answers_and_why(lab: Lab, chromium: Browser):
    slow = Slow()
    engine = await lab.engine(slow)
    async with opened(chromium, await lab.router(engine)) as tab:
        await tab.until("document.querySelectorAll('#experts tr').length === 3")
        await ask(tab, "Explain the sonnet")
        await tab.until(f"document.getElementById('answer').textContent === '{HALVES[0]}'")
        slow.go.set()
        await tab.until(f"document.getElementById('answer').textContent === '{''.join(HALVES)}'")
        assert await tab.text("#chosen") == "poetry answers (keyword, score 0.67)"
        await tab.until("!!document.querySelector('#scores .won')")
        assert (await tab.text("#rule")).startswith("poetry: ")
        assert await tab.text("#scores .won .name") == "poetry"
        assert await tab.run("document.querySelector('#scores .won meter').value") == pytest.approx(0.67)
        assert await tab.text("#scores .won .parts") == "keywords 0.67"
        assert await tab.text("#scores :not(.won) .parts") == "below its threshold, 0.50"
        await tab.until("document.getElementById('stop').disabled")
        assert await tab.text("#problem") == ""


async def test_the_experts_are_listed_with_their_domains_and_states(lab: Lab, chromium: Browser):
    async with opened(chromium, await lab.router(await lab.engine())) as tab:
        await tab.until("document.querySelectorAll('#experts tr').length === 3")
        rows = await tab.run(
            "[...document.querySelectorAll('#experts tr')].map((r) => [...r.children].map((c) => c.textContent))"
        )
        assert rows == [
            ["general", "–", "–", "ready, fallback"],
            ["poetry", "poems", "1.2.0", "ready"],
            ["smol", "–", "–", "ready (base model)"],
        ]


async def test_a_pinned_expert_answers_whatever_the_prompt_says(lab: Lab, chromium: Browser):
    engine = await lab.engine()
    async with opened(chromium, await lab.router(engine)) as tab:
        await tab.until("document.querySelectorAll('#model option').length === 4")
        await tab.choose("#model", "general")
        await ask(tab, "A sonnet, please")
        await tab.until("document.getElementById('answer').textContent === 'Hello'")
        assert await tab.text("#chosen") == "general answers (pinned, score 1.00)"


async def test_a_wrong_key_is_said_and_the_right_one_helps(lab: Lab, chromium: Browser):
    engine = await lab.engine()
    async with opened(chromium, await lab.router(engine), key="wrong-key-0123456789") as tab:
        await tab.until("document.getElementById('notice').textContent.startsWith('no valid API key')")
        await ask(tab, "A sonnet, please")
        await tab.until("document.getElementById('problem').textContent.startsWith('no valid API key')")
        assert engine.received == []
        await tab.type("#key", KEY)
        await tab.click("#login button")
        await tab.until("document.querySelectorAll('#experts tr').length === 3")
        assert await tab.text("#notice") == ""


async def test_the_key_is_in_the_headers_only_and_forgotten_by_a_reload(lab: Lab, chromium: Browser):
    async with opened(chromium, await lab.router(await lab.engine())) as tab:
        await tab.until("document.querySelectorAll('#experts tr').length === 3")
        assert [url for url in tab.requests if KEY in url] == []
        assert await tab.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        await tab.run("window.old = true")
        await tab.call("Page.reload")
        await tab.until(
            "!window.old && document.getElementById('notice').textContent === \"Type a client's key to begin.\""
        )
        assert await tab.run("document.getElementById('key').value") == ""


def not_ready() -> RouteTable:
    """Of one Expert, the fallback, that no pod has loaded."""
    expert = Expert.model_validate({
        "metadata": {"name": "poetry", "uid": "uid-poetry"},
        "spec": {
            "type": "Adapter",
            "sourceRef": {"kind": "FineTuneJob", "name": "poetry"},
            "inferenceServiceRef": {"name": "smol"},
            "routing": {"domains": ["poems"], "fallback": True},
        },
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "X", "message": "no pod has it"}]},
    })  # fmt: skip
    return build([expert], [], [], lambda _: "")


async def test_where_no_expert_is_ready_it_says_which_one_is_not_and_why(lab: Lab, chromium: Browser):
    router = await lab.router()
    router.dispatcher.replace_table(not_ready())
    async with opened(chromium, router) as tab:
        await tab.until("document.getElementById('nobody').textContent === 'No expert is ready.'")
        assert await tab.text("#experts .unready") == "no pod has it"
        await ask(tab, "A sonnet, please")
        problem = await tab.until("document.getElementById('problem').textContent")
        assert "poetry" in problem
        assert "try again in 5 s" in problem


async def test_stop_ends_the_answer_at_the_engine(lab: Lab, chromium: Browser):
    engine = await lab.engine(Slow())
    async with opened(chromium, await lab.router(engine)) as tab:
        await ask(tab, "Explain the sonnet")
        await tab.until("document.getElementById('answer').textContent")
        await tab.click("#stop")
        async with asyncio.timeout(30):
            await (await engine.request()).gone()
        assert await tab.text("#problem") == ""


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(lab: Lab, chromium: Browser):
    seen = asyncio.Event()

    async def broken(received: Received) -> None:
        await received.send(STREAM + chunk(event(HALVES[0])))
        await seen.wait()
        received.reset()

    async with opened(chromium, await lab.router(await lab.engine(broken))) as tab:
        await ask(tab, "Explain the sonnet")
        await tab.until("document.getElementById('answer').textContent")
        seen.set()
        assert await tab.until("document.getElementById('problem').textContent") == "The answer was cut off."
        assert await tab.text("#answer") == HALVES[0]


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone(lab: Lab, chromium: Browser, *, dark: bool):
    async with opened(chromium, await lab.router(await lab.engine())) as tab:
        await tab.look(width=360, height=740, dark=dark)
        await ask(tab, "Explain the sonnet")
        await tab.until("document.getElementById('answer').textContent === 'Hello'")
        await tab.until("!!document.querySelector('#scores .won')")
        assert await tab.run("document.documentElement.scrollWidth") <= 360
        ground = await tab.run("getComputedStyle(document.body).backgroundColor")
        red = int(ground.removeprefix("rgb(").split(",")[0])
        assert (red < 128) is dark
