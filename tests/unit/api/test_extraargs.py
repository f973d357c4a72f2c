from __future__ import annotations

import pytest

from largeforge.api import crds
from largeforge.api.extraargs import RESERVED_ARGS
from largeforge.api.finetunejob import FineTuneJob

SPEC = crds.structural(FineTuneJob.model_json_schema(), FineTuneJob.model_json_schema()["$defs"])["properties"]["spec"]


@pytest.mark.parametrize("name", sorted(RESERVED_ARGS))
def test_a_reserved_name_is_refused_with_the_field_that_sets_it(name: str):
    rules = [
        rule
        for rule in SPEC["properties"]["extraArgs"]["x-kubernetes-validations"]
        if f"has(self.{name})" in rule["rule"]
    ]
    assert [RESERVED_ARGS[name] in rule["message"] and name in rule["message"] for rule in rules] == [True]
    assert name in SPEC["properties"]["extraArgs"]["properties"]


@pytest.mark.parametrize("field", sorted({part for field in RESERVED_ARGS.values() for part in field.split(" and ")}))
def test_the_field_that_sets_it_is_one_of_ours(field: str):
    node = SPEC
    for part in field.removeprefix("spec.").split("."):
        name = part.removesuffix("[]")
        node = node["properties"][name]
        node = node["items"] if part.endswith("[]") else node
    assert node["description"]
