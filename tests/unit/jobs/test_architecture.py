from __future__ import annotations

import pytest

from largeforge.api.inspect import CacheFacts
from largeforge.jobs.architecture import attention, head_size, kv_heads

LLAMA = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
}


def of(architecture="LlamaForCausalLM", **changes):
    found = attention(LLAMA | changes, architecture)
    return found.kind, found.cache, found.unknown


def test_a_token_takes_two_times_heads_times_size_in_each_layer():
    assert (kv_heads(LLAMA), head_size(LLAMA)) == (3, 64)
    assert of() == ("Full", CacheFacts(values_per_token=2 * 3 * 64 * 30), "")


@pytest.mark.parametrize(
    ("config", "heads", "size"),
    [
        ({"num_attention_heads": 8, "hidden_size": 64}, 8, 8),
        ({"num_attention_heads": 8, "hidden_size": 2304, "head_dim": 256, "num_key_value_heads": 4}, 4, 256),
        ({"num_attention_heads": 71, "hidden_size": 4544, "multi_query": True, "num_kv_heads": 71}, 1, 64),
        ({"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 8, "head_dim": 64}, 8, 64),
        ({"num_attention_heads": 32, "multi_query_group_num": 2, "hidden_size": 4096}, 2, 128),
        ({}, None, None),
    ],
)
def test_heads_are_found_under_the_names_that_engines_know(config, heads, size):
    assert (kv_heads(config), head_size(config)) == (heads, size)


def test_mla_keeps_what_it_compresses_to():
    deepseek = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 128}
    assert of("DeepseekV3ForCausalLM", **deepseek) == ("MLA", CacheFacts(values_per_token=61 * 576), "")


def test_layers_with_a_window_are_counted_apart():
    each = 2 * 3 * 64
    kind, cache, _ = of(sliding_window=4096)
    assert (kind, cache) == ("Window", CacheFacts(values_per_window_token=30 * each, window=4096))
    layers = ["sliding_attention", "full_attention"] * 15
    kind, cache, _ = of(layer_types=layers, sliding_window=512)
    mixed = CacheFacts(values_per_token=15 * each, values_per_window_token=15 * each, window=512)
    assert (kind, cache) == ("Mixed", mixed)
    layers = ["chunked_attention"] * 20 + ["full_attention"] * 10
    assert of(layer_types=layers, attention_chunk_size=8192)[1].window == 8192


def test_layers_that_read_the_caches_of_others_have_none():
    layers = ["full_attention"] * 30
    assert of(layer_types=layers, num_kv_shared_layers=10)[1].values_per_token == 20 * 2 * 3 * 64


def test_of_a_hybrid_the_layers_with_attention_count_and_the_rest_is_said():
    kind, cache, said = of(layer_types=["linear_attention"] * 20 + ["full_attention"] * 10)
    assert (kind, cache.values_per_token) == ("Hybrid", 10 * 2 * 3 * 64)
    assert said == "the states of 20 layers without a cache are not counted"
    kind, cache, _ = of(layer_types=["linear_attention"] * 30, num_attention_heads=None, num_key_value_heads=None)
    assert (kind, cache) == ("Hybrid", CacheFacts())
    kind, cache, _ = of(layer_types=["mlp", "moe", "full_attention"] * 10)
    assert (kind, cache.values_per_token) == ("Full", 10 * 2 * 3 * 64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_types": ["compressed_sparse_attention"] * 30}, "nothing is known of layers of type 'compressed"),
        ({"layer_types": ["full_attention"] * 29}, "does not say how many layers"),
        ({"num_hidden_layers": None}, "does not say how many layers"),
        ({"num_hidden_layers": "30"}, "does not say how many layers"),
        ({"num_attention_heads": None, "num_key_value_heads": None}, "does not say how many heads"),
        ({"layer_types": ["sliding_attention"] * 30}, "does not say how many tokens its windows keep"),
        ({"is_encoder_decoder": True}, "a model of encoder and decoder"),
        ({"cross_attention_layers": [3, 8]}, "some of its layers attend to pictures"),
        ({"index_topk": 2048}, "its attention is sparse"),
    ],
)
def test_what_follows_no_known_rule_is_unknown_with_the_reason(changes, said):
    kind, cache, unknown = of(**changes)
    assert (kind, cache) == ("Unknown", None)
    assert said in unknown


def test_a_model_that_generates_nothing_has_no_such_cache():
    assert of("BertModel")[2] == "BertModel generates no text"
