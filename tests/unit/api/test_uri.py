from __future__ import annotations

import pytest

from largeforge.api.uri import ConfigMapUri, PvcUri, parse, parse_pvc


def test_a_claim_and_its_path_are_read():
    assert parse("pvc://models/adapters/sql") == PvcUri("models", "adapters/sql")
    assert parse("pvc://models") == PvcUri("models", "")


def test_a_key_of_a_configmap_is_read():
    assert parse("configmap://data/train.jsonl") == ConfigMapUri("data", "train.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "pvc://models/../secrets",
        "pvc://models/./x",
        "pvc://models//x",
        "pvc://models/",
        "pvc://models/.hidden",
        "pvc:///x",
        "pvc://Models/x",
        "pvc://models/x\n",
        "pvc://models/-x",
        "s3://bucket/x",
        "/etc/passwd",
        "",
    ],
)
def test_what_is_no_path_on_a_claim_is_refused_with_the_form_that_is_wanted(text: str):
    with pytest.raises(ValueError, match=r"write pvc://<claim>/<path>"):
        parse_pvc(text)


def test_a_path_knows_what_lies_inside_it():
    store = PvcUri("models", "experts")
    assert PvcUri("models", "experts/sql/r1").relative_to(store) == "sql/r1"
    assert PvcUri("models", "experts").relative_to(store) is None
    assert PvcUri("models", "experts-old/sql").relative_to(store) is None
    assert PvcUri("other", "experts/sql").relative_to(store) is None
    assert PvcUri("models", "sql").relative_to(PvcUri("models", "")) == "sql"


def test_a_uri_is_written_as_it_was_read():
    for text in ("pvc://models", "pvc://models/a/b", "configmap://data/train.jsonl"):
        assert str(parse(text)) == text
    assert str(PvcUri("models", "a").child("b")) == "pvc://models/a/b"
