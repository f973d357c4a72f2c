"""What an `inspect` Job is asked and answers: the facts of a model or adapter, read from its files without loading it.

The question is one environment variable of the Job, the answer its termination message. Facts fit into a status as
they are; `request` in them says of which question they are the answer, so that it is asked once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from largeforge.api.canonical import sha256_of
from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.finetunejobstatus import Digest, ProbeRecord
from largeforge.api.messages import fitted
from largeforge.api.model import Model, StrictModel
from largeforge.api.run import ModelSource

Word = Annotated[str, Field(max_length=64)]
Module = Annotated[str, Field(max_length=128)]


class InspectConfig(StrictModel):
    """The question."""

    expect: Literal["Model", "Adapter"]
    """What it has to be."""
    source: ModelSource
    """Where it lies. A model of the hub is downloaded where there is a cache; else its headers alone are read."""
    cache_uri: str | None = None
    """Where a model of the hub is downloaded to."""
    cache_path: str | None = None
    """The same in the container (writable)."""

    @property
    def request(self) -> str:
        """SHA-256 of the question; fields that have their default do not count, so that an upgrade asks nothing."""
        return sha256_of(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))


class CacheFacts(Model):
    """What a token takes of the KV cache, in numbers; a number has the bytes of the cache's type (2 for 16 bit)."""

    values_per_token: int = 0
    """In the layers that keep every token: 2 x KV heads x head size for each layer; what MLA compresses to instead."""
    values_per_window_token: int = 0
    """In the layers that keep the newest `window` tokens alone."""
    window: int | None = None
    """The tokens that those keep."""

    def values(self, tokens: int) -> int:
        """What one sequence of so many tokens takes."""
        kept = min(tokens, self.window) if self.window is not None else tokens
        return self.values_per_token * tokens + self.values_per_window_token * kept


class Provenance(Model):
    """What the run that made it wrote beside it; there only where it names the digest that the weights have."""

    run_digest: Digest
    """The digest of the run."""
    base: Annotated[str, Field(max_length=512)]
    """The model that it was trained from."""
    base_commit: Word | None = None
    """That one's commit, if it is of the hub."""
    base_digest: Digest | None = None
    """SHA-256 over that one's weights, where the run has recorded it."""
    dataset_digest: Digest | None = None
    """SHA-256 over the rows that it was trained on."""
    probes: Annotated[list[ProbeRecord], Field(max_length=3)] = []
    """What base and result say first to three fixed conversations."""
    metrics: Annotated[list[Metric], Field(max_length=8)] = []
    """The losses."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries that trained it."""


class TokenizerFacts(Model):
    """The tokenizer beside the weights."""

    digest: Digest = ""
    """SHA-256 over its files' names and bytes; empty where there is none."""
    tokens: int | None = None
    """Its tokens, those that were added among them: the highest id plus 1; None where it cannot be told."""
    chat_template: bool = False
    """Whether it has a chat template."""


class Facts(Model):
    """What holds of models and adapters alike."""

    request: Digest = ""
    """The question (`InspectConfig.request`) that this answers."""
    digest: Digest = ""
    """SHA-256 over the weights, as `status.artifact.digest` of a FineTuneJob; for a model of the hub its commit."""
    size_bytes: int = 0
    """The bytes of the folder's files; of the hub's, of the weights."""
    weight_bytes: int = 0
    """The bytes of the tensors."""
    parameters: int | None = None
    """The weights, those packed into fewer bits counted one by one; None where the packing is not known."""
    dtype: Word = ""
    """The type of most of the weights' bytes, in the words of safetensors (BF16, F32, I32 for packed ones)."""
    tokenizer: TokenizerFacts = TokenizerFacts()
    """The tokenizer."""
    provenance: Provenance | None = None
    """What the run that made it wrote beside it."""


class ModelFacts(Facts):
    """A model's folder."""

    commit: Word | None = None
    """The commit of an hf:// model."""
    architecture: Annotated[str, Field(max_length=128)] = ""
    """The first of config.json's `architectures`, for example Qwen2ForCausalLM."""
    model_type: Word = ""
    """config.json's `model_type`."""
    layers: int | None = None
    """Its hidden layers."""
    attention_heads: int | None = None
    """Query heads of a layer."""
    kv_heads: int | None = None
    """Key and value heads of a layer."""
    head_size: int | None = None
    """Numbers of a head."""
    hidden_size: int | None = None
    """Numbers of a hidden state."""
    max_positions: int | None = None
    """The longest prompt and answer that it has positions for."""
    vocabulary: int | None = None
    """Rows of its embedding."""
    quantization: Word = ""
    """`quant_method` of its quantization_config (awq, gptq, compressed-tensors, fp8); empty for plain weights."""
    attention: Literal["Full", "Window", "Mixed", "MLA", "Hybrid", "Unknown"] = "Unknown"
    """Full: every layer keeps all tokens. Window: every layer keeps the newest alone. Mixed: some the one, some the
    other. MLA: compressed. Hybrid: some layers, or all, have a state instead of a cache."""
    cache: CacheFacts | None = None
    """What a token takes of the KV cache; None where it cannot be told. Of Hybrid, the layers with attention alone."""
    cache_unknown: Annotated[str, Field(max_length=256)] = ""
    """Why it cannot be told, or what of it is not counted."""
    own_code: bool = False
    """Whether it asks for code of its own (`auto_map`)."""


class AdapterFacts(Facts):
    """An adapter's folder."""

    rank: int
    """The highest rank of its matrices, by the files."""
    base: Annotated[str, Field(max_length=512)]
    """`base_model_name_or_path`, as it is written in adapter_config.json."""
    base_revision: Word | None = None
    """`revision`, as it is written there."""
    lora_alpha: Word = ""
    """Its alpha, as text."""
    use_dora: bool = False
    """Whether it is a DoRA adapter, which engines refuse."""
    use_rslora: bool = False
    """Whether alpha is divided by the root of the rank."""
    target_modules: Annotated[list[Module], Field(max_length=64)] = []
    """The names of the modules that have matrices, by the files."""
    modules_to_save: Annotated[list[Module], Field(max_length=64)] = []
    """Modules that lie there whole, and biases, which engines refuse."""
    refused: Annotated[list[Module], Field(max_length=8)] = []
    """Settings of PEFT, and names of tensors, that engines refuse because they would compute something else."""
    extends_tokenizer: bool = False
    """Whether it brings embeddings or an output head, or trains single tokens."""
    changes_nothing: bool = False
    """Whether it leaves every answer as the base's: all its B matrices are zero, or its alpha is."""
    not_finite: bool = False
    """Whether a weight is infinite or no number."""


class InspectResult(StrictModel):
    """The answer."""

    outcome: Literal["Succeeded", "Failed"]
    request: Digest
    """The question; the operator takes no answer to another."""
    model: ModelFacts | None = None
    """The facts, where a model was asked for."""
    adapter: AdapterFacts | None = None
    """The facts, where an adapter was asked for."""
    error: ErrorDetail | None = None
    """Why there are none."""

    def message(self) -> str:
        """The JSON for the termination message, without what status can do without where it would not fit."""
        return fitted(self, _shorter)


def _shorter(result: InspectResult) -> InspectResult | None:
    """*result* without the next of what may go: versions, metrics, names of modules beyond the first, probes, then
    half of the error's text; None where all has gone.
    """
    name = "model" if result.model is not None else "adapter"
    facts, error = getattr(result, name), result.error
    if facts is not None and (less := _less(facts)) is not None:
        return result.model_copy(update={name: facts.model_copy(update=less)})
    if error is not None and error.message:
        shorter = error.model_copy(update={"message": error.message[: len(error.message) // 2]})
        return result.model_copy(update={"error": shorter})
    return None


def _less(facts: Facts) -> dict[str, Any] | None:
    made = facts.provenance
    for name in ("versions", "metrics"):
        if made is not None and getattr(made, name):
            return {"provenance": made.model_copy(update={name: []})}
    for name in ("target_modules", "modules_to_save"):
        if len(getattr(facts, name, [])) > 1:
            return {name: getattr(facts, name)[:1]}
    if made is not None and made.probes:
        return {"provenance": made.model_copy(update={"probes": made.probes[:-1]})}
    return None
