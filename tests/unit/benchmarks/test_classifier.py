"""What the classifier's benchmark counts; the figures themselves are no test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.benchmarkmodules import BENCHMARKS, modules_of

FOLDER = BENCHMARKS / "classifier"
WORDS = ("join", "table", "bread", "oven", "train", "ticket")
EXAMPLES = {
    "sql": ["join two tables", "a table without rows"],
    "cooking": ["bread from the oven", "a hot oven"],
    "travel": ["a train ticket", "the train is late"],
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmark, which is no package."""
    with modules_of(FOLDER, monkeypatch) as found:
        yield found


def embed(texts: Any) -> Any:
    """A direction for each word."""
    rows = np.array([[0.1] + [float(word in text) for word in WORDS] for text in texts], dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_each_subject_gives_a_text_to_the_expert_with_such_examples(module: Any):
    found = module("measure").subjects(EXAMPLES, embed)
    assert set(found) == {"largeforge", "largeforge without a model", "nearest example", "TF-IDF"}
    for name, judge in found.items():
        assert [judge(text).best for text in ("which oven", "my ticket", "another table")] == [
            "cooking",
            "travel",
            "sql",
        ], name


def test_recall_is_counted_below_the_confidence_of_all_but_three_in_a_hundred(module: Any):
    measure, subjects = module("measure"), module("subjects")

    def verdicts(*confidences: float) -> list[Any]:
        return [subjects.Verdict("sql", confidence, "sql") for confidence in confidences]

    inside = verdicts(*(0.5 + i / 200 for i in range(100)))
    assert measure.recall(inside, verdicts(0.1, 0.5, 0.9, 0.95)) == 50.0
    assert measure.recall(inside, verdicts(0.9, 0.95)) == 0.0


def test_the_scores_tell_wrong_from_nobody(module: Any):
    measure, subjects, labelled = module("measure"), module("subjects"), module("labelled")
    rows = [
        labelled.Row("sql", "test", "sql 2", "plain", "right"),
        labelled.Row("sql", "test", "sql 2", "typos", "wrong"),
        labelled.Row("sql", "test", "sql 5", "plain", "right, but too unsure"),
        labelled.Row("sql", "learn", "sql 1", "plain", "not asked"),
        labelled.Row(None, "test", "none 1", "plain", "for nobody"),
        labelled.Row(None, "test", "none 2", "plain", "taken for an expert's"),
    ]
    said = {
        "right": subjects.Verdict("sql", 0.9, "sql", embedded=True),
        "wrong": subjects.Verdict("law", 0.8, "law"),
        "right, but too unsure": subjects.Verdict("sql", 0.4, None),
        "for nobody": subjects.Verdict("law", 0.1, None),
        "taken for an expert's": subjects.Verdict("law", 0.7, "law"),
    }
    found = measure.scores(rows, said.__getitem__)
    assert found["accuracy"] == pytest.approx(66.7)
    assert found["accuracy: plain"] == 100
    assert found["accuracy: typos"] == 0
    assert found["falseAbstention"] == pytest.approx(33.3)
    assert found["oosRecall"] == 50
    assert found["embedded"] == pytest.approx(33.3)


def test_the_rounds_have_other_examples_and_as_many_as_asked_for(module: Any):
    measure, labelled = module("measure"), module("labelled")
    rows = labelled.load()
    first, second = measure.chosen(rows, 10, 0), measure.chosen(rows, 10, 1)
    assert {len(texts) for texts in [*first.values(), *second.values()]} == {10}
    assert first != second
    assert first == measure.chosen(rows, 10, 0)


def test_there_are_fifty_experts_with_two_hundred_different_examples_to_learn_from(module: Any):
    experts = module("costs").many()
    assert len(experts) == 50
    assert {len(set(expert.examples)) for expert in experts} == {200}


def test_the_picture_has_a_bar_for_each_figure(module: Any):
    figures = {"accuracy": 81.25, "oosRecallAt3": 43.0}
    picture = module("picture").draw({"10": {"largeforge": figures, "TF-IDF": figures}})
    assert picture.count("<rect") == 1 + 4
    assert picture.count(">81.2<") == 2
