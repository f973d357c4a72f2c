from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.run import RowSource
from largeforge.api.uri import parse_pvc
from largeforge.jobs import sources

EXAMPLES = Path(__file__).parents[3] / "examples"
DEMO = EXAMPLES / "01-fine-tune"
KINDS = {kind.__name__: kind for kind in (Expert, FineTuneJob, InferenceService, QuantizeJob)}
MANIFESTS = sorted(EXAMPLES.glob("*/*.yaml"))
SCRIPTS = sorted(EXAMPLES.glob("*/make_dataset.py"))
FOLDERS = sorted({path.parent for path in MANIFESTS})
PAIR = ("finetunejob.yaml", "inferenceservice.yaml")
SERVED = [folder for folder in FOLDERS if all((folder / name).exists() for name in PAIR)]
PARTS = ["## What you get", "## Run it", "## Clean up"]


def load(path):
    manifest = yaml.safe_load(path.read_text())
    return KINDS[manifest["kind"]].model_validate(manifest)


def job_of(folder):
    return load(EXAMPLES / folder / "finetunejob.yaml")


def held(path, columns):
    """The rows of *path* in the words of *columns*, each as one text."""
    return {json.dumps([json.loads(line)[name] for name in columns]) for line in path.read_text().splitlines()}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_names_no_namespace_and_no_field_that_we_do_not_know(path):
    for manifest in yaml.safe_load_all(path.read_text()):
        assert "namespace" not in manifest["metadata"]
        if manifest["kind"] in KINDS:
            read = KINDS[manifest["kind"]].model_validate(manifest)
            assert read.spec.model_dump(by_alias=True, exclude_unset=True, mode="json") == _numbers(manifest["spec"])


def _numbers(value):
    """YAML reads an unquoted 2e-4 as a text; the API server does not."""
    if isinstance(value, dict):
        return {key: float(item) if key == "learningRate" else _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_has_a_readme_of_three_parts_and_is_listed(folder):
    headings = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == PARTS
    assert f"({folder.name}/)" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("folder", SERVED, ids=lambda folder: folder.name)
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


def test_the_small_expert_comes_from_the_demos_and_is_served_by_its_own_service():
    folder = EXAMPLES / "08-quantize"
    job, service = load(folder / "quantizejob.yaml"), load(folder / "inferenceservice-small.yaml")
    demo, expert = load(DEMO / "finetunejob.yaml"), job.spec.publish.expert
    assert job.spec.source.expert_ref.name == demo.spec.publish.expert.name
    assert (service.metadata.name, service.spec.model.expert_ref.name) == (
        expert.inference_service_ref.name,
        expert.name,
    )
    assert service.metadata.name != expert.name, "both are names at the router"
    assert job.spec.calibration.datasets[0].uri == demo.spec.datasets[0].uri


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_a_data_set_is_what_its_script_writes(script):  # else run: python examples/<example>/make_dataset.py
    written = runpy.run_path(str(script))["rows"]()
    texts = [written] if isinstance(written, str) else list(written)
    names = ["train.jsonl", "heldout.jsonl"][: len(texts)]
    assert [(script.parent / name).read_text() for name in names] == texts


@pytest.mark.parametrize(
    ("folder", "name", "least"),
    [
        ("01-fine-tune", "train.jsonl", 200),
        ("03-lora-with-gate", "train.jsonl", 100),
        ("03-lora-with-gate", "heldout.jsonl", 20),
        ("05-continue-from-a-run", "train.jsonl", 40),
    ],
)
def test_a_data_set_has_no_question_twice_fits_a_configmap_and_passes_our_own_check(folder, name, least):
    path = EXAMPLES / folder / name
    spec = RowSource(uri=f"configmap://rows/{name}", path=str(path), field="spec.datasets[0]")
    rows = [entry.row for entry in sources.rows(sources.open_source(spec, None))]  # a bad one has no row
    assert len({json.dumps(row["prompt"]) for row in rows}) == len(rows) >= least
    assert path.stat().st_size < 900_000


def test_no_held_out_row_of_an_example_is_trained_on():
    folder = EXAMPLES / "03-lora-with-gate"
    trained = held(folder / "train.jsonl", ["output"])
    assert held(folder / "heldout.jsonl", ["output"]).isdisjoint(trained)


def test_the_example_that_goes_on_has_the_rank_and_the_service_of_the_one_before():
    before, after = job_of("03-lora-with-gate"), job_of("05-continue-from-a-run")
    assert after.spec.base.fine_tune_job_ref.name == before.metadata.name
    assert after.spec.peft.rank == before.spec.peft.rank
    service = load(DEMO / "inferenceservice.yaml")
    for job in (before, after):
        assert job.spec.publish.expert.inference_service_ref.name == service.metadata.name
        assert parse_pvc(job.spec.output.uri) == parse_pvc(service.spec.lora.store)
        assert job.spec.peft.rank <= service.spec.lora.max_lora_rank
    assert before.spec.base.uri == service.spec.model.uri


def test_claims_of_the_example_from_a_hub_are_those_that_its_job_names():
    folder, spec = EXAMPLES / "06-from-a-hub-on-gpus", job_of("06-from-a-hub-on-gpus").spec
    named = {parse_pvc(uri).claim for uri in (spec.cache.uri, spec.checkpoint.uri, spec.output.uri)}
    there = {claim["metadata"]["name"] for claim in yaml.safe_load_all((folder / "claims.yaml").read_text())}
    assert there == named
