from __future__ import annotations

import pytest

from largeforge.router.classifier import ExpertText, Rule, learn
from largeforge.router.classify import Pattern

SQL = (
    "how do I join two tables",
    "which customers bought more than ten items",
    "select all rows where the price is above ten",
    "write a query for the revenue of each month",
    "add an index to this table",
    "count the orders of each customer",
    "delete duplicate rows",
    "what does a left join return",
)
COOKING = (
    "how long do I boil eggs",
    "a recipe for banana bread",
    "which flour is good for pizza dough",
    "how do I chop onions",
    "at what temperature is a chicken roasted",
    "a vegan lasagna for six people",
    "how do I thicken a sauce",
    "what can replace butter in a cake",
)


def expert(name: str, *examples: str, keywords: tuple[str, ...] = (), **rule: float):
    patterns = tuple(Pattern(keyword, "Word", 1.0) for keyword in keywords)
    return ExpertText(name, patterns, examples, rule=Rule(**rule))


BOTH = [expert("sql", *SQL), expert("cooking", *COOKING)]


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("count the rows of a table for each customer", "sql"),
        ("How long do I roast onions for a sauce?", "cooking"),
        ("WHICH FLOUR FOR BREAD", "cooking"),
        ("my train is late again", None),
        ("", None),
        ("?!", None),
    ],
)
def test_a_text_goes_to_the_expert_whose_examples_it_is_like(text: str, winner: str | None):
    assert learn(BOTH).decide([text]).expert == winner


def test_experts_without_examples_are_chosen_by_keywords_alone():
    found = learn([expert("sql", keywords=("sql",)), expert("cooking")]).decide(["some sql"])
    assert (found.expert, found.reason) == ("sql", "keyword")
    assert found.score == pytest.approx(2 / 3)


def test_nothing_is_chosen_where_there_is_no_expert():
    assert learn([]).decide(["hello"]).expert is None
    assert learn(BOTH).decide([]).expert is None
