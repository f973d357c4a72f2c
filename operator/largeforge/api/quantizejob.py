"""`QuantizeJob`: which model to make smaller, by which methods, and what the result may lose."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import ObjectRef, PodTemplate, PullSecret, ResourceRequirements
from largeforge.api.datasets import DatasetSource
from largeforge.api.finetunejob import Base, Cache, FineTuneJobRef, Publish
from largeforge.api.meta import ObjectMeta
from largeforge.api.model import Model, Quantity, SubdomainName, rules
from largeforge.api.names import API_VERSION
from largeforge.api.quantizejobstatus import QuantizeJobStatus
from largeforge.api.uri import ModelUriText, PvcUriText

Method = Literal["AWQ", "GPTQ", "W8A8", "FP8Dynamic"]
QuantizeEngine = Literal["LLMCompressor", "AutoAWQ"]

DEFAULT_GROUP_SIZE = 128
"""Both libraries' own, and what GPU kernels are tuned for."""
GROUPED = frozenset({"AWQ", "GPTQ"})
"""Methods of 4 bits, in which a group of weights shares a scale."""
CALIBRATED = frozenset({"AWQ", "GPTQ", "W8A8"})
"""Methods that learn their scales on data."""
DEFAULT_SYMMETRIC = {"AWQ": False, "GPTQ": True}
"""As the libraries' own recipes: AWQ gains from a zero point, GPTQ's fastest kernels have none."""


class QuantizeSource(Base):
    """The model to make smaller."""

    model_config = rules(
        (
            "[has(self.uri), has(self.fineTuneJobRef), has(self.expertRef)].filter(x, x).size() == 1",
            "source needs exactly one of uri, fineTuneJobRef and expertRef",
        ),
        (
            "(has(self.uri) && self.uri.startsWith('hf://')) || !(has(self.revision) || has(self.secretRef))",
            "revision and secretRef belong to an hf:// source; remove them",
        ),
    )

    uri: ModelUriText | None = None
    """`hf://org/repo`, or `pvc://claim/path` of a folder with `config.json`, safetensors and a tokenizer."""
    fine_tune_job_ref: FineTuneJobRef | None = None
    """A run of a FineTuneJob: its model, or its adapter merged into its base, in 16 bit."""
    expert_ref: ObjectRef | None = None
    """What an Expert serves: its model, or its adapter merged into its base, in 16 bit."""


class Scheme(Model):
    """How weights are stored."""

    group_size: Literal[32, 64, 128] | None = None
    """Weights that share a scale (AWQ and GPTQ); by default 128. It has to divide the input size of every layer that is
    not ignored, which is checked before the work starts."""
    symmetric: bool | None = None
    """Whether the weights have no zero point (AWQ and GPTQ); by default false for AWQ and true for GPTQ."""
    ignore: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.:*+?|()\[\]\\^$-]+$")]],
        Field(min_length=1, max_length=64),
    ] = ["lm_head"]
    """Names of modules that stay as they are; `re:` begins a regular expression over the whole name, for example
    `re:.*mlp.gate$`."""


class Calibration(Model):
    """What the methods learn their scales on."""

    datasets: Annotated[list[DatasetSource], Field(min_length=1, max_length=16)]
    """The data, in every format that a FineTuneJob reads; text like that which the model will see."""
    num_samples: Annotated[int, Field(ge=1, le=8192)] = 256
    """Samples that are taken, chosen with the seed; fewer in the data is an error."""
    max_length: Annotated[int, Field(ge=16, le=32_768)] = 2048
    """The longest sample in tokens; longer ones are cut."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Chooses the samples; the same seed, data and image give the same bytes on a CPU."""
    apply_chat_template: bool = True
    """Whether conversations are written in the model's chat template; false joins their texts."""


class QualityGate(Model):
    """What a result may lose, measured by the serving engine on held-out text."""

    model_config = rules(
        ("!has(self.maxPerplexity) || self.maxPerplexity >= 1.0", "maxPerplexity is at least 1, for example 12"),
    )

    dataset: DatasetSource | None = None
    """The held-out text; by default rows of calibration.datasets that calibration does not use."""
    max_perplexity_increase_percent: Annotated[float, Field(ge=0, le=100_000)] = 2
    """By how much the perplexity may be above the source's, in percent of it."""
    max_perplexity: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """The highest perplexity."""
    on_failure: Literal["TryNext", "Fail", "Warn"] = "TryNext"
    """What follows a method that loses too much: the next of methods, the end of the job as Failed, or its result is
    taken and the loss is said. A method that comes to no result is always followed by the next."""


class QuantizeCompute(Model):
    """What the pods get that quantize and evaluate; preflight and evaluation use no more."""

    gpus_per_node: Annotated[int, Field(ge=0, le=8)] = 1
    """GPUs of the pod; 0 quantizes and evaluates on the CPU."""
    gpu_resource: Annotated[
        str, Field(min_length=3, max_length=128, pattern=r"^[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$")
    ] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the container that quantizes, and of the engine that evaluates."""
    shared_memory: Quantity | None = None
    """The size of /dev/shm, which counts as memory; by default 8Gi with GPUs, else 1Gi."""
    pod_template: PodTemplate = PodTemplate()
    """What is laid over the pods."""


class QuantizeOutput(Model):
    """Where the results go."""

    uri: PvcUriText
    """`pvc://claim/path` of a folder; each method writes a sub-folder of its own and never overwrites one. A merged
    source and the tokens to measure by lie in folders beside them."""


class QuantizeJobSpec(Model):
    """Which model to make smaller, by which methods, and what the result may lose."""

    model_config = rules(
        (
            "self.engine != 'AutoAWQ' || self.methods == ['AWQ']",
            "engine AutoAWQ knows the method AWQ alone; set methods: [AWQ], or engine: LLMCompressor",
        ),
        (
            "self.engine != 'AutoAWQ' || !(has(self.scheme.symmetric) && self.scheme.symmetric)",
            "engine AutoAWQ writes a zero point; remove scheme.symmetric, or set engine: LLMCompressor",
        ),
        (
            "has(self.calibration) || self.methods.all(m, m == 'FP8Dynamic')",
            "AWQ, GPTQ and W8A8 learn their scales on data; set calibration.datasets, or methods: [FP8Dynamic]",
        ),
        (
            "has(self.calibration) || has(self.qualityGate.dataset)",
            "the quality gate measures held-out text; set qualityGate.dataset, or calibration.datasets to take some of",
        ),
        (
            "self.methods.exists(m, m in ['AWQ', 'GPTQ']) || !(has(self.scheme.groupSize)"
            " || has(self.scheme.symmetric))",
            "scheme.groupSize and scheme.symmetric belong to the methods AWQ and GPTQ; remove them",
        ),
        (
            "has(self.cache) || !has(self.source.uri) || !self.source.uri.startsWith('hf://')",
            "an hf:// source is downloaded once and read by quantizer and engine; set cache.uri to a pvc:// folder",
        ),
    )

    source: QuantizeSource
    """The model to make smaller."""
    methods: Annotated[
        list[Method], Field(min_length=1, max_length=4, json_schema_extra={"x-kubernetes-list-type": "set"})
    ]
    """The methods, in the order in which they are tried: the first whose result passes the gate is published. AWQ and
    GPTQ store weights in 4 bits; W8A8 weights and activations in 8; FP8Dynamic in 8, and needs no calibration."""
    engine: QuantizeEngine = "LLMCompressor"
    """The library: LLMCompressor writes compressed-tensors; AutoAWQ, which is archived upstream, has an image of its
    own."""
    scheme: Scheme = Scheme()
    """How weights are stored."""
    calibration: Calibration | None = None
    """What the methods learn their scales on."""
    quality_gate: QualityGate = QualityGate()
    """What a result may lose before it is not published."""
    compute: QuantizeCompute = QuantizeCompute()
    """What the pods get."""
    cache: Cache | None = None
    """Where downloads from the hub are kept."""
    output: QuantizeOutput
    """Where the results go."""
    publish: Publish | None = None
    """What to do with the result that passed."""
    suspend: bool = False
    """Stops the run and frees what it holds; false goes on with the method that was at work."""
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """How many more attempts a stage of a method gets after one that failed; errors of the user and disruptions do not
    count. Then the next method is tried."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long a run may last over all its methods, not counting the time that it is suspended; then it has failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """When the Jobs and pods of a run that ended are removed; the results and the record in status stay."""
    rerun_policy: Literal["OnSpecChange", "Never"] = "OnSpecChange"
    """Whether a change of a field that decides the result starts a new run, or is only reported."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-z0-9][-A-Za-z0-9._:/@]*$")] | None = None
    """The quantizer image; by default the chart's for the engine that is chosen."""
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=8)] = []
    """Secrets with the image registry's credentials."""
    service_account_name: SubdomainName | None = None
    """The pods' service account: `default`, or one that the chart lists; the token is not mounted."""

    def group_size(self, method: str) -> int | None:
        """The effective group size of *method*."""
        return (self.scheme.group_size or DEFAULT_GROUP_SIZE) if method in GROUPED else None

    def symmetric(self, method: str) -> bool:
        """Whether the weights of *method* have no zero point; those of 8 bits have none."""
        chosen = self.scheme.symmetric if method in GROUPED else None
        return DEFAULT_SYMMETRIC.get(method, True) if chosen is None else chosen


class QuantizeJob(Model):
    """Makes a model smaller by the first method that loses no more than allowed, and proves that it serves."""

    model_config = rules(
        (
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: at most 40 characters, a letter first, then letters, digits and '-'"
            " (for example qwen2-5-7b, not qwen2.5-7b)",
        ),
    )

    api_version: str = API_VERSION
    kind: Literal["QuantizeJob"] = "QuantizeJob"
    metadata: ObjectMeta
    spec: QuantizeJobSpec
    """Which model to make smaller, by which methods, and what the result may lose."""
    status: QuantizeJobStatus = QuantizeJobStatus()
    """What was observed."""
