from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from largeforge.api.inspect import InspectConfig, InspectResult
from largeforge.api.messages import QUESTION
from largeforge.api.run import ModelSource
from largeforge.jobs import errand, hub, hubhosts, inspect
from largeforge.jobs.architecture import NAMES
from largeforge.jobs.errors import RunError
from tests.hub import RULES_FILE, Hub, commit_of
from tests.unit.jobs.adapters import adapter, tensors_of
from tests.unit.jobs.folders import model, safetensors
from tests.unit.jobs.test_architecture import LLAMA

URI = "pvc://models/base"
CONFIG = LLAMA | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def resolve(path):
    """What transformers gives in the trainer's image; here the file itself."""
    raw = json.loads((path / "config.json").read_bytes())
    return {name: value for name, value in raw.items() if name in NAMES}, ""


def question(path, *, expect="Model", cache=None, **source):
    fields = {"uri": URI, "field": "spec.model.uri", "path": None if path is None else str(path)} | source
    return InspectConfig(expect=expect, source=ModelSource(**fields), cache_path=cache)


def look(path, **fields):
    return inspect.answer(question(path, **fields), resolve=resolve).model


def refusal(path, **fields):
    with pytest.raises(RunError) as caught:
        look(path, **fields)
    return caught.value.reason, str(caught.value)


def test_a_models_folder_is_described_without_loading_it(tmp_path):
    asked = question(model(tmp_path / "m", config=CONFIG))
    result = inspect.answer(asked, resolve=resolve)
    facts = result.model
    assert (result.request, facts.request) == (asked.request, asked.request)
    assert (facts.architecture, facts.model_type, facts.attention) == ("LlamaForCausalLM", "llama", "Full")
    assert (facts.layers, facts.kv_heads, facts.head_size, facts.vocabulary) == (30, 3, 64, 49152)
    assert (facts.parameters, facts.weight_bytes, facts.dtype, facts.max_positions) == (2, 8, "F32", 8192)
    assert facts.cache.values(100) == 100 * 2 * 3 * 64 * 30
    assert facts.digest == hashlib.sha256(safetensors()).hexdigest()
    assert facts.tokenizer.chat_template
    assert InspectResult.model_validate_json(result.message()) == result


def test_only_the_weights_that_an_engine_would_load_count(tmp_path):
    path = model(tmp_path / "m", config=CONFIG, weights=("model-1.safetensors", "model-2.safetensors"))
    (path / "consolidated.safetensors").write_bytes(safetensors(b"\x01" * 400))
    weight_map = {"a": "model-1.safetensors", "w": "model-2.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    facts = look(path)
    assert facts.weight_bytes == 16
    assert facts.digest == hashlib.sha256(safetensors() * 2).hexdigest()
    (path / "model-2.safetensors").unlink()
    assert refusal(path)[1] == f"{URI}: lacks 1 of its weight files, first model-2.safetensors; copy it again"


def test_packed_weights_are_counted_one_by_one(tmp_path):
    packed = {
        "model.layers.0.q_proj.qweight": np.zeros((8, 16), np.int32),
        "model.layers.0.q_proj.scales": np.zeros((1, 16), np.float16),
        "model.layers.0.q_proj.qzeros": np.zeros((1, 2), np.int32),
        "model.layers.0.self_attn.k_scale": np.zeros(1, np.float32),
        "model.norm.weight": np.zeros(16, np.float16),
    }
    for number, (settings, count) in enumerate(
        [
            ({"quant_method": "awq", "bits": 4}, 8 * 16 * 8 + 16),
            ({"quant_method": "gptq", "bits": 8}, 8 * 16 * 4 + 16),
            (
                {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
                8 * 16 * 8 + 16,
            ),
            ({"quant_method": "new"}, None),
        ]
    ):
        path = model(tmp_path / str(number), config=CONFIG | {"quantization_config": settings})
        (path / "model.safetensors").write_bytes(tensors_of(packed))
        facts = look(path)
        assert (facts.quantization, facts.parameters, facts.dtype) == (settings["quant_method"], count, "I32")


def test_what_transformers_does_not_read_has_no_cache_and_the_reason(tmp_path):
    path = model(tmp_path, config=CONFIG)
    asked = question(path)
    facts = inspect.answer(asked, resolve=lambda _: ({}, "transformers 5 does not read its config.json")).model
    assert (facts.attention, facts.cache, facts.layers) == ("Unknown", None, 30)
    assert facts.cache_unknown == "transformers 5 does not read its config.json"


@pytest.mark.parametrize("file", ["config", "tokenizer_config"])
def test_code_of_the_models_own_is_refused_unless_it_is_trusted(tmp_path, file):
    settings = (CONFIG if file == "config" else {}) | {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    path = model(tmp_path, **({"config": CONFIG} | {file: settings}))
    reason, said = refusal(path)
    assert reason == "RemoteCodeNotAllowed"
    assert f"{file}.json has auto_map" in said
    assert look(path, trust_remote_code=True).own_code


def test_each_thing_that_makes_it_no_model_is_told_apart(tmp_path):
    assert refusal(tmp_path / "no")[0] == "ArtifactNotFound"
    reason, said = refusal(adapter(tmp_path / "a"))
    assert (reason, said) == (
        "NotAModel", f"{URI}: has no config.json; it is an adapter, and its base belongs here",
    )  # fmt: skip
    path = model(tmp_path / "p", config=CONFIG, weights=())
    assert refusal(path) == ("NotAModel", f"{URI}: has no *.safetensors; copy the weights there")
    (path / "pytorch_model.bin").write_bytes(b"\x80")
    assert refusal(path)[0] == "PickledWeights"
    (path / "model.safetensors").write_bytes(safetensors(cut=1))
    assert refusal(path)[0] == "WeightsDamaged"
    (path / "model.safetensors").write_bytes(safetensors())
    (path / "tokenizer.json").unlink()
    assert refusal(path)[1].startswith(f"{URI}: has no tokenizer (tokenizer.json, ")
    (path / "config.json").write_text("[" * 100_000)
    assert refusal(path) == ("NotAModel", f"{URI}: config.json cannot be read as JSON; copy it again")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, name):
    path = model(tmp_path / "m", config=CONFIG)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    assert refusal(path)[0] == "SymlinkRefused"


def test_an_adapter_is_asked_for_in_the_same_way(tmp_path):
    asked = question(adapter(tmp_path), expect="Adapter")
    result = inspect.answer(asked)
    assert (result.model, result.adapter.rank, result.adapter.request) == (None, 4, asked.request)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    with Hub(tmp_path / "hub") as server:
        monkeypatch.setenv(hubhosts.ENDPOINT, server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "own"))
        yield server


def hub_model(server, *, size=8, rules=None):
    folder = model(server.root / "models" / "org" / "base" / "main", config=CONFIG)
    (folder / "model.safetensors").write_bytes(safetensors(b"\x01" * size))
    if rules is not None:
        (folder.parent / RULES_FILE).write_text(json.dumps(rules))
    return folder


HF = {"uri": "hf://org/base"}


def test_of_a_model_of_the_hub_the_headers_alone_are_read(mirror, tmp_path):
    folder = hub_model(mirror, size=4_000_000)
    facts = look(None, **HF)
    assert (facts.commit, facts.digest) == (commit_of(folder), commit_of(folder))
    assert (facts.parameters, facts.weight_bytes, facts.attention) == (1_000_000, 4_000_000, "Full")
    assert facts.size_bytes == (folder / "model.safetensors").stat().st_size
    kept = sum(path.stat().st_size for path in (tmp_path / "own").rglob("*") if path.is_file())
    assert kept < 100_000, "no weights were downloaded"


def test_with_a_cache_it_is_downloaded_once_and_looked_at_there(mirror, tmp_path):
    folder = hub_model(mirror)
    cache = str(tmp_path / "cache")
    facts = look(None, cache=cache, **HF)
    assert (facts.commit, facts.weight_bytes, facts.layers) == (commit_of(folder), 8, 30)
    snapshot = tmp_path / "cache" / "models--org--base" / "snapshots" / facts.commit
    assert (snapshot / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    before = [each for each in mirror.asked if "safetensors" in each]
    assert look(None, cache=cache, **HF) == facts
    assert [each for each in mirror.asked if "safetensors" in each] == before


def test_a_long_header_is_read_whole(mirror):
    folder = hub_model(mirror)
    many = {f"model.layers.{number}.weight": np.zeros(1, np.float32) for number in range(3000)}
    (folder / "model.safetensors").write_bytes(tensors_of(many))
    assert (folder / "model.safetensors").stat().st_size > 200_000
    assert look(None, **HF).parameters == 3000


def test_a_file_of_the_hub_that_is_cut_short_is_told(mirror):
    (hub_model(mirror) / "model.safetensors").write_bytes(safetensors(b"\x01" * 8, cut=2))
    reason, said = refusal(None, **HF)
    assert reason == "WeightsDamaged"
    assert said.startswith("hf://org/base: model.safetensors is cut short or damaged")


def test_the_hubs_refusals_keep_their_reasons(mirror, monkeypatch):
    monkeypatch.setattr(hub.time, "sleep", lambda _: None)
    assert refusal(None, uri="hf://org/none")[0] == "HubUnauthorized"
    hub_model(mirror, rules={"token": "good", "gated": True})
    assert refusal(None, **HF)[0] == "HubForbidden"
    monkeypatch.setenv("LARGEFORGE_HUB_TOKEN_SOURCE", "good")
    assert look(None, token_env="LARGEFORGE_HUB_TOKEN_SOURCE", **HF).layers == 30


def answered(tmp_path, monkeypatch, text):
    monkeypatch.setenv(QUESTION, text)
    code = inspect.main(["--termination-log", str(tmp_path / "log")])
    return code, InspectResult.model_validate_json((tmp_path / "log").read_bytes())


def test_the_answer_is_the_termination_message(tmp_path, monkeypatch, capsys):
    asked = question(adapter(tmp_path / "a"), expect="Adapter")
    code, result = answered(tmp_path, monkeypatch, asked.model_dump_json(by_alias=True, exclude_defaults=True))
    assert (code, result.outcome, result.request) == (0, "Succeeded", asked.request)
    assert capsys.readouterr().out == f"looking at {URI}\ndone\n"


def test_a_failure_is_one_too_with_its_exit_code(tmp_path, monkeypatch):
    asked = question(tmp_path / "no", expect="Adapter")
    code, result = answered(tmp_path, monkeypatch, asked.model_dump_json(by_alias=True))
    assert (code, result.outcome, result.request) == (65, "Failed", asked.request)
    assert (result.error.reason, result.error.field) == ("ArtifactNotFound", "spec.model.uri")


def test_a_question_of_another_version_is_refused(tmp_path, monkeypatch):
    code, result = answered(tmp_path, monkeypatch, '{"expect": "Model", "more": 1}')
    assert (code, result.error.reason) == (64, "InvalidConfig")
    assert "operator and trainer image must be of one version" in result.error.message


def test_being_stopped_is_told(tmp_path, monkeypatch):
    def stopped(_):
        raise errand.Stopped

    monkeypatch.setattr(inspect, "answer", stopped)
    asked = question(tmp_path, expect="Adapter")
    code, result = answered(tmp_path, monkeypatch, asked.model_dump_json(by_alias=True))
    assert (code, result.error.reason) == (75, "Disrupted")
