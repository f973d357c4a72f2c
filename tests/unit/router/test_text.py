from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeforge.router.terms import terms, vocabulary
from largeforge.router.text import BLOCK_CHARACTERS, blocks, canonical

PAGE = "The quarterly report shows that revenue has grown in all regions. " * 30
QUESTION = "How do I join two tables in SQL?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("How do I JOIN two tables?", "how do i join two tables"),
        ("Hi, could you please tell me how to join tables? Thanks in advance!", "how to join tables"),
        ("Hallo, kannst du bitte Tabellen verbinden? Vielen Dank", "tabellen verbinden"),
        ("thanks!", "thanks"),
        ("hi hi hi", "hi hi hi"),
        ("C++ and a{b}", "c + + and a { b }"),
        ("ＳＱＬ　ｊｏｉｎ", "sql join"),
        ("STRASSE straße", "strasse strasse"),
        ("  \n ", ""),
        ("?!", ""),
        ("a \ud800 b", "a b"),
    ],
)
def test_the_canonical_text_has_no_case_no_politeness_and_no_punctuation(text: str, found: str):
    assert canonical(text) == found


@pytest.mark.parametrize("between", ["\n\n", "\n", " "])
@pytest.mark.parametrize("first", [True, False])
def test_a_question_before_or_after_a_pasted_page_is_a_block_of_its_own(between: str, first: Any):
    text = f"{QUESTION}{between}{PAGE}" if first else f"{PAGE}{between}{QUESTION}"
    assert blocks(text) == (canonical(QUESTION),)


@pytest.mark.parametrize("between", ["\n\n", "\n", " "])
@pytest.mark.parametrize("first", [True, False])
def test_where_neither_end_asks_or_both_do_both_are_blocks(between: str, first: Any):
    for order, page in (
        ("Join two tables in SQL for me.", PAGE),
        (QUESTION, f"Did it grow in all of Asia?{between}{PAGE}Did it grow in all of Asia?"),
    ):
        text = f"{order}{between}{page}" if first else f"{page}{between}{order}"
        assert canonical(order) in blocks(text)
        assert len(blocks(text)) == 2


def test_greeting_and_signature_are_no_blocks_by_themselves():
    found = blocks(f"Hi Anna,\n\n{QUESTION[:-1]}.\n\n{PAGE}\n\nWhat does the report say of Asia?\n\nBest,\nBob")
    assert "join two tables in sql" in found[0]
    assert "what does the report say of asia" in found[1]


def test_a_short_text_is_one_block_with_all_its_lines():
    assert blocks("select a\nfrom b\n\nwhy is it slow?") == ("select a from b why is it slow",)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_blocks_are_bounded_and_every_text_has_terms(text: str):
    for block in blocks(text * 20):
        numbers, counts = terms(block)
        assert len(block) <= 4 * BLOCK_CHARACTERS
        assert len(numbers) == len(counts) > 0
        assert (numbers[1:] > numbers[:-1]).all()
        assert (counts >= 1).all()


@given(st.lists(st.text("abc é", min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_known_text_has_length_one_and_an_unknown_one_less(texts: list[str]):
    known = [canonical(text) for text in texts]
    words = vocabulary([terms(text)[0] for text in known])
    for text in known:
        _, values = words.vector(text)
        assert float(values @ values) == pytest.approx(1, abs=1e-5)
    _, values = words.vector(f"{known[0]} xyzzy")
    assert float(values @ values) < 0.99


def test_words_that_are_equal_are_equal_terms_wherever_they_stand():
    one, two = set(terms("join two tables")[0].tolist()), set(terms("the big join")[0].tolist())
    alone = set(terms("join")[0].tolist())
    assert alone <= one
    assert alone <= two
