from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dev.embedding import model
from largeforge.router import embedcache, learner, learning, learntfile
from largeforge.router.classifier import Classifier, Rule
from largeforge.router.classify import Matcher
from largeforge.router.embedcache import EmbedCache
from largeforge.router.embedding import Embedder, whole_words
from largeforge.router.fit import learn
from largeforge.router.learning import Learning
from largeforge.router.learnt import Lesson
from largeforge.router.lessonreport import reports_of
from largeforge.router.undecided import Judge
from tests.unit.router.test_classifier import COOKING, SQL

LESSONS = (Lesson("cooking", COOKING), Lesson("sql", SQL))
TEXTS = ("count the rows of each customer", "how long do I roast onions", "what is the capital of France")


@pytest.fixture(scope="module")
def embedder():
    return Embedder(model())


def raws(learnt: Any, embedder: Embedder):
    return [
        (learnt.cheap.raw(found).tolist(), learnt.full.raw(found, [embedder.one(text)]).tolist())
        for text in TEXTS
        for found in [learnt.vectors([text])]
    ]


def test_what_was_learnt_is_the_same_after_it_went_through_a_file(embedder: Embedder, tmp_path: Path):
    made = learn(LESSONS, embedder, words=whole_words(model()))
    learntfile.write(tmp_path / "learnt", made)
    found = learntfile.read(tmp_path / "learnt")
    (tmp_path / "learnt").unlink()
    assert raws(found, embedder) == raws(made, embedder)
    assert (found.experts, found.few, found.taken_by.tolist()) == (made.experts, made.few, made.taken_by.tolist())
    assert found.blocks("whcih flouur") == made.blocks("whcih flouur") == ("which flour",)
    assert (found.full.worth, found.full.starts.tolist()) == (made.full.worth, made.full.starts.tolist())
    learntfile.write(tmp_path / "cheap", learn(LESSONS))
    assert learntfile.read(tmp_path / "cheap").full is None


DECIDE = """
import json, sys
from pathlib import Path
from largeforge.router.classifier import ExpertText, learn
from largeforge.router.embedding import Embedder, whole_words
experts, texts, model = json.load(sys.stdin)
embed = Embedder(Path(model))
found = learn([ExpertText(name, (), tuple(examples)) for name, examples in experts], embed)
print(json.dumps([(choice.expert, choice.score) for choice in (found.decide([text], embed=embed) for text in texts)]))
"""


def test_processes_decide_the_same_with_the_same_score():
    task = json.dumps([[(lesson.expert, lesson.examples) for lesson in LESSONS], TEXTS, str(model())])
    answers = {
        subprocess.run(
            [sys.executable, "-c", DECIDE],
            input=task,
            env=os.environ | {"PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "1"), ("3", "2"))
    }
    assert len(answers) == 1
    assert [expert for expert, _ in json.loads(answers.pop())] == ["sql", "cooking", None]


def test_an_example_is_embedded_once_and_forgotten_when_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "cache.npz"
    first = EmbedCache(path, model())
    rows = first(["one", "two"])
    again = EmbedCache(path, model())
    assert (again(["two", "three", "two"])[0] == rows[1]).all()
    assert (first.computed, again.computed) == (2, 1)
    last = EmbedCache(path, model())
    last(["one"])
    assert last.computed == 1
    monkeypatch.setattr(embedcache, "digest", lambda _: "another model")
    other = EmbedCache(path, model())
    other(["one"])
    assert other.computed == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04half"])
def test_a_broken_cache_counts_as_none(tmp_path: Path, content: bytes):
    path = tmp_path / "cache.npz"
    path.write_bytes(content)
    assert EmbedCache(path, model())(["one"]).shape == (1, 384)
    assert EmbedCache(path, model())(["one"]).shape == (1, 384)


class Learner:
    """A `Learning` that runs."""

    def __init__(self, folder: Path, *, with_model: Path | None = None) -> None:
        self.judge = Judge(patience_seconds=5)
        self.learning = Learning(self.judge, folder, model=with_model)

    async def __aenter__(self):
        self._task = asyncio.create_task(self.learning.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(120):
            while not condition():
                assert not self._task.done(), self._task.result()
                await asyncio.sleep(0.01)


async def test_the_router_learns_beside_its_loop_and_takes_over_what_changes(tmp_path: Path):
    async with Learner(tmp_path, with_model=model()) as found:
        assert found.learning.awaited() == "learning the experts' examples"
        found.learning.follow(LESSONS)
        await found.until(lambda: found.judge.learnt is not None)
        assert found.learning.awaited() is None
        assert found.judge.learnt.full is not None
        first = found.judge.learnt
        found.learning.follow((*LESSONS, Lesson("art", ("who painted the sunflowers",))))
        assert found.learning.report("art") is None
        await found.until(lambda: found.judge.learnt is not first)
        assert found.judge.learnt.experts == ("art", "cooking", "sql")
        assert "1 examples are too few" in found.learning.report("art").message
        found.learning.follow(())
        await found.until(lambda: found.judge.learnt is None)


async def test_a_router_without_examples_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "_run", None)
    async with Learner(tmp_path, with_model=model()) as found:
        found.learning.follow((Lesson("sql", ()),))
        await found.until(lambda: found.learning.awaited() is None)
        assert (found.judge.learnt, found.judge.queue) == (None, None)
        assert "no examples" in found.learning.report("sql").message


async def test_what_was_learnt_stays_where_the_next_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async with Learner(tmp_path) as found:
        found.learning.follow(LESSONS)
        await found.until(lambda: found.judge.learnt is not None)
        first = found.judge.learnt
        assert first.full is None
        found.learning._model = tmp_path / "none"
        found.learning.follow(LESSONS[:1])
        await found.until(lambda: "could not be learnt" in caplog.text)
        assert "the embedding model in" in caplog.text
        assert found.judge.learnt is first
        assert found.learning.report("cooking") is not None


async def test_a_learner_that_never_ends_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "MOST_SECONDS", 0.3)
    monkeypatch.setattr(learning, "ARGUMENTS", ("-c", "import time; time.sleep(600)"))
    async with Learner(tmp_path) as found:
        found.learning.follow(LESSONS)
        await found.until(lambda: found.learning.awaited() is None)
        assert found.judge.learnt is None


async def test_a_learner_is_nice_before_it_is_told_what_to_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "ARGUMENTS", ("-c", "import os, sys; sys.stdin.read(); print(os.nice(0))"))
    assert int(await learning._run(b"anything", nice=3)) == min(os.nice(0) + 3, 19)


def test_reports_name_the_other_expert_and_an_example_as_it_was_written():
    lessons = (Lesson("cooking", COOKING), Lesson("sql", (*SQL, "How do I chop ONIONS, please?"), notes=("a note",)))
    found = reports_of(lessons, learn(lessons))
    assert found["sql"].examples == 9
    assert ("cooking", "How do I chop ONIONS, please?") in [(o.expert, o.example) for o in found["sql"].overlaps]
    assert found["sql"].self_accuracy == pytest.approx(1 - sum(o.examples for o in found["sql"].overlaps) / 9)
    assert "a note" in found["sql"].message


def test_learning_ends_with_a_line_where_the_model_is_none(tmp_path: Path):
    task = msgspec.json.encode(learner.Task([*LESSONS], str(tmp_path / "out"), str(tmp_path / "none")))
    done = subprocess.run(
        [sys.executable, "-m", "largeforge.router.learner"], input=task, capture_output=True, check=False
    )
    assert done.returncode == learner.EX_UNAVAILABLE
    assert b"cannot be used" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_text_without_meaning_changes_nothing():
    assert learn((Lesson("sql", ("???", " ")),)) is None
    assert np.isfinite(learn((*LESSONS, Lesson("x", ("a",)))).cheap.weights).all()
    found = Classifier(Matcher({}), {"sql": Rule(), "cooking": Rule()}, learn(LESSONS)).decide(["\ud800 ???"])
    assert found.expert is None
