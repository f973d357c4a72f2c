from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import ArtifactRecord, DatasetSummary
from largeforge.api.run import ResolvedSources, RunResult
from largeforge.jobs.adapterfacts import adapter_facts
from largeforge.jobs.artifacterrors import NotAnAdapterError
from largeforge.jobs.errors import RunError
from largeforge.jobs.folders import Folder
from tests.unit.api.test_run import PROBES
from tests.unit.jobs.adapters import PREFIX, adapter, matrices
from tests.unit.jobs.folders import model

URI = "pvc://uploads/sql"
WHOLE = {"base_model.model.lm_head.weight": np.ones((8, 16), np.float32)}


def look(path):
    return adapter_facts(Folder(path, URI, "spec.artifact.uri", NotAnAdapterError))


def refusal(path):
    with pytest.raises(RunError) as caught:
        look(path)
    assert (caught.value.field, caught.value.exit_code) == ("spec.artifact.uri", 65)
    return caught.value.reason, str(caught.value)


def test_an_adapter_is_described_by_its_files(tmp_path):
    facts = look(adapter(tmp_path / "a", arrays=matrices() | matrices(module="v_proj", rank=8), revision="v1"))
    assert (facts.rank, facts.base, facts.base_revision, facts.lora_alpha) == (8, "pvc://models/base", "v1", "8")
    assert facts.target_modules == ["q_proj", "v_proj"]
    assert (facts.parameters, facts.weight_bytes, facts.dtype) == (4 * 32 + 8 * 32, 4 * (4 * 32 + 8 * 32), "F32")
    content = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    assert facts.digest == hashlib.sha256(content).hexdigest()
    assert facts.size_bytes == len(content) + (tmp_path / "a" / "adapter_config.json").stat().st_size
    assert not any((facts.use_dora, facts.modules_to_save, facts.extends_tokenizer, facts.changes_nothing))


@pytest.mark.parametrize("config", [{"r": 64}, {"rank_pattern": {"v_proj": 64}}])
def test_the_rank_is_what_an_engine_has_to_reserve(tmp_path, config):
    assert look(adapter(tmp_path, **config)).rank == 64


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_adapter_whose_b_matrices_are_zero_changes_nothing(tmp_path, zero):
    assert look(adapter(tmp_path / "a", arrays=matrices(b=zero))).changes_nothing
    both = matrices(b=zero) | matrices(module="v_proj", b=1e-30)
    assert not look(adapter(tmp_path / "b", arrays=both)).changes_nothing
    assert not look(adapter(tmp_path / "c", arrays=matrices(b=zero) | WHOLE)).changes_nothing


def test_zeros_are_known_in_16_bit_too(tmp_path):
    for number, (raw, changes) in enumerate([(0x8000, False), (0x0001, True), (0x3F80, True)]):
        arrays = matrices()
        for name in arrays:
            if name.endswith("lora_B.weight"):
                arrays[name] = np.full((16, 4), raw, np.uint16)
        dtypes = {name: "BF16" for name in arrays if name.endswith("lora_B.weight")}
        facts = look(adapter(tmp_path / str(number), arrays=arrays, dtypes=dtypes))
        assert facts.changes_nothing is not changes


def test_an_alpha_of_zero_changes_nothing(tmp_path):
    assert look(adapter(tmp_path, lora_alpha=0)).changes_nothing


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_weight_that_is_no_number_is_told(tmp_path, value):
    arrays = matrices()
    next(iter(arrays.values()))[1, 1] = value
    assert look(adapter(tmp_path / "a", arrays=arrays)).not_finite
    assert not look(adapter(tmp_path / "b")).not_finite


def test_dora_is_told_by_the_configuration_and_by_the_files(tmp_path):
    assert look(adapter(tmp_path / "a", use_dora=True)).use_dora
    vector = {f"{PREFIX}.q_proj.lora_magnitude_vector.weight": np.ones(16, np.float32)}
    facts = look(adapter(tmp_path / "b", arrays=matrices(b=0) | vector))
    assert facts.use_dora
    assert not facts.changes_nothing


def test_modules_that_lie_there_whole_are_named(tmp_path):
    bias = {f"{PREFIX}.q_proj.bias": np.ones(16, np.float32)}
    facts = look(adapter(tmp_path / "a", arrays=matrices() | WHOLE | bias))
    assert facts.modules_to_save == ["lm_head", "q_proj.bias"]
    assert facts.extends_tokenizer, "an output head may have more rows than the base's"
    assert look(adapter(tmp_path / "b", modules_to_save=["score"])).modules_to_save == ["score"]
    assert look(adapter(tmp_path / "c", trainable_token_indices=[1, 2])).extends_tokenizer


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"lora_bias": True}, ["lora_bias"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["init_lora_weights: pissa_niter_4"]),
        ({"init_lora_weights": "gaussian", "use_qalora": False}, []),
        ({"layer_replication": [[0, 4], [2, 5]], "alora_invocation_tokens": [1]},
         ["alora_invocation_tokens", "layer_replication"]),
    ],
)  # fmt: skip
def test_what_engines_compute_otherwise_than_peft_is_named(tmp_path, config, refused):
    assert look(adapter(tmp_path, **config)).refused == refused


def test_tensors_that_engines_have_no_name_for_are_named(tmp_path):
    bias = {f"{PREFIX}.q_proj.lora_B.bias": np.ones(16, np.float32)}
    assert look(adapter(tmp_path / "a", arrays=matrices() | bias)).refused == ["lora_bias"]
    odd = {f"{PREFIX}.v_proj.lora_A.default.weight": np.ones((4, 16), np.float32)}
    assert look(adapter(tmp_path / "b", arrays=matrices() | odd)).refused == list(odd)


def test_an_adapter_of_an_embedding_is_one_too(tmp_path):
    arrays = {
        "base_model.model.model.embed_tokens.lora_embedding_A": np.ones((4, 100), np.float32),
        "base_model.model.model.embed_tokens.lora_embedding_B": np.zeros((16, 4), np.float32),
    }
    facts = look(adapter(tmp_path, arrays=arrays))
    assert (facts.target_modules, facts.changes_nothing, facts.extends_tokenizer) == (["embed_tokens"], True, False)


def made(path, *, digest):
    record = ArtifactRecord(
        kind="Adapter", uri=URI, digest=digest, size_bytes=1, rank=4, base="hf://org/base", base_commit="c" * 40,
        probes=PROBES,
    )  # fmt: skip
    result = RunResult(
        outcome="Succeeded",
        run_digest="d" * 64,
        artifact=record,
        dataset=DatasetSummary(digest="e" * 64, samples=3),
        sources=ResolvedSources(base_digest="b" * 64),
        metrics=[Metric(name="eval_loss", value="1.2"), Metric(name="steps", value="3")],
    )
    (path / "result.json").write_text(result.model_dump_json(by_alias=True))


def test_what_the_run_wrote_beside_it_counts_while_the_weights_are_its_own(tmp_path):
    path = adapter(tmp_path / "a")
    made(path, digest=look(path).digest)
    found = look(path).provenance
    assert (found.base_commit, found.base_digest, found.dataset_digest) == ("c" * 40, "b" * 64, "e" * 64)
    assert (found.probes, [metric.name for metric in found.metrics]) == (PROBES, ["eval_loss"])
    adapter(path, arrays=matrices(b=0.75))
    assert look(path).provenance is None
    (path / "result.json").write_text('{"of": "another make"}')
    assert look(path).provenance is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, f"{URI}: is an adapter of type 'PREFIX_TUNING'; only LORA is served"),
        ({"peft_type": None}, f"{URI}: is an adapter of type 'None'; only LORA is served"),
    ],
)
def test_another_kind_of_adapter_is_refused(tmp_path, config, said):
    assert refusal(adapter(tmp_path, **config)) == ("NotAnAdapter", said)


def test_each_thing_that_is_missing_is_named(tmp_path):
    assert refusal(tmp_path / "no")[0] == "ArtifactNotFound"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        "ArtifactNotFound",
        f"{URI}: the folder is empty, or was not there; copy the files there, or correct the uri",
    )
    (tmp_path / "file").write_text("x")
    assert refusal(tmp_path / "file")[1] == f"{URI}: is a file; name the folder that holds the files"
    assert refusal(model(tmp_path / "model"))[1] == (
        f"{URI}: has no adapter_config.json; it is a whole model, which is served as type Model"
    )
    path = adapter(tmp_path / "a")
    (path / "adapter_model.safetensors").unlink()
    assert refusal(path)[1] == f"{URI}: has no adapter_model.safetensors; copy it there"
    (path / "adapter_model.bin").write_bytes(b"\x80")
    assert refusal(path)[0] == "PickledWeights"


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    lone = {name: array for name, array in matrices().items() if "lora_A" in name}
    other = matrices() | {f"{PREFIX}.q_proj.lora_B.weight": np.ones((16, 3), np.float32)}
    for number, arrays in enumerate((lone, other)):
        reason, said = refusal(adapter(tmp_path / str(number), arrays=arrays))
        assert reason == "NotAnAdapter"
        assert f"A and B of {PREFIX}.q_proj do not belong together" in said
    assert "has no LoRA matrices" in refusal(adapter(tmp_path / "w", arrays=WHOLE))[1]


def test_what_is_damaged_says_which_file(tmp_path):
    path = adapter(tmp_path / "a")
    content = (path / "adapter_model.safetensors").read_bytes()
    (path / "adapter_model.safetensors").write_bytes(content[:-1])
    reason, said = refusal(path)
    assert reason == "WeightsDamaged"
    assert said.startswith(f"{URI}: adapter_model.safetensors is cut short or damaged")
    for text in ("{", "[" * 100_000, "[]"):
        (path / "adapter_config.json").write_text(text)
        assert refusal(path)[0] == "NotAnAdapter"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"])
def test_a_link_is_not_followed(tmp_path, name):
    path = adapter(tmp_path / "a")
    target = tmp_path / "elsewhere"
    if (path / name).exists():
        (path / name).rename(target)
    else:
        target.write_text("{}")
    (path / name).symlink_to(target)
    reason, said = refusal(path)
    assert reason == "SymlinkRefused"
    assert said.startswith(f"{URI}: {name} is a symbolic link, and none is followed")


def test_what_is_no_file_is_refused_and_nothing_waits_for_it(tmp_path):
    path = adapter(tmp_path / "a")
    os.mkfifo(path / "notes")
    assert refusal(path)[0] == "SymlinkRefused"


def test_a_folder_that_is_too_deep_is_refused(tmp_path):
    path = adapter(tmp_path / "a")
    (path / "/".join("abcdefgh")).mkdir(parents=True)
    (path / "/".join("abcdefgh") / "file").write_text("x")
    assert refusal(path)[0] == "FolderTooDeep"


def test_the_tokenizer_beside_it_is_counted_with_added_tokens(tmp_path):
    path = adapter(tmp_path)
    tokens = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 5, "content": "<x>"}]}
    (path / "tokenizer.json").write_text(json.dumps(tokens))
    facts = look(path).tokenizer
    assert (facts.tokens, facts.chat_template) == (6, False)
    (path / "chat_template.jinja").write_text("{{ messages }}")
    other = look(path).tokenizer
    assert other.chat_template
    assert other.digest != facts.digest
