from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from largeforge.api.uri import (
    ConfigMapUri,
    DatasetUriText,
    HfUri,
    ModelUriText,
    PvcUri,
    PvcUriText,
    Revision,
    parse,
    parse_pvc,
)


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


def test_a_repository_of_the_hub_is_read():
    assert parse("hf://Qwen/Qwen2.5-7B-Instruct") == HfUri("Qwen/Qwen2.5-7B-Instruct")
    assert str(parse("hf://b-mc2/sql-create-context")) == "hf://b-mc2/sql-create-context"


@pytest.mark.parametrize(
    "text",
    [
        "hf://model",
        "hf://org/model/sub",
        "hf://org/.hidden",
        "hf://../model",
        "hf://org/mo del",
        "hf://",
        "hf://org/x\n",
    ],
)
def test_what_is_no_repository_is_refused(text: str):
    with pytest.raises(ValueError, match="not a pvc:// URI"):
        parse(text)


ALL = [
    "pvc://models",
    "pvc://models/a/b",
    "configmap://data/train.jsonl",
    "hf://org/model",
    "s3://bucket/x",
    "pvc://a/.b",
]


@pytest.mark.parametrize(
    ("form", "taken"),
    [
        (PvcUriText, ["pvc://models", "pvc://models/a/b"]),
        (ModelUriText, ["pvc://models", "pvc://models/a/b", "hf://org/model"]),
        (DatasetUriText, ["pvc://models/a/b", "configmap://data/train.jsonl", "hf://org/model"]),
    ],
    ids=["output", "model", "data set"],
)
def test_each_field_takes_the_forms_that_it_can_use(form: object, taken: list[str]):
    def is_taken(text: str) -> bool:
        try:
            TypeAdapter(form).validate_python(text)
        except ValidationError:
            return False
        return True

    assert [text for text in ALL if is_taken(text)] == taken


@pytest.mark.parametrize("text", ["main", "v1.0", "refs/pr/12", "0123456789abcdef0123456789abcdef01234567"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(text: str):
    assert TypeAdapter(Revision).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "-x", "/main", "a//b", "a b", "x" * 129])
def test_a_revision_is_no_option_and_no_path(text: str):
    with pytest.raises(ValidationError):
        TypeAdapter(Revision).validate_python(text)
