from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from dev.embedding import model
from largeforge.router import embedqueue
from largeforge.router.embedding import Embedder
from largeforge.router.embedqueue import EmbedQueue
from largeforge.router.fit import learn
from largeforge.router.learnt import Lesson
from tests.unit.router.lab import Lab, post, until
from tests.unit.router.test_classifier import COOKING

POETRY = (
    "write a poem about the sea",
    "four lines that rhyme on autumn",
    "a ballad of two sailors",
    "verses for a wedding",
    "find a rhyme for orange",
    "an ode to my old bicycle",
    "turn this letter into a poem",
    "a limerick about a cat",
)
LESSONS = (Lesson("general", COOKING), Lesson("poetry", POETRY))
TEXT = "some lines in verse on the winter sea"


def body(text: str = TEXT, **members: Any) -> bytes:
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]} | members).encode()


class Slow:
    """An embedder that waits until it is told to go on."""

    def __init__(self) -> None:
        self._embedder = Embedder(model())
        self.free = threading.Event()
        self.fails = False
        self.asked: list[str] = []

    def one(self, text: str):
        self.asked.append(text)
        self.free.wait()
        if self.fails:
            raise RuntimeError("the model is broken")
        return self._embedder.one(text)


@pytest.fixture(scope="module")
def learnt():
    return learn(LESSONS, Embedder(model()))


async def started(lab: Lab, learnt: Any, slow: Slow, *, seconds: float = 60):
    engine = await lab.engine()
    router = await lab.router(engine, embedding_seconds=seconds)
    queue = EmbedQueue(slow)  # type: ignore[arg-type]

    def close() -> None:
        slow.free.set()
        queue.close()

    lab._stack.callback(close)
    router.dispatcher.judge.learnt, router.dispatcher.judge.queue = learnt, queue
    return engine, router


async def explained(router: Any, text: str = TEXT):
    return json.loads((await router.ask(post(body(text), path=b"/v1/route"))).body)


async def test_a_text_that_is_not_clear_is_embedded_before_its_request_goes_on(lab: Lab, learnt: Any):
    slow = Slow()
    engine, router = await started(lab, learnt, slow)
    raw = await router.connect()
    await raw.send(post(body()))
    await until(lambda: slow.asked)
    assert engine.received == []
    slow.free.set()
    answer = await raw.answer()
    assert (answer.status, answer.headers["x-largeforge-expert"]) == (200, "poetry")
    assert answer.headers["x-largeforge-reason"] == "examples"
    assert float(answer.headers["x-largeforge-score"]) > 0.5
    await raw.send(post(body()))
    assert (await raw.answer()).status == 200
    assert len(slow.asked) == 1
    assert (await explained(router))["embedding"] == "used"
    assert router.dispatcher.metrics._embeddings == {"used": 3}


async def test_a_request_waits_no_longer_than_it_may_and_route_says_so(lab: Lab, learnt: Any):
    slow = Slow()
    _, router = await started(lab, learnt, slow, seconds=0.05)
    answer = await router.ask(post(body()))
    assert answer.status == 200
    found = await explained(router)
    assert found["embedding"] == "none: it was not there in time, so examples counted by their words alone"
    slow.free.set()
    await until(lambda: router.dispatcher.judge.queue.waiting == 0)


async def test_a_request_does_not_wait_where_too_many_do(lab: Lab, learnt: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedqueue, "MOST_WAITING", 1)
    slow = Slow()
    _, router = await started(lab, learnt, slow)
    raw = await router.connect()
    await raw.send(post(body("another text in verse")))
    await until(lambda: slow.asked)
    assert (await router.ask(post(body()))).status == 200
    assert "too many texts wait" in (await explained(router))["embedding"]
    assert router.dispatcher.metrics._embeddings == {"busy": 2}
    slow.free.set()
    assert (await raw.answer()).status == 200


async def test_a_client_that_leaves_while_its_text_is_embedded_asks_no_engine(lab: Lab, learnt: Any):
    slow = Slow()
    engine, router = await started(lab, learnt, slow)
    raw = await router.connect()
    await raw.send(post(body()))
    await until(lambda: slow.asked)
    raw.close()
    await until(lambda: not router.dispatcher.connections)
    slow.free.set()
    await until(lambda: router.dispatcher.judge.queue.waiting == 0)
    assert engine.received == []
    assert router.dispatcher.quota.under_way == {}


async def test_a_model_that_breaks_is_told_and_the_words_decide(lab: Lab, learnt: Any, caplog: Any):
    slow = Slow()
    slow.fails = True
    slow.free.set()
    _, router = await started(lab, learnt, slow)
    assert (await router.ask(post(body()))).status == 200
    assert (await explained(router))["embedding"].startswith("none: the model could not embed the text")
    assert TEXT not in caplog.text


async def test_an_error_after_the_wait_is_answered_and_counted(lab: Lab, learnt: Any):
    slow = Slow()
    slow.free.set()
    _, router = await started(lab, learnt, slow)
    table = router.dispatcher.table
    view = table.public
    object.__setattr__(view, "fallback", None)
    answer = await router.ask(post(body("the exchange rate of the yen")))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "model_not_found")
    assert any(outcome == "404" for _, _, outcome in router.outcomes())


async def test_without_a_model_words_decide_and_route_says_so(lab: Lab):
    router = await lab.router(await lab.engine())
    router.dispatcher.judge.learnt = learn(LESSONS)
    found = await explained(router, "a poem about the old sea")
    assert found["expert"] == "poetry"
    assert found["embedding"].startswith("none: this router has no embedding model")
    assert found["scores"][0]["parts"]["learnt"] > 0.5


async def test_route_tells_what_was_ignored_and_never_the_text(lab: Lab, learnt: Any):
    slow = Slow()
    slow.free.set()
    _, router = await started(lab, learnt, slow)
    secret = "xq7zz"
    messages = [{"role": "user", "content": f"{secret} {'word ' * 4000}{secret}"}] * 6
    answer = await router.ask(post(body(messages=messages), path=b"/v1/route"))
    assert [item["part"] for item in json.loads(answer.body)["ignored"]] == ["messages", "text"]
    assert secret.encode() not in answer.body


async def test_pinned_models_are_not_embedded(lab: Lab, learnt: Any):
    slow = Slow()
    _, router = await started(lab, learnt, slow)
    answer = await router.ask(post(body(model="poetry")))
    assert (answer.status, answer.headers["x-largeforge-reason"]) == (200, "pinned")
    assert slow.asked == []
