"""What the operator's benchmark copies and draws; the figures themselves are no test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "operator"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [name for name, found in sys.modules.items() if str(FOLDER) in str(getattr(found, "__file__", ""))]:
        del sys.modules[name]


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
