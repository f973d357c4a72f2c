from __future__ import annotations

import time
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeforge.router import classify as module
from largeforge.router import spans
from largeforge.router.classify import WINDOW, Matcher, Pattern, best, score, window

SMALL = st.text("ab .é", min_size=1, max_size=6)


def words(*texts: Any):
    return [Pattern(text, "Word", 1.0) for text in texts]


def literals(*texts: Any):
    return [Pattern(text, "Literal", 1.0) for text in texts]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("code", "write code", True),
        ("code", "decode this", False),
        ("code", "codes", False),
        ("code", "code.", True),
        ("code", "(code)", True),
        ("CODE", "Code", True),
        ("code", "my_code", False),
        ("code", "code2", False),
        ("straße", "STRASSE", True),
        ("привет", "Привет, мир", True),
        ("привет", "приветствие", False),
        ("café", "un CAFÉ noir", True),
        ("left join", "a LEFT JOIN b", True),
        ("left join", "a left joint", False),
        ("c++", "in C++, please", True),
        ("c++", "c++11", False),
        (".net", "use .NET", True),
        (".net", "asp.net", False),
        ("sql", "", False),
    ],
)
def test_words_match_whole_words_in_any_case(pattern: str, text: str, found: Any):
    assert bool(Matcher({"x": words(pattern)}).scores(text)) is found


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [("code", "decode", True), ("SELECT *", "select * from", True), ("[a", "x[ab", True), ("a|b", "a", False)],
)
def test_literals_match_anywhere(pattern: str, text: str, found: Any):
    assert bool(Matcher({"x": literals(pattern)}).scores(text)) is found


def test_overlapping_patterns_are_all_found():
    matcher = Matcher(
        {
            "a": words("machine learning"),
            "b": words("learning rate"),
            "c": words("machine"),
            "d": words("learn"),
            "e": literals("arning ra"),
            "f": literals("ning"),
        }
    )
    assert set(matcher.scores("the machine learning rate")) == {"a", "b", "c", "e", "f"}


def test_each_distinct_keyword_counts_once():
    matcher = Matcher({"x": words("sql", "join"), "y": words("sql")})
    found = matcher.scores("sql sql SQL join")
    assert found == {"x": pytest.approx(0.8), "y": pytest.approx(2 / 3)}


def test_a_keyword_that_is_also_a_domain_counts_once_by_the_heavier():
    matcher = Matcher({"x": [Pattern("sql", "Word", 0.5), Pattern("SQL", "Word", 1.0), Pattern("sql", "Literal", 1.0)]})
    assert matcher.scores("sql") == {"x": pytest.approx(2 / 3)}


def test_a_domain_weighs_half():
    assert score(0.5) == 0.5
    assert score(1.0) == pytest.approx(0.667, abs=0.001)


def test_the_highest_score_wins_and_the_first_name_among_equals():
    assert best({"b": 0.5, "a": 0.5, "c": 0.4}) == ("a", 0.5)
    assert best({"b": 0.8, "a": 0.5}) == ("b", 0.8)
    assert best({}) is None


def test_a_long_text_is_looked_at_from_both_ends():
    long = "x " * (3 * WINDOW)
    matcher = Matcher({"x": words("needle")})
    assert matcher.scores("needle " + long)
    assert matcher.scores(long + "needle")
    assert not matcher.scores(long + "needle " + long)
    assert len(window(long)) <= 2 * WINDOW + 1


def naive(patterns: list[Pattern], text: str):
    """What the documentation says, written in the simplest way."""

    def is_word(c: str) -> None:
        return c.isalnum() or c == "_"

    folded = text.casefold()
    found = set()
    for pattern in patterns:
        wanted = pattern.text.casefold()
        wanted = wanted.strip() if pattern.kind == "Word" else wanted
        at = folded.find(wanted) if wanted else -1
        while at >= 0:
            before, after = folded[at - 1 : at], folded[at + len(wanted) : at + len(wanted) + 1]
            at_start = at == 0
            if pattern.kind == "Literal" or not ((not at_start and is_word(before)) or (after and is_word(after))):
                found.add(wanted)
            at = folded.find(wanted, at + 1)
    return len(found)


@given(
    st.lists(st.builds(Pattern, SMALL, st.sampled_from(["Word", "Literal"]), st.just(1.0)), max_size=8),
    st.text("ab .é", max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_the_matcher_finds_what_the_simple_search_finds(patterns: list[Pattern], text: str):
    count = naive(patterns, text)
    expected = {"x": pytest.approx(score(count))} if count else {}
    for one_by_one in (spans.ONE_BY_ONE, 3, 0):  # all, some and none; the trie finds the others
        with mock.patch.object(spans, "ONE_BY_ONE", one_by_one):
            assert Matcher({"x": patterns}).scores(text) == expected


@pytest.mark.parametrize("text", ["a" * 100_000, "a " * 50_000, "sql " * 25_000, "é" * 100_000])
def test_hostile_text_takes_no_long_time(text: str):
    patterns = words("a " * 60 + "b", "a " * 50 + "c", "sql", "sql sql") + literals(
        "a" * 127 + "b", "a" * 100, "a" * 7 + "+", "+" + "a" * 127
    )
    matcher = Matcher({f"x{n}": patterns for n in range(20)})
    begun = time.process_time()
    matcher.scores(text)
    assert time.process_time() - begun < 0.5  # about 10 ms; quadratic time would be many seconds


LITERAL = st.text("ab.é_", min_size=1, max_size=5)


@given(st.lists(LITERAL, max_size=8), st.lists(st.text("ab .é_", max_size=30), max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_a_matcher_remembers_of_earlier_texts_changes_nothing(patterns: list[str], texts: list[str]):
    matcher = Matcher({"x": literals(*patterns)})
    for text in [*texts, *texts]:
        count = len({p for p in patterns if p in text})
        assert matcher.scores(text) == ({"x": pytest.approx(score(count))} if count else {})


def test_a_matcher_remembers_a_bounded_number_of_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REMEMBERED_WORDS", 10)
    matcher = Matcher({"x": literals("ab")})
    assert matcher.scores(" ".join(f"{n}ab" for n in range(95)) + " " + "c" * 40)
    assert len(matcher._dull) + len(matcher._meanings) <= 10
