"""How vLLM runs: `spec.engine` of an InferenceService."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from largeforge.api.common import EnvVar
from largeforge.api.engineargs import ExtraEngineArgs
from largeforge.api.model import Model, rules
from largeforge.api.uri import ModelUriText, TemplateUriText

_OF_VLLM = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
"""Values that vLLM owns; the operator compares them with the list of the engine's image."""

_OURS = (
    "HOME",
    "USER",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "TORCH_COMPILE_DISABLE",
    "TORCHINDUCTOR_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_DO_NOT_TRACK",
    "VLLM_NO_USAGE_STATS",
)
"""Variables that LargeForge sets: of two equal ones the user's would be ignored."""
_OPENING = (
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_API_KEY",
    "VLLM_CONFIG_ROOT",
    "VLLM_CUDART_SO_PATH",
    "VLLM_CUDA_COMPATIBILITY_PATH",
    "VLLM_DEBUG_DUMP_PATH",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",
    "VLLM_HOST_IP",
    "VLLM_LOGGING_CONFIG_PATH",
    "VLLM_LOOPBACK_IP",
    "VLLM_MEDIA_CONNECTOR",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS",
    "VLLM_MODEL_REDIRECT_PATH",
    "VLLM_NCCL_INCLUDE_PATH",
    "VLLM_NCCL_SO_PATH",
    "VLLM_PLUGINS",
    "VLLM_PORT",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_SKIP_MODEL_NAME_VALIDATION",
    "VLLM_TEST_FORCE_LOAD_FORMAT",
    "VLLM_TRACE_FUNCTION",
    "VLLM_TUNED_CONFIG_FOLDER",
    "VLLM_USAGE_STATS_SERVER",
    "VLLM_USE_MODELSCOPE",
)
"""Variables of vLLM that open endpoints, load code or other formats, log what clients send, or call out."""
_PREFIXES = (
    "HF_",
    "LARGEFORGE_",
    "LD_",
    "PYTHON",
    "VLLM_DP_",
    "VLLM_EC_",
    "VLLM_LORA_RESOLVER_",
    "VLLM_MOONCAKE_",
    "VLLM_NIXL_",
    "VLLM_P2P_",
    "VLLM_RAY_",
    "VLLM_RPC_",
    "VLLM_RUST_",
    "VLLM_USE_RUST_",
)


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


class EngineEnvVar(EnvVar):
    """A variable of the engine's environment."""

    model_config = rules(
        ("has(self.value) != has(self.valueFrom)", "set either value or valueFrom"),
        (
            f"!(self.name in [{_quoted(_OURS)}])",
            "LargeForge sets this variable itself; remove it (memory and threads follow spec.compute.resources)",
        ),
        (
            f"!(self.name in [{_quoted(_OPENING)}]) && ![{_quoted(_PREFIXES)}].exists(p, self.name.startsWith(p))",
            "this variable opens an endpoint of the engine, loads code into it or is LargeForge's; remove it",
        ),
    )


class SpeculativeConfig(Model):
    """Tokens that are guessed ahead and checked at once; the names are vLLM's."""

    model_config = rules(
        (
            "!(self.method in ['custom_class', 'extract_hidden_states'])",
            "method: no code from outside in the engine; use for example ngram, eagle3 or draft_model",
        ),
        (
            "self.method.startsWith('ngram') || self.method.endsWith('mtp') || self.method == 'suffix'"
            " || has(self.model)",
            "this method needs model, the draft model's uri; ngram needs none",
        ),
    )

    method: Annotated[str, Field(min_length=1, max_length=64, pattern=_OF_VLLM)]
    """How: for example ngram, eagle3, mtp or draft_model."""
    model: ModelUriText | None = None
    """The draft model, `pvc://claim/path` or `hf://org/repo`."""
    num_speculative_tokens: Annotated[int, Field(ge=1, le=64)]
    """Tokens that are guessed at a time."""
    prompt_lookup_max: Annotated[int, Field(ge=1, le=64)] | None = None
    """The longest piece of the prompt that ngram looks for."""
    prompt_lookup_min: Annotated[int, Field(ge=1, le=64)] | None = None
    """The shortest."""


class Engine(Model):
    """How vLLM runs; the names are vLLM's."""

    dtype: Annotated[str, Field(max_length=32, pattern=_OF_VLLM)] | None = None
    """The type of weights and activations, for example bfloat16; by default the model's own."""
    quantization: Annotated[str, Field(max_length=64, pattern=_OF_VLLM)] | None = None
    """The method that the weights are quantized with; by default what the model's config.json says."""
    kv_cache_dtype: Annotated[str, Field(max_length=32, pattern=_OF_VLLM)] | None = None
    """The type of the KV cache, for example fp8; by default that of the weights."""
    max_model_len: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """The longest prompt and answer together, in tokens; by default the model's own limit."""
    gpu_memory_utilization: Annotated[float, Field(ge=0.05, le=1)] | None = None
    """The share of each GPU's memory that the engine takes; by default vLLM's 0.92."""
    max_num_seqs: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Requests in one batch; by default vLLM's."""
    max_num_batched_tokens: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """Tokens in one batch; by default vLLM's."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=16)] | None = None
    """GPUs that share each layer; by default all of a replica, divided by pipelineParallelSize."""
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=16)] | None = None
    """Groups of GPUs that have some of the layers each; by default 1."""
    enable_prefix_caching: bool | None = None
    """Whether prompts with the same beginning share its KV cache; by default vLLM's choice for the model."""
    enforce_eager: bool = False
    """Whether nothing is compiled or captured: a faster start and slower answers."""
    chat_template: TemplateUriText | None = None
    """A Jinja file, `configmap://name/key` or `pvc://claim/path`; by default the tokenizer's own template."""
    tool_call_parser: Annotated[str, Field(max_length=64, pattern=_OF_VLLM)] | None = None
    """How calls of tools are found in answers, for example hermes; without it requests with tools are answered 400."""
    reasoning_parser: Annotated[str, Field(max_length=64, pattern=_OF_VLLM)] | None = None
    """How thoughts are told from answers, for example qwen3."""
    speculative_config: SpeculativeConfig | None = None
    """Tokens that are guessed ahead and checked at once."""
    extra_args: ExtraEngineArgs = {}
    """Other flags of the engine, rendered as `--flag=value`, and as `--flag` where the value is empty."""
    env: Annotated[list[EngineEnvVar], Field(max_length=32)] = []
    """Variables of the engine's environment, beside LargeForge's."""
