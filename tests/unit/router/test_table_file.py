from __future__ import annotations

from pathlib import Path

import pytest

from largeforge.router.endpoints import Pod
from largeforge.router.table_file import TableFileError, load
from tests.unit.router.lab import EXPERTS

ENDPOINTS = """
---
endpoints:
  - {service: smol, url: "http://127.0.0.1:8000", key: secret}
  - {service: smol, url: "http://engine.example"}
"""


def write(tmp_path: Path, text: str):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    return path


def test_a_file_makes_the_table_that_a_cluster_would(tmp_path: Path):
    found = load(write(tmp_path, EXPERTS + ENDPOINTS))
    assert sorted(found.routes) == ["general", "poetry", "smol"]
    assert found.routes["poetry"].pods == (Pod("127.0.0.1", 8000), Pod("engine.example", 80))
    assert (found.routes["poetry"].model, found.routes["general"].model) == (b'"poetry"', b'"smol"')
    assert found.public.fallback is found.routes["general"]


def test_a_stated_placement_names_the_adapter(tmp_path: Path):
    text = EXPERTS + ENDPOINTS.replace("endpoints:", "endpoints:")
    stated = text.replace(
        "- kind: Expert\n  metadata: {name: poetry}",
        "- kind: Expert\n  status: {placement: {engineName: poetry-v2, desired: 1, loaded: 1, summary: 1/1}}\n"
        "  metadata: {name: poetry}",
    )
    assert load(write(tmp_path, stated)).routes["poetry"].model == b'"poetry-v2"'


def test_manifests_one_document_each_and_a_service_beside_them(tmp_path: Path):
    text = """
apiVersion: largeforge.ai/v1alpha1
kind: InferenceService
metadata: {name: smol}
spec: {model: {uri: pvc://m/x}}
---
kind: Expert
metadata: {name: general}
spec: {type: Model, artifact: {uri: "pvc://m/x"}, inferenceServiceRef: {name: smol}}
"""
    assert sorted(load(write(tmp_path, text + ENDPOINTS)).routes) == ["general", "smol"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "while parsing"),
        ("kind: Pod", "kind 'Pod': write Expert"),
        ("- 5", "expected objects, found int"),
        (EXPERTS, "Expert 'poetry': no endpoint has service 'smol'"),
        ("endpoints: [{service: smol, url: 'https://x'}]", "endpoints[0].url: write http://<host>:<port>"),
        ("endpoints: [{service: smol, url: 'http://x/v1'}]", "endpoints[0].url"),
        ("endpoints: [{service: smol, urll: 'http://x'}]", "endpoints.0.url"),
        ("kind: Expert\nmetadata: {name: x}", "Expert: spec: Field required"),
    ],
)
def test_what_is_wrong_is_said_with_the_files_name(tmp_path: Path, text: str, message: str):
    path = write(tmp_path, text)
    with pytest.raises(TableFileError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(TableFileError, match="No such file"):
        load(tmp_path / "none.yaml")
