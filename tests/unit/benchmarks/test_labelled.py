"""The labelled set of the classifier's benchmark is what its script makes, and its test rows are no copies."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "classifier"


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch):
    """The module, which is in no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("labelled")
    sys.modules.pop("labelled")


def test_the_file_is_what_the_script_makes(labelled: Any):
    assert labelled.FILE.read_text() == labelled.written(labelled.rows()), (
        "run: python benchmarks/classifier/labelled.py"
    )


def test_the_counts_hold(labelled: Any):
    rows = labelled.load()
    experts = Counter(row.expert for row in rows if row.expert)
    assert len(experts) >= 12
    assert min(experts.values()) >= 150
    assert sum(row.expert is None for row in rows) == 600
    assert labelled.FILE.stat().st_size < 1_000_000


def test_no_text_is_there_twice(labelled: Any):
    texts = Counter(row.text for row in labelled.load())
    assert [text for text, count in texts.items() if count > 1] == []


def test_no_template_of_a_test_row_is_learnt_from(labelled: Any):
    rows = labelled.load()
    learnt = {row.template for row in rows if row.split == "learn"}
    tested = {row.template for row in rows if row.split == "test"}
    assert learnt.isdisjoint(tested)


def test_no_template_of_a_test_row_is_written_like_one_that_is_learnt_from(labelled: Any):
    """Copies with a word changed would pass the test above."""

    def words(template: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", template.lower()))

    for path in (FOLDER / "written").glob("*.txt"):
        if path.stem in ("none", "pastes"):
            continue
        templates = [words(template) for template in labelled.read(path).templates]
        learnt = [t for i, t in enumerate(templates) if not labelled.for_tests(i)]
        tested = [t for i, t in enumerate(templates) if labelled.for_tests(i)]
        close = [(set(a), set(b)) for a in learnt for b in tested if len(a & b) > 0.6 * len(a | b)]
        assert close == [], path.name


def test_each_page_has_templates_enough_and_each_slot_values_enough_to_share(labelled: Any):
    for path in (FOLDER / "written").glob("*.txt"):
        if path.stem != "pastes":
            page = labelled.read(path)
            assert len(set(page.templates)) >= 100, path.name
            used = {name for template in page.templates for name in labelled.SLOT.findall(template)}
            assert used == set(page.slots), path.name
            assert min(map(len, page.slots.values())) >= 9, path.name


def test_a_typo_changes_one_word(labelled: Any):
    text = "Which orders have no matching row?"
    for number in range(50):
        changed = labelled.misspelt(text, labelled.Draw(str(number)))
        assert sum(a != b for a, b in zip(text.split(), changed.split(), strict=True)) <= 1


def test_each_style_is_there_among_the_tests_of_the_experts_and_of_none(labelled: Any):
    wanted = {"plain", "lower case", "typos", "polite", "mixed languages", "pasted"}
    rows = [row for row in labelled.load() if row.split == "test"]
    assert {row.style for row in rows if row.expert} == wanted
    assert {row.style for row in rows if row.expert is None} == wanted
