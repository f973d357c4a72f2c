"""The arithmetic of `status.fit`, with published figures: Qwen2.5-7B and Llama-3.1-8B."""

from __future__ import annotations

import pytest

from largeforge.api.inspect import CacheFacts, ModelFacts
from largeforge.resources.fit import fit_of
from tests.unit.serving import inferenceservice_of

GIB = 1 << 30
SMOL = ModelFacts(
    parameters=134_515_008,
    weight_bytes=269_030_016,
    dtype="BF16",
    layers=30,
    attention_heads=9,
    kv_heads=3,
    head_size=64,
    hidden_size=576,
    vocabulary=49_152,
    max_positions=8192,
    cache=CacheFacts(values_per_token=2 * 3 * 64 * 30),
)
LLAMA = ModelFacts(
    parameters=8_030_261_248,
    weight_bytes=16_060_522_496,
    dtype="BF16",
    layers=32,
    attention_heads=32,
    kv_heads=8,
    head_size=128,
    hidden_size=4096,
    vocabulary=128_256,
    max_positions=131_072,
    cache=CacheFacts(values_per_token=2 * 8 * 128 * 32),
)


def on_gpu(**spec):
    compute = {"gpusPerReplica": 1, "gpuMemory": "80Gi"} | spec.pop("compute", {})
    return inferenceservice_of(compute=compute, **spec)


def test_a_token_of_llama_takes_128_kib_and_8192_of_them_a_gibibyte():
    found = fit_of(on_gpu(lora=None, engine={"maxModelLen": 8192}), LLAMA)
    assert found.fits
    assert found.line == (
        "14.96 GiB weights + 1.00 GiB KV cache of a request of 8192 tokens = 15.96 GiB of 73.60 GiB (1 x 80Gi x 0.92);"
        " 58 requests of 8192 tokens at a time"
    )


def test_what_cannot_fit_is_told_and_sharing_it_over_gpus_makes_it_fit():
    small = {"gpusPerReplica": 1, "gpuMemory": "16Gi"}
    found = fit_of(on_gpu(lora=None, engine={"maxModelLen": 8192}, compute=small), LLAMA)
    assert (found.fits, "15.96 GiB of 14.72 GiB" in found.line) == (False, True)
    assert fit_of(on_gpu(lora=None, engine={"maxModelLen": 8192}, compute=small | {"gpusPerReplica": 2}), LLAMA).fits


def test_the_models_own_length_counts_where_none_is_set():
    found = fit_of(on_gpu(lora=None, compute={"gpuMemory": "24Gi"}), LLAMA)
    assert (found.fits, "of a request of 131072 tokens" in found.line) == (False, True)


@pytest.mark.parametrize(
    ("dtype", "gibibytes"),
    [(None, "1.00"), ("fp8", "0.50"), ("fp8_e4m3", "0.50"), ("int4_per_token_head", "0.25"), ("bfloat16", "1.00")],
)
def test_the_caches_type_decides_what_a_token_takes(dtype, gibibytes):
    engine = {"maxModelLen": 8192} | ({"kvCacheDtype": dtype} if dtype else {})
    assert f"{gibibytes} GiB KV cache" in fit_of(on_gpu(lora=None, engine=engine), LLAMA).line


def test_quantized_weights_count_as_they_lie_there():
    awq = LLAMA.model_copy(update={"quantization": "awq", "weight_bytes": 5_730_000_000})
    assert fit_of(on_gpu(lora=None), awq).line.startswith("5.34 GiB weights")
    assert fit_of(on_gpu(lora=None, engine={"dtype": "float32"}), LLAMA).line.startswith("29.92 GiB weights")


def test_adapters_take_their_buffers():
    """An r=64 adapter on all linear modules of Llama-3.1-8B has 168 M weights."""
    found = fit_of(on_gpu(lora={"store": "pvc://m/s", "maxLoras": 4, "maxLoraRank": 64}), LLAMA)
    taken = float(found.line.split(" GiB for 5 adapters")[0].rpartition("+ ")[2])
    assert taken == pytest.approx(4 * 168e6 * 2 / GIB, rel=0.1)


def test_without_the_gpus_memory_nothing_is_refused():
    found = fit_of(inferenceservice_of(lora=None, compute={"gpusPerReplica": 1}), LLAMA)
    assert found.fits
    assert found.line.endswith("= 30.96 GiB; set compute.gpuMemory to have it compared with the GPU")


def test_a_cache_that_cannot_be_told_is_said_and_refuses_nothing():
    unknown = LLAMA.model_copy(update={"cache": None, "cache_unknown": "model_type 'new' is not known"})
    found = fit_of(on_gpu(lora=None), unknown)
    assert found.fits
    assert "KV cache not known (model_type 'new' is not known)" in found.line


def cpu(memory, **engine):
    compute = {"gpusPerReplica": 0, "resources": {"limits": {"memory": memory}}}
    return inferenceservice_of(compute=compute, lora=None, engine=engine)


def test_on_a_cpu_it_is_the_pods_memory():
    found = fit_of(cpu("6Gi", maxModelLen=2048), SMOL)
    assert found.fits
    assert found.line == (
        "0.25 GiB weights + 1.00 GiB KV cache + 1.00 GiB processes = 2.25 GiB of 6.00 GiB (resources.limits.memory);"
        " 22 requests of 2048 tokens at a time"
    )
    assert not fit_of(cpu("2Gi", maxModelLen=2048), SMOL).fits


def test_on_a_cpu_one_request_has_to_fit_the_cache():
    found = fit_of(cpu("24Gi", maxModelLen=131_072), LLAMA)
    assert not found.fits
    assert found.line.endswith("one request of 131072 tokens takes 16.00 GiB of KV cache")


def test_a_line_fits_the_status():
    long = LLAMA.model_copy(update={"cache": None, "cache_unknown": "x" * 256})
    assert len(fit_of(on_gpu(lora={"store": "pvc://m/s"}), long).line) <= 512
