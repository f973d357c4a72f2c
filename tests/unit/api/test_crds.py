from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from largeforge.api import crds
from largeforge.api.model import Model

REPO = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("folder", ["crds", "charts/largeforge/files/crds"])
def test_crds_are_current(folder: str):
    on_disk = {path.name: path.read_text() for path in (REPO / folder).glob("*.yaml")}
    assert on_disk == crds.render(), "run `make generate`"


def nodes(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            found += nodes(schema[word], f"{path}[]")
    return found


def schemas() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for text in crds.render().values():
        crd = yaml.safe_load(text)
        root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            found += [(f"{crd['spec']['names']['kind']}.{path}", node) for path, node in nodes(root[part], part)]
    return found


def test_every_field_has_a_description():
    missing = [path for path, node in schemas() if not path.endswith("[]") and not node.get("description")]
    assert missing == []


def test_every_string_list_and_map_is_bounded():
    unbounded = []
    for path, node in schemas():
        kind = node.get("type")
        bounded = (
            (kind == "string" and ("maxLength" in node or "enum" in node or node.get("format") == "date-time"))
            or (kind == "array" and "maxItems" in node)
            or (kind == "object" and ("properties" in node or "maxProperties" in node))
            or kind in {"integer", "number", "boolean"}
            or node.get("x-kubernetes-preserve-unknown-fields")
        )
        if not bounded:
            unbounded.append(path)
    assert unbounded == []


def test_a_status_has_no_defaults():
    assert [path for path, node in schemas() if ".status" in path and "default" in node] == []


def test_what_a_structural_schema_cannot_say_is_refused():
    class Two(Model):
        value: int | str

    with pytest.raises(TypeError, match="union"):
        crds.structural(Two.model_json_schema(), {})
