"""The engine's argv: the user's flags, then those that fields and LargeForge set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from largeforge.api.engine import Engine, SpeculativeConfig
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.uri import ConfigMapUri, HfUri, PvcUri, parse

ENGINE_PORT = 8000
MODEL_PATH = "/mnt/model"
TOKENIZER_PATH = "/mnt/tokenizer"
DRAFT_PATH = "/mnt/draft"
TEMPLATE_PATH = "/mnt/chat-template"


@dataclass(frozen=True, slots=True)
class Source:
    """The model that is served, as `spec.model` comes to."""

    uri: str
    revision: str | None = None
    """Of a repository of the hub: the commit where it is known, else what the user asked for."""


def engine_command(service: InferenceService, source: Source) -> list[str]:
    """The engine's argv; the user's flags stand before ours, since the last of two equal ones holds."""
    spec = service.spec
    flags = [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(spec.engine.extra_args.items())]
    flags += _model_flags(service, source)
    flags += _engine_flags(spec.engine)
    if spec.lora is not None:
        flags += [
            "--enable-lora",
            f"--max-loras={spec.lora.max_loras}",
            f"--max-lora-rank={spec.lora.max_lora_rank}",
            f"--max-cpu-loras={spec.lora.slots}",
        ]
    if spec.compute.gpus_per_replica:
        stages = spec.engine.pipeline_parallel_size or 1
        shares = spec.engine.tensor_parallel_size or spec.compute.gpus_per_replica // stages
        flags += [f"--tensor-parallel-size={shares}", f"--pipeline-parallel-size={stages}"]
    flags += [f"--shutdown-timeout={spec.drain_seconds}", "--disable-access-log-for-endpoints=/health,/metrics"]
    return ["python3", "-m", "vllm.entrypoints.openai.api_server", *map(literal, flags)]


def literal(argument: str) -> str:
    """*argument* so that it arrives as it is: the kubelet puts a variable's value, a key perhaps, for `$(NAME)`."""
    return argument.replace("$", "$$")


def template_file(uri: str) -> str:
    """Where the engine finds the chat template *uri*."""
    place = parse(uri)
    if isinstance(place, ConfigMapUri):
        return f"{TEMPLATE_PATH}/{place.key}"
    if isinstance(place, PvcUri):
        return f"{TEMPLATE_PATH}/{place.path.rpartition('/')[2]}"
    raise ValueError(f"a chat template is a file on a claim or of a ConfigMap (got {uri!r})")


def _model_flags(service: InferenceService, source: Source) -> Iterator[str]:
    model = service.spec.model
    yield f"--model={_place(source.uri, MODEL_PATH)}"
    if source.revision is not None:
        yield f"--revision={source.revision}"
    if model.tokenizer is not None:
        yield f"--tokenizer={_place(model.tokenizer, TOKENIZER_PATH)}"
    if model.trust_remote_code:
        yield "--trust-remote-code"
    yield f"--served-model-name={service.metadata.name}"
    yield f"--port={ENGINE_PORT}"
    yield "--load-format=safetensors"  # pickled weights could carry code


def _engine_flags(engine: Engine) -> Iterator[str]:
    valued = {
        "dtype": engine.dtype,
        "quantization": engine.quantization,
        "kv-cache-dtype": engine.kv_cache_dtype,
        "max-model-len": engine.max_model_len,
        "gpu-memory-utilization": engine.gpu_memory_utilization,
        "max-num-seqs": engine.max_num_seqs,
        "max-num-batched-tokens": engine.max_num_batched_tokens,
        "reasoning-parser": engine.reasoning_parser,
    }
    yield from (f"--{name}={value}" for name, value in valued.items() if value is not None)
    if engine.enable_prefix_caching is not None:
        yield "--enable-prefix-caching" if engine.enable_prefix_caching else "--no-enable-prefix-caching"
    if engine.enforce_eager:
        yield "--enforce-eager"
    if engine.chat_template is not None:
        yield f"--chat-template={template_file(engine.chat_template)}"
    if engine.tool_call_parser is not None:
        yield from (f"--tool-call-parser={engine.tool_call_parser}", "--enable-auto-tool-choice")
    if engine.speculative_config is not None:
        yield f"--speculative-config={_speculative(engine.speculative_config)}"


def _speculative(config: SpeculativeConfig) -> str:
    said = {
        "method": config.method,
        "model": None if config.model is None else _place(config.model, DRAFT_PATH),
        "num_speculative_tokens": config.num_speculative_tokens,
        "prompt_lookup_max": config.prompt_lookup_max,
        "prompt_lookup_min": config.prompt_lookup_min,
    }
    return json.dumps({name: value for name, value in said.items() if value is not None}, sort_keys=True)


def _place(uri: str, mounted: str) -> str:
    """What the engine is told: a folder of the container, or a repository's name."""
    place = parse(uri)
    return place.repo if isinstance(place, HfUri) else mounted
