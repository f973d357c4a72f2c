"""What docs/routing.md promises of `auto`, each by examples or as a property."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.classifier import labelled
from dev.embedding import model
from largeforge.api.expert import Expert
from largeforge.router import fit
from largeforge.router.classifier import Choice, Classifier, ExpertText, Rule, learn
from largeforge.router.classify import Pattern
from largeforge.router.embedding import Embedder, whole_words
from largeforge.router.expertise import lesson, patterns
from largeforge.router.expressions import faults
from largeforge.router.fit import learn as learn_lessons
from largeforge.router.learnt import Lesson
from tests.unit.router.test_classifier import COOKING, SQL, expert

EXPERTS = ("cooking", "law", "poetry", "sql", "travel")


@pytest.fixture(scope="module")
def embed():
    one = Embedder(model())
    known: dict[str, np.ndarray] = {}

    def remembered(texts):
        for text in texts:
            if text not in known:
                known[text] = one.one(text)
        return np.array([known[text] for text in texts])

    return remembered


@pytest.fixture(scope="module")
def rows():
    found = labelled.load()
    return {
        name: (
            [row.text for row in found if (row.expert, row.split) == (name, "learn")][:40],
            [row.text for row in found if (row.expert, row.split, row.style) == (name, "test", "plain")],
        )
        for name in EXPERTS
    }


@pytest.fixture(scope="module")
def classifier(rows, embed):
    experts = [ExpertText(name, (), tuple(examples)) for name, (examples, _) in rows.items()]
    return learn(experts, embed, words=whole_words(model()))


def questions(rows):
    return [text for _, tests in rows.values() for text in tests]


def flips(classifier: Classifier, embed, rows, change):
    texts = questions(rows)
    moved = sum(
        classifier.decide([text], embed=embed).ranked()[0]
        != classifier.decide([change(text, i)], embed=embed).ranked()[0]
        for i, text in enumerate(texts)
    )
    return moved / len(texts)


def test_case_changes_nothing(classifier, embed, rows):
    for text in questions(rows)[::3]:
        assert classifier.decide([text.upper()], embed=embed) == classifier.decide([text], embed=embed)


def test_politeness_flips_at_most_three_in_a_hundred(classifier, embed, rows):
    assert flips(classifier, embed, rows, lambda text, i: labelled.polite(text, labelled.Draw(f"polite {i}"))) <= 0.03


def test_a_typo_seldom_flips_a_decision(classifier, embed, rows):
    assert flips(classifier, embed, rows, lambda text, i: labelled.misspelt(text, labelled.Draw(f"typo {i}"))) <= 0.08


def test_a_duplicate_gets_the_same_answer(classifier, embed, rows):
    for text in questions(rows)[::5]:
        assert classifier.decide([text], embed=embed) == classifier.decide([text], embed=embed)


@pytest.mark.parametrize("between", ["\n", "\n\n"])
def test_a_pasted_page_before_or_after_a_question_seldom_hides_it(classifier, embed, rows, between: str):
    page = labelled.pasted(labelled.Draw("page"), 2048)
    assert flips(classifier, embed, rows, lambda text, _: f"{text}{between}{page}") <= 0.2
    assert flips(classifier, embed, rows, lambda text, _: f"{page}{between}{text}") <= 0.2


def test_an_unrelated_expert_moves_no_clear_decision(classifier, embed, rows):
    knitting = tuple(
        f"how many {yarn} do i {verb} for a {thing}"
        for yarn in ("stitches", "rows", "skeins")
        for verb in ("knit", "cast on", "purl")
        for thing in ("scarf", "woollen hat", "jumper")
    )
    more = [ExpertText(name, (), tuple(examples)) for name, (examples, _) in rows.items()]
    wider = learn([*more, ExpertText("knitting", (), knitting)], embed)
    for text in questions(rows):
        before = classifier.decide([text], embed=embed)
        ranked = before.ranked()
        if before.expert and before.score - before.parts[ranked[1]].score > 0.2:
            assert wider.decide([text], embed=embed).ranked()[0] == before.expert


def test_the_larger_method_decides_nearly_as_the_smaller(classifier, embed, rows, monkeypatch):
    monkeypatch.setattr(fit, "MOST_EXACT", 50)
    wide = learn([ExpertText(name, (), tuple(examples)) for name, (examples, _) in rows.items()], embed)
    assert wide.learnt.experts == classifier.learnt.experts
    texts = questions(rows)
    same = [
        wide.decide([text], embed=embed).ranked()[0] == classifier.decide([text], embed=embed).ranked()[0]
        for text in texts
    ]
    assert sum(same) / len(same) > 0.9


@pytest.mark.parametrize("most_exact", [2000, 50])
def test_examples_that_are_there_nearly_twice_change_little(classifier, embed, rows, monkeypatch, most_exact: int):
    monkeypatch.setattr(fit, "MOST_EXACT", most_exact)

    def twice(text: str) -> tuple[str, str]:
        return text, labelled.misspelt(text, labelled.Draw(text))

    doubled = [
        ExpertText(name, (), tuple(each for text in examples for each in twice(text)))
        for name, (examples, _) in rows.items()
    ]
    found = learn(doubled, embed)
    count = len(questions(rows))

    def tell(one: Classifier) -> tuple[float, float]:
        choices = [(name, one.decide([text], embed=embed)) for name, (_, tests) in rows.items() for text in tests]
        right = sum(choice.ranked()[0] == name for name, choice in choices)
        return right / count, sum(choice.expert is None for _, choice in choices) / count

    (right, nobodys), (right_before, nobodys_before) = tell(found), tell(classifier)
    assert right >= right_before - 0.03
    assert nobodys <= nobodys_before + 0.05


def test_both_methods_heed_negative_examples(monkeypatch):
    text = "a table for two at eight"
    for most in (2000, 5):
        monkeypatch.setattr(fit, "MOST_EXACT", most)
        lessons = [Lesson("cooking", COOKING), Lesson("sql", (*SQL, "add a table"))]
        plain = learn_lessons(lessons)
        told = learn_lessons(
            [lessons[0], Lesson("sql", lessons[1].examples, ("a table for two", "a table for four at six"))]
        )
        column = plain.experts.index("sql")
        assert told.cheap.raw(told.vectors([text]))[column] < plain.cheap.raw(plain.vectors([text]))[column] - 0.2
        clear = "count the orders of each customer"
        untouched = plain.cheap.raw(plain.vectors([clear]))[column]
        assert told.cheap.raw(told.vectors([clear]))[column] == pytest.approx(untouched, abs=0.15)


def test_a_lead_is_never_clear_without_enough_examples(embed):
    few = learn([ExpertText("sql", (), SQL[:7]), ExpertText("cooking", (), COOKING)], embed)
    assert few.learnt.few
    assert few.decide([SQL[0]], embed=embed).embedded


# The rules, without anything learnt: keywords alone have scores that one can name


def keyword(name: str, *words: str, weight: float = 1.0, **rule: float):
    return ExpertText(name, tuple(Pattern(word, "Word", weight) for word in words), rule=Rule(**rule))


def decide(*experts: ExpertText, says: str | list[str]) -> Choice:
    return learn(experts).decide([says] if isinstance(says, str) else says)


@given(st.floats(0, 1), st.floats(0.01, 10))
@settings(max_examples=100, deadline=None)
def test_an_expert_gets_nothing_below_its_threshold(threshold: float, weight: float):
    found = decide(keyword("a", "apple", weight=weight, threshold=threshold), says="an apple")
    assert (found.expert == "a") is (weight / (weight + 0.5) >= threshold)


@given(st.integers(-100, 100), st.integers(-100, 100))
@settings(max_examples=60, deadline=None)
def test_priority_decides_between_equals_and_not_against_a_clear_lead(one: int, two: int):
    pair = (keyword("a", "apple", priority=one), keyword("b", "banana", priority=two))
    assert decide(*pair, says="apple banana").expert == ("b" if two > one else "a")
    strong = keyword("c", "cherry", "date", "elder", "fig", weight=3.0, priority=-100)
    assert decide(*pair, strong, says="apple cherry date elder fig").expert == "c"


@given(st.permutations(["a", "b", "c"]))
@settings(max_examples=6, deadline=None)
def test_of_equals_the_first_by_name_wins_in_whatever_order_they_come(names: list[str]):
    assert decide(*(keyword(name, "apple") for name in names), says="apple").expert == "a"


def test_a_conversation_stays_with_its_expert_where_the_next_message_says_nothing():
    experts = (keyword("a", "apple"), keyword("b", "banana"))
    found = decide(*experts, says=["an apple", "and now shorter"])
    assert (found.expert, found.reason) == ("a", "conversation")
    assert decide(*experts, says=["an apple", "a banana"]).expert == "b"
    assert decide(*experts, says=["shorter"]).expert is None


def test_another_expert_must_lead_by_the_stickiness_to_take_a_conversation_over():
    for stickiness, winner in ((0.0, "b"), (0.1, "b"), (0.3, "a")):
        experts = (keyword("a", "apple", weight=0.5, stickiness=stickiness), keyword("b", "banana"))
        assert decide(*experts, says=["an apple", "an apple or a banana"]).expert == winner
    alone = decide(keyword("a", "apple", stickiness=0.0), says=["an apple", "and now shorter"])
    assert alone.expert is None


def test_an_earlier_message_counts_half_for_each_step():
    found = decide(keyword("a", "apple", weight=9.5), says=["an apple", "x", "y"]).parts["a"]
    assert (found.own, found.earlier) == (0.0, pytest.approx(0.95 / 4))


@given(st.lists(st.sampled_from(["an apple", "a banana", "x", ""]), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_decision_depends_on_the_last_four_messages_alone(messages: list[str]):
    experts = (keyword("a", "apple"), keyword("b", "banana"))
    assert decide(*experts, says=messages) == decide(
        *experts, says=["an apple", *messages][-4:] if len(messages) > 3 else messages
    )


@given(
    st.lists(st.sampled_from(["an apple", "a banana", "apple banana", "x", ""]), max_size=5),
    st.lists(
        st.tuples(st.sampled_from([0.2, 0.5, 1.0, 9.0]), st.sampled_from([0.0, 0.1, 0.6])), min_size=2, max_size=2
    ),
)
@settings(max_examples=300, deadline=None)
def test_the_short_way_for_keywords_decides_as_the_long_one(messages: list[str], rules: list[tuple[float, float]]):
    (one, sticky), (two, less) = rules
    found = learn(
        [keyword("a", "apple", weight=one, stickiness=sticky), keyword("b", "banana", weight=two, stickiness=less)]
    )
    short, long = found.at_once(messages), found.decide(messages)
    assert short is None or (short.expert, short.reason, short.score) == (long.expert, long.reason, long.score)
    assert short is not None or len(messages) != 1


def test_what_is_said_twice_counts_more_than_once_and_less_than_twice(embed):
    found = learn([expert("sql", *SQL, keywords=("sql",)), expert("cooking", *COOKING)], embed)
    parts = found.decide(["sql: count the orders of each customer"], embed=embed).parts["sql"]
    assert parts.own == pytest.approx(1 - (1 - parts.keywords) * (1 - parts.learnt))
    assert max(parts.keywords, parts.learnt) < parts.own < 1


def test_the_reason_names_the_parts_that_suffice(embed):
    found = learn([expert("sql", *SQL, keywords=("xyzzy",)), expert("cooking", *COOKING)], embed)
    texts = (
        "count the orders of each customer",
        "xyzzy: count the orders of each customer",
        "xyzzy plugh",
        "plugh",
    )
    reasons = {text: found.decide([text], embed=embed).reason for text in texts}
    assert [*reasons.values()] == ["examples", "hybrid", "keyword", "fallback"]


def test_expressions_are_found_in_linear_time_and_faulty_ones_are_left_out():
    patterns = (Pattern(r"\bORA-\d{5}\b", "Regex", 1.0), Pattern("(a", "Regex", 1.0), Pattern("x*", "Regex", 1.0))
    found = learn([ExpertText("db", patterns)])
    assert found.decide(["what is ora-00942?"]).reason == "keyword"
    assert found.decide(["ora-0094"]).expert is None
    assert found.decide([f"ORA-00942 {'x' * 5000}"]).expert == "db"
    assert found.decide([f"{'x' * 5000} ORA-00942 {'x' * 5000}"]).expert is None
    assert re.fullmatch(r"0\.67", f"{found.decide(['ORA-00942']).score:.2f}")


def test_the_expressions_of_one_expert_have_a_bound_together():
    wide, narrow = ".{1,40}", r"\bORA-\d{5}\b"
    assert faults([narrow] * 16) == [None] * 16
    first, second, third, last = faults([f"a{wide}b", f"c{wide}d", f"e{wide}f", narrow])
    assert (first, second, last) == (None, None, None)
    assert re.fullmatch(
        r"those of one Expert are too large together: at most 1024 .*\(this one makes it 1\d{3}\).*", third
    )


def test_an_expression_too_many_is_left_out_and_the_report_says_which():
    keywords = [{"pattern": f"{letter}.{{1,40}}z", "type": "Regex"} for letter in "abc"]
    made = Expert.model_validate(
        {
            "metadata": {"name": "sql"},
            "spec": {
                "type": "Model",
                "artifact": {"uri": "pvc://models/sql"},
                "inferenceServiceRef": {"name": "sql"},
                "routing": {"keywords": [{"pattern": "sql"}, *keywords]},
            },
        }
    )
    assert [pattern.text for pattern in patterns(made)] == ["sql", "a.{1,40}z", "b.{1,40}z"]
    (note,) = lesson(made).notes
    assert note.startswith("spec.routing.keywords[3].pattern is left out: those of one Expert are too large together")
