from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.embedding import model
from largeforge.router.embedding import whole_words
from largeforge.router.spelling import MOST_WORDS, spelling

EXAMPLES = [
    "which customers bought items",
    "join two tables with an index",
    "customers of each month",
    "the köln office",
]


@pytest.fixture(scope="module")
def found():
    return spelling(EXAMPLES, whole_words(model()))


@pytest.mark.parametrize(
    ("block", "right"),
    [
        ("whcih customers", "which customers"),
        ("custmers and cuxstomers", "customers and customers"),
        ("two tabels", "two tables"),
        ("the kölnn office", "the köln office"),
        ("ustomers", "ustomers"),
        ("two fables", "two fables"),
        ("trust and rust", "trust and rust"),
        ("jion", "join"),
        ("jon", "jon"),
        ("x1 tabl3s", "x1 tabl3s"),
        ("", ""),
    ],
)
def test_a_word_with_one_wrong_letter_is_set_right_and_a_known_one_is_left(found, block: str, right: str):
    assert found.corrected(block) == right


def test_the_commonest_word_of_the_examples_is_meant():
    both = spelling(["rows rows rows", "rowe", "rown"], ["the"])
    assert both.corrected("rowx") == "rows"
    assert spelling(["rown", "rowe"], ["the"]).corrected("rowx") == "rowe"


def test_without_a_list_of_words_nothing_is_set_right():
    assert spelling(EXAMPLES, ()) is None


def test_a_text_of_unknown_words_is_left_after_a_few(found):
    block = " ".join(["tabels"] * 20)
    assert found.corrected(block).split().count("tables") == MOST_WORDS


@given(st.lists(st.text("abct", min_size=1, max_size=7), max_size=9))
@settings(max_examples=200, deadline=None)
def test_what_is_right_stays_and_words_stay_as_many(found, words: list[str]):
    block = " ".join(words)
    right = found.corrected(block)
    assert len(right.split(" ")) == len(block.split(" "))
    assert found.corrected(right).split(" ") == right.split(" ") or len(words) > MOST_WORDS
