"""What the operator's benchmark copies and draws; the figures themselves are no test."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.benchmarkmodules import BENCHMARKS, modules_of

FOLDER = BENCHMARKS / "operator"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmark, which is no package."""
    with modules_of(FOLDER, monkeypatch) as found:
        yield found


def test_a_copy_has_the_new_name_wherever_the_old_one_began_a_name(module: Any):
    status = {"run": {"jobName": "model-r1-a1", "number": 1}, "names": ["model", "modelled"], "base": "pvc://models/x"}
    assert module("server").renamed(status, "model", "copy-7") == {
        "run": {"jobName": "copy-7-r1-a1", "number": 1},
        "names": ["copy-7", "modelled"],
        "base": "pvc://models/x",
    }


def test_the_picture_has_each_figure_beside_its_target_and_shows_what_misses_it(module: Any):
    drawn = module("picture").draw(
        {"largeforge": {"child_p50_ms": 50.0, "idle_requests_per_second": 0.5}, "yardstick": {"child_p50_ms": 40.0}}
    )
    assert drawn.count(">target<") == 2
    assert drawn.count("#c92a2a") == 1  # 0.5 requests a second are more than 0.2
    assert drawn.count("#2b8a3e") == 1
    assert drawn.count(">yardstick<") == 1
