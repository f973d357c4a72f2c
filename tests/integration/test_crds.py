"""What `kubectl apply` says of good and bad manifests, and `kubectl explain` of fields."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from largeforge.api import crds
from tests.integration.conftest import REPO, Server
from tests.integration.manifests import BAD, GOOD, Bad, Manifest, inferenceservice

pytestmark = pytest.mark.integration
EXAMPLES = sorted((REPO / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("good", GOOD, ids=str)
def test_a_good_manifest_is_taken(server: Server, good: str):
    done = server.apply(GOOD[good]())
    assert done.returncode == 0, done.stderr


def test_every_field_of_a_job_is_in_a_good_manifest():
    known = crds.crd(crds.KINDS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    known["properties"]["extraArgs"].pop("properties")  # those that are refused
    known["properties"]["evalDataset"]["properties"]["columns"].pop("properties")  # as those of datasets
    expert = known["properties"]["publish"]["properties"]["expert"]["properties"]
    for part in ("routing", "defaults", "limits", "access"):  # their fields are in the Expert's manifests
        expert[part].pop("properties")
    written = {path for name, good in GOOD.items() if name.startswith("finetunejob") for path in paths(good()["spec"])}
    assert sorted(fields(known) - written) == []


def test_every_field_of_a_quantizejob_is_in_a_good_manifest():
    kind = next(kind for kind in crds.KINDS if kind.name == "QuantizeJob")
    known = crds.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    template = known["properties"]["compute"]["properties"]["podTemplate"]  # as that of a FineTuneJob
    template.pop("properties")
    gate = known["properties"]["qualityGate"]["properties"]["dataset"]["properties"]
    for rows in (gate, known["properties"]["calibration"]["properties"]["datasets"]["items"]["properties"]):
        rows.clear()  # as the data sets of a FineTuneJob
    known["properties"]["publish"]["properties"]["expert"].pop("properties")
    written = {path for name, good in GOOD.items() if name.startswith("quantizejob") for path in paths(good()["spec"])}
    assert sorted(fields(known) - written) == []


def test_every_field_of_an_inferenceservice_is_in_a_good_manifest():
    kind = next(kind for kind in crds.KINDS if kind.name == "InferenceService")
    known = crds.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    compute = known["properties"]["compute"]["properties"]
    for part in ("podTemplate", "resources"):  # their fields are in the jobs' manifests
        compute.pop(part)
    written = {path for name, good in GOOD.items() if "inferenceservice" in name for path in paths(good()["spec"])}
    assert sorted(fields(known) - written) == []


def fields(schema: Manifest, path: str = "") -> set[str]:
    """The paths of all fields of *schema* that a user writes."""
    found = set()
    for name, child in schema.get("properties", {}).items():
        found |= {f"{path}.{name}"} | fields(child, f"{path}.{name}")
    return found | fields(schema["items"], f"{path}[]") if "items" in schema else found


def paths(written: Any, path: str = "") -> set[str]:
    """The paths of all fields that are *written*."""
    if isinstance(written, list):
        return {found for each in written for found in paths(each, f"{path}[]")}
    if not isinstance(written, dict):
        return set()
    return {f"{path}.{name}" for name in written} | {f for k, v in written.items() for f in paths(v, f"{path}.{k}")}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title)
def test_a_bad_manifest_is_refused_with_the_field_and_the_remedy(server: Server, bad: Bad):
    done = server.apply(bad.manifest())
    assert done.returncode != 0, done.stdout
    assert bad.message in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(REPO)))
def test_an_example_is_taken_by_the_server_and_read_by_our_models(server: Server, path: Path):
    done = server.kubectl("apply", "--server-side", "--dry-run=server", "-f", str(path))
    assert done.returncode == 0, done.stderr
    models: dict[str, Any] = {kind.name: kind.model for kind in crds.KINDS}
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest["kind"] in models:
            models[manifest["kind"]].model_validate(manifest)


def test_a_number_may_be_written_as_people_write_it(server: Server):
    text = yaml.safe_dump(GOOD["finetunejob"]()).replace("learningRate: 0.0002", "learningRate: 2e-4")
    assert "learningRate: 2e-4" in text
    done = server.kubectl("apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"]["training"]["learningRate"] == 0.0002


def test_a_field_that_does_not_exist_is_refused_by_kubectl(server: Server):
    manifest: Manifest = copy.deepcopy(inferenceservice())
    manifest["spec"]["replica"] = 2
    done = server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    assert done.returncode != 0
    assert 'unknown field "spec.replica"' in done.stderr


def test_the_type_of_an_expert_cannot_change(server: Server):
    expert = GOOD["model expert"]() | {"metadata": {"name": "steady"}}
    done = server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(expert))
    assert done.returncode == 0, done.stderr
    changed = copy.deepcopy(expert)
    changed["spec"] |= {"type": "Adapter", "sourceRef": {"kind": "FineTuneJob", "name": "x"}}
    del changed["spec"]["artifact"]
    done = server.apply(changed)
    assert done.returncode != 0
    assert "type cannot change; make another Expert" in done.stderr


def test_explain_says_what_a_field_means_and_what_it_is_by_default(server: Server):
    done = server.kubectl("explain", "finetunejob.spec.training.learningRate")
    assert "<number>" in done.stdout
    assert "for example 2e-4; by default 2e-4 with LoRA and 2e-5 for all weights" in " ".join(done.stdout.split())


def test_all_kinds_are_found_by_their_category_and_short_names(server: Server):
    done = server.kubectl("api-resources", "--categories=forge", "-o", "name")
    assert set(done.stdout.split()) == {f"{kind.plural}.largeforge.ai" for kind in crds.KINDS}
    for kind in crds.KINDS:
        done = server.kubectl("get", kind.short, "--ignore-not-found")
        assert done.returncode == 0, done.stderr


def test_defaults_are_filled_in_by_the_server_where_the_schema_has_them(server: Server):
    done = server.kubectl(
        *("apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-"),
        stdin=json.dumps(GOOD["finetunejob"]()),
    )
    spec = json.loads(done.stdout)["spec"]
    assert spec["training"]["maxLength"] == 2048
    assert spec["backoffLimit"] == 3
    assert "maxSteps" not in spec["training"]
    assert spec["publish"]["expert"]["routing"]["enabled"] is True
