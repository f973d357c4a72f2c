from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from largeforge.router import table_file
from largeforge.router.classify import WINDOW
from largeforge.router.scan import AUTHORITY
from largeforge.router.settings import PREFIX, Settings

REPO = Path(__file__).resolve().parents[3]
TEXT = (REPO / "docs" / "router.md").read_text()
ROUTING = (REPO / "docs" / "routing.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_documented_with_its_default(name: str):
    default = Settings.model_fields[name].default
    shown = "none" if default in (None, ()) else str(default)
    shown = shown.lower() if isinstance(default, bool) else shown
    assert re.search(rf"\| `{PREFIX}{name.upper()}` \| `?{re.escape(shown)}`? \|", TEXT)


def test_the_example_is_a_table():
    (example,) = [text for text in EXAMPLES if "kind: Expert" in text]
    found = table_file.table(yaml.safe_load_all(example))
    assert sorted(found.routes) == ["general", "smollm", "sql"]


def test_the_charts_values_in_it_are_values_of_the_chart():
    (example,) = [text for text in EXAMPLES if text.startswith("router:")]
    known = yaml.safe_load((REPO / "charts" / "largeforge" / "values.yaml").read_text())
    assert set(yaml.safe_load(example)["router"]) <= set(known["router"])


def test_the_window_is_documented():
    assert f"at most {2 * WINDOW:,} characters, the first and the last {WINDOW:,}" in ROUTING


def test_each_member_that_is_refused_is_documented():
    (paragraph,) = [line for line in TEXT.splitlines() if "`forbidden_member`" in line]
    assert [name for name in AUTHORITY if f"`{name}`" not in paragraph] == []
