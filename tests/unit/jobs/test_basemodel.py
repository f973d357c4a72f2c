from __future__ import annotations

import hashlib
import json

import pytest

from largeforge.api.run import ModelSource
from largeforge.jobs import basemodel, weights
from largeforge.jobs.errors import BaseInvalidError
from tests.unit.jobs.folders import model, safetensors

URI = "pvc://models/base"


def source(**fields):
    return ModelSource(uri=URI, field="spec.base.uri", path=None, **fields)


def inspect(path, **fields):
    return basemodel.inspect(path, source(**fields))


def refusal(path):
    with pytest.raises(BaseInvalidError) as caught:
        inspect(path)
    assert (caught.value.field, caught.value.exit_code) == ("spec.base.uri", 65)
    return str(caught.value)


def test_a_whole_folder_passes_with_its_weights(tmp_path):
    base = inspect(model(tmp_path / "m"))
    assert weights.digest(base.weights) == hashlib.sha256(safetensors()).hexdigest()
    assert base.size == len(safetensors())


def test_a_missing_folder_says_what_to_do(tmp_path):
    assert refusal(tmp_path / "no") == f"{URI}: there is no such folder; copy the model there, or correct the uri"


def test_an_adapter_is_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refusal(tmp_path) == f"{URI}: has no config.json; it must be a model's folder, not an adapter's"


@pytest.mark.parametrize("file", ["config", "tokenizer_config"])
def test_code_of_the_models_own_is_refused(tmp_path, file):
    path = model(tmp_path, **{file: {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}})
    assert f"{file}.json has auto_map, which asks for code of the model's own" in refusal(path)
    inspect(path, trust_remote_code=True)


def test_pickles_alone_are_refused_and_beside_safetensors_ignored(tmp_path):
    path = model(tmp_path / "p", weights=())
    (path / "pytorch_model.bin").write_bytes(b"\x80")
    assert refusal(path) == f"{URI}: has pickled weights only; convert them to safetensors"
    (path / "model.safetensors").write_bytes(safetensors())
    inspect(path)


def test_files_that_the_index_does_not_name_are_not_the_models(tmp_path):
    path = model(tmp_path / "a", weights=("model.safetensors", "consolidated.safetensors"))
    assert [file.name for file in inspect(path).weights] == ["model.safetensors"]
    path = model(tmp_path / "b", weights=("model-1.safetensors", "other.safetensors"))
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert [file.name for file in inspect(path).weights] == ["model-1.safetensors"]


def test_weights_that_are_missing_or_cut_short_are_found(tmp_path):
    assert refusal(model(tmp_path / "a", weights=())) == f"{URI}: has no *.safetensors; copy the weights there"
    path = model(tmp_path / "b")
    (path / "model.safetensors").write_bytes(safetensors(cut=3))
    assert "model.safetensors is cut short or damaged" in refusal(path)
    path = model(tmp_path / "c", weights=("model-1.safetensors",))
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert refusal(path) == f"{URI}: lacks 1 of its weight files, first model-2.safetensors; copy it again"


def test_a_tokenizer_is_needed_and_a_chat_template_for_messages(tmp_path):
    path = model(tmp_path)
    (path / "chat_template.jinja").unlink()
    with pytest.raises(basemodel.ChatTemplateMissingError, match="has no chat template, which messages need"):
        basemodel.require_chat_template(inspect(path), source())
    (path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    basemodel.require_chat_template(inspect(path), source())
    (path / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(path)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"n_positions": 5}, 1 << 20),
    ],
)
def test_positions_are_read_from_the_configuration(tmp_path, config, found):
    assert basemodel.positions(model(tmp_path, config=config)) == found


def test_a_configuration_that_is_no_json_is_named(tmp_path):
    path = model(tmp_path)
    (path / "config.json").write_text("{")
    assert refusal(path) == f"{URI}: config.json cannot be read as JSON; copy it again"
    (path / "config.json").write_text("[]")
    assert refusal(path) == f"{URI}: config.json is no JSON object; copy it again"
