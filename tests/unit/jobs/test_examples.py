from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.run import MountedDataset
from largeforge.api.uri import parse_pvc
from largeforge.jobs import data

EXAMPLES = Path(__file__).parents[3] / "examples"
DEMO = EXAMPLES / "01-fine-tune"
KINDS = {kind.__name__: kind for kind in (Expert, FineTuneJob, InferenceService)}
MANIFESTS = sorted(EXAMPLES.glob("*/*.yaml"))


def load(path):
    manifest = yaml.safe_load(path.read_text())
    return KINDS[manifest["kind"]].model_validate(manifest)


@pytest.fixture(scope="module")
def generator():
    return SimpleNamespace(**runpy.run_path(str(DEMO / "make_dataset.py")))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_names_no_namespace_and_no_field_that_we_do_not_know(path):
    manifest = yaml.safe_load(path.read_text())
    assert "namespace" not in manifest["metadata"]
    if manifest["kind"] in KINDS:
        spec = load(path).spec.model_dump(by_alias=True, exclude_unset=True, mode="json")
        assert spec == _numbers(manifest["spec"])


def _numbers(value):
    """YAML reads an unquoted 2e-4 as a text; the API server does not."""
    if isinstance(value, dict):
        return {key: float(item) if key == "learningRate" else _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("folder", sorted({path.parent for path in MANIFESTS}), ids=lambda folder: folder.name)
def test_an_examples_parts_fit_each_other(folder):
    job, service = load(folder / "finetunejob.yaml"), load(folder / "inferenceservice.yaml")
    claim = yaml.safe_load((folder / "claims.yaml").read_text())["metadata"]["name"]
    output = parse_pvc(job.spec.output.uri)
    store = parse_pvc(service.spec.lora.store)
    assert {parse_pvc(job.spec.base.uri).claim, output.claim, store.claim} == {claim}
    assert service.spec.model.uri == job.spec.base.uri
    assert output == store or output.relative_to(store)
    assert job.spec.peft.rank <= service.spec.lora.max_lora_rank
    assert job.spec.publish.expert.inference_service_ref.name == service.metadata.name


def test_the_demos_fallback_is_the_base():
    expert, service = load(DEMO / "expert-fallback.yaml"), load(DEMO / "inferenceservice.yaml")
    assert expert.spec.artifact.uri == service.spec.model.uri
    assert expert.spec.routing.fallback


def test_the_data_set_is_what_its_script_writes(generator):  # else run: python examples/01-fine-tune/make_dataset.py
    assert (DEMO / "train.jsonl").read_text() == generator.rows()


def test_the_data_set_has_no_question_twice_fits_a_configmap_and_passes_our_own_check():
    path = DEMO / "train.jsonl"
    rows = data.read([MountedDataset(uri="configmap://a/b", path=str(path), field="spec.datasets[0].uri")]).rows
    assert len({json.dumps(row["prompt"]) for row in rows}) == len(rows) >= 200
    assert path.stat().st_size < 900_000
