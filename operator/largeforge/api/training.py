"""How a model is trained: adapters, hyper-parameters, checkpoints, and what the result has to reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import SecretRef
from largeforge.api.model import Model, rules
from largeforge.api.uri import PvcUriText

DEFAULT_LORA_RANK = 16
DEFAULT_LORA_DROPOUT = 0.05
ALL_LINEAR = "all-linear"
"""PEFT's word for every linear module but the head."""
DEFAULT_GLOBAL_BATCH_SIZE = 32
DEFAULT_TRAIN_EPOCHS = 1.0
DEFAULT_CHECKPOINT_MINUTES = 30
DEFAULT_LEARNING_RATE = {"LoRA": 2e-4, "None": 2e-5}
"""LoRA wants about ten times the rate of full weights (TRL's own recipes use the same pair)."""
MAX_MICRO_BATCH = 8
"""The largest per-device batch that is chosen for a global batch size; the rest is accumulation."""

ModuleNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)]


class Peft(Model):
    """How many weights are trained; the names are PEFT's."""

    model_config = rules(
        (
            "self.type != 'None' || !(has(self.r) || has(self.loraAlpha) || has(self.loraDropout)"
            " || has(self.targetModules) || has(self.modulesToSave) || self.useRslora || self.useDora)",
            "r, loraAlpha, loraDropout, targetModules, modulesToSave, useRslora and useDora belong to type LoRA;"
            " remove them or set type: LoRA",
        ),
    )

    type: Literal["LoRA", "None"] = "LoRA"
    """LoRA trains an adapter beside the frozen base; None trains all weights."""
    r: Annotated[int, Field(ge=1, le=512)] | None = None
    """The adapter's rank; by default 16. At most the service's `lora.maxLoraRank` to be served."""
    lora_alpha: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The adapter's scale; by default twice the rank."""
    lora_dropout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """Dropout in the adapter; by default 0.05."""
    target_modules: ModuleNames | None = None
    """Names of the modules that get an adapter; by default [all-linear]."""
    use_rslora: bool = False
    """Scales the adapter by loraAlpha over the square root of r, not over r."""
    use_dora: bool = False
    """Trains magnitude and direction apart (DoRA). Engines cannot serve it as an adapter: set output.merge."""
    modules_to_save: ModuleNames | None = None
    """Modules that are trained whole beside the adapter, for example [embed_tokens, lm_head]. Engines cannot serve them
    as an adapter: set output.merge."""

    @property
    def rank(self) -> int:
        """The effective rank."""
        return self.r if self.r is not None else DEFAULT_LORA_RANK

    @property
    def alpha(self) -> int:
        """The effective scale."""
        return self.lora_alpha if self.lora_alpha is not None else 2 * self.rank

    @property
    def dropout(self) -> float:
        """The effective dropout."""
        return self.lora_dropout if self.lora_dropout is not None else DEFAULT_LORA_DROPOUT

    @property
    def modules(self) -> list[str]:
        """The effective target modules."""
        return self.target_modules if self.target_modules is not None else [ALL_LINEAR]


class EarlyStopping(Model):
    """When to stop before the end."""

    patience: Annotated[int, Field(ge=1, le=1000)]
    """Evaluations in a row that may bring no better held-out loss."""
    threshold: Annotated[float, Field(ge=0, le=100)] = 0
    """By how much the loss must fall to count as better."""


class Training(Model):
    """The hyper-parameters; the names are TRL's and transformers'."""

    model_config = rules(
        (
            "!(has(self.maxSteps) && has(self.numTrainEpochs))",
            "set maxSteps or numTrainEpochs, not both",
        ),
        (
            "!(has(self.globalBatchSize) && (has(self.perDeviceTrainBatchSize)"
            " || has(self.gradientAccumulationSteps)))",
            "set globalBatchSize, or perDeviceTrainBatchSize with gradientAccumulationSteps, not both",
        ),
        (
            "!has(self.gradientAccumulationSteps) || has(self.perDeviceTrainBatchSize)",
            "gradientAccumulationSteps needs perDeviceTrainBatchSize beside it",
        ),
        # Not a minimum of the schema: the API server compares a whole number with the minimum's whole part.
        ("!has(self.learningRate) || self.learningRate > 0.0", "learningRate must be above 0, for example 2e-4"),
        ("!has(self.numTrainEpochs) || self.numTrainEpochs > 0.0", "numTrainEpochs must be above 0, for example 1"),
        ("self.maxGradNorm > 0.0", "maxGradNorm must be above 0, for example 1"),
        ("self.warmupRatio < 1.0", "warmupRatio is a share of the steps and must be below 1, for example 0.03"),
        (
            "!has(self.earlyStopping) || has(self.evalSteps)",
            "earlyStopping needs evalSteps beside it, for example evalSteps: 50",
        ),
        (
            "!(has(self.completionOnlyLoss) && self.completionOnlyLoss && self.assistantOnlyLoss)",
            "set assistantOnlyLoss (for messages) or completionOnlyLoss (for prompt and completion), not both",
        ),
    )

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps; instead of numTrainEpochs."""
    num_train_epochs: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Passes over the data; by default 1."""
    learning_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """The peak learning rate, for example 2e-4; by default 2e-4 with LoRA and 2e-5 for all weights."""
    lr_scheduler_type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z_]*$")] = "cosine"
    """How the learning rate falls after the rise: cosine, linear, constant_with_warmup or another of transformers'."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    """The share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0
    """The optimizer's weight decay."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1000)] = 1
    """Gradients are cut to this norm."""
    optim: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")] = "adamw_torch"
    """The optimizer: adamw_torch, adamw_torch_fused, adafactor or another of transformers'."""
    global_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Samples for each optimizer step over all ranks; by default 32. Divisible by the number of ranks."""
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Samples of one rank in one forward pass; instead of globalBatchSize."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Forward passes for each optimizer step; by default 1 beside perDeviceTrainBatchSize."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """The longest sample in tokens; dataPolicy.onTooLong says what becomes of longer ones."""
    packing: bool = False
    """Puts several samples into one sequence of maxLength; on a GPU this needs attnImplementation flash_attention_2 or
    one like it, so that samples do not see each other."""
    assistant_only_loss: bool = False
    """Learns only what the assistant says in rows of messages; the chat template must mark it."""
    completion_only_loss: bool | None = None
    """Learns only the completion in rows of prompt and completion; by default true for such rows."""
    precision: Literal["Auto", "BF16", "FP16", "FP32"] = "Auto"
    """The type of the computation; Auto is BF16 on GPUs that have it, FP32 on a CPU."""
    gradient_checkpointing: bool = True
    """Computes activations again in the backward pass: less memory, about a third more time."""
    attn_implementation: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")] | None = None
    """transformers' attention: sdpa, eager, flash_attention_2; by default its own choice."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """The seed of shuffling, splitting, dropout and the adapter's start."""
    eval_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Measures the held-out loss every so many steps; without it, before the first and after the last."""
    logging_steps: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Records loss and learning rate every so many steps."""
    early_stopping: EarlyStopping | None = None
    """Stops when the held-out loss gets no better, and keeps the best weights."""


class Fsdp(Model):
    """Options of FSDP2; the names are accelerate's."""

    reshard_after_forward: bool = True
    """Frees the gathered parameters after the forward pass: less memory, more traffic."""
    cpu_offload: bool = False
    """Keeps parameters, gradients and optimizer state in the node's memory."""


class Checkpoint(Model):
    """When the state of a run is saved, so that its next attempt goes on from there."""

    model_config = rules(
        ("!(has(self.everySteps) && has(self.everyMinutes))", "set everySteps or everyMinutes, not both"),
        ("!has(self.everyMinutes) || self.everyMinutes > 0.0", "everyMinutes must be above 0, for example 30"),
    )

    uri: PvcUriText | None = None
    """`pvc://claim/path` of a folder; by default beside the output. What a complete run leaves there is removed."""
    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Saves every so many steps; instead of everyMinutes."""
    every_minutes: Annotated[float, Field(ge=0, le=10_080)] | None = None
    """Saves at the end of the step after so many minutes; by default 30."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """How many of the newest are kept."""
    resume: Literal["Auto", "Never"] = "Auto"
    """Auto goes on from the newest complete checkpoint; Never begins each attempt anew."""

    @property
    def minutes(self) -> float | None:
        """The effective interval in minutes, or None where steps decide."""
        if self.every_steps is not None:
            return None
        return self.every_minutes if self.every_minutes is not None else DEFAULT_CHECKPOINT_MINUTES


class Gate(Model):
    """What the result has to reach on the held-out rows before it is published."""

    model_config = rules(
        (
            "has(self.maxEvalLoss) || has(self.maxPerplexity) || has(self.compareWith)",
            "a gate needs maxEvalLoss, maxPerplexity or compareWith: Base",
        ),
        ("!has(self.maxPerplexity) || self.maxPerplexity >= 1.0", "maxPerplexity is at least 1, for example 12"),
        ("!has(self.maxEvalLoss) || self.maxEvalLoss > 0.0", "maxEvalLoss must be above 0, for example 2.5"),
    )

    max_eval_loss: Annotated[float, Field(ge=0, le=1000)] | None = None
    """The highest held-out loss."""
    max_perplexity: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """The highest held-out perplexity, the exponential of the loss."""
    compare_with: Literal["Base"] | None = None
    """Base: the held-out loss must be below that of the model that the run began with."""
    on_failure: Literal["Block", "Warn"] = "Block"
    """Block ends the job as Failed and publishes nothing; Warn says so and goes on."""


class Tracking(Model):
    """Where the run's metrics are sent, beside status."""

    model_config = rules(
        (
            "self.reportTo != 'WandB' || has(self.secretRef)",
            "reportTo WandB needs secretRef, the Secret with its API key",
        ),
        (
            "self.reportTo != 'MLflow' || has(self.uri)",
            "reportTo MLflow needs uri, the address of its tracking server",
        ),
        (
            "self.reportTo != 'TensorBoard' || !(has(self.secretRef) || has(self.uri))",
            "TensorBoard's files are written beside the artifact; remove secretRef and uri",
        ),
    )

    report_to: Literal["TensorBoard", "WandB", "MLflow"]
    """TensorBoard writes its files into the artifact's folder `runs`; WandB and MLflow send to their servers."""
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")] | None = None
    """The project (WandB) or experiment (MLflow); by default the namespace and the job's name."""
    uri: Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9][A-Za-z0-9.:_/-]*$")] | None = None
    """The server's address: MLflow's tracking URI, or a WandB server of your own."""
    secret_ref: SecretRef | None = None
    """The Secret with WandB's API key or MLflow's token."""
