from __future__ import annotations

from typing import get_args

import pytest

from dev.paths import REPO
from largeforge.api.quantizejob import Method
from largeforge.api.servable import TABLE, refusal, row


@pytest.mark.parametrize("on_cpu", [True, False])
def test_each_method_that_the_schema_takes_has_a_row(on_cpu):
    for method in get_args(Method):
        assert row(method, "LLMCompressor", on_cpu=on_cpu) is not None
    assert row("AWQ", "AutoAWQ", on_cpu=on_cpu) is not None


def test_no_row_stands_there_twice():
    assert len({(one.method, one.library, one.device) for one in TABLE}) == len(TABLE)


def test_what_does_not_start_with_lora_is_refused_with_the_remedy():
    assert refusal("W8A8", "LLMCompressor", on_cpu=True, with_lora=False) is None
    said = refusal("W8A8", "LLMCompressor", on_cpu=True, with_lora=True)
    assert said is not None
    assert said.startswith("with LoRA the engine does not start on W8A8")
    assert said.endswith("without spec.lora")


def test_what_nobody_makes_is_refused():
    assert refusal("GPTQ", "AutoAWQ", on_cpu=True, with_lora=False) == (
        "no engine serves GPTQ by AutoAWQ on a CPU; choose another method"
    )


def test_nothing_is_refused_that_was_not_tried():
    assert all(one.tried for one in TABLE if one.lora is False)


def test_the_page_shows_the_table():
    words = {True: "yes", False: "no", None: "not tried"}
    page = (REPO / "docs/quantizer.md").read_text()
    for one in TABLE:
        serves = words[one.tried or None]
        assert f"| {one.method} | {one.library} | {one.device} | {serves} | {words[one.lora]} |" in page
