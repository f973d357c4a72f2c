"""How the ranks share the work: made real, read back, and agreed between them. Torch is imported inside."""

from __future__ import annotations

import importlib.metadata
from typing import Any, Literal

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import RunFacts
from largeforge.api.names import Reason
from largeforge.api.run import RunConfig
from largeforge.jobs.arguments import Precision
from largeforge.jobs.errors import RunError

Strategy = Literal["Single", "DDP", "FSDP"]

_VERSIONS_OF = ("torch", "transformers", "trl", "peft", "accelerate")


class StrategyMismatchError(RunError):
    """The trainer does something else than it was told."""

    reason = Reason.STRATEGY_MISMATCH

    def __init__(self, message: str) -> None:
        super().__init__(message, field="spec.compute.strategy")


def shard_on_cpu(trainer: Any) -> None:
    """Turn FSDP on where accelerate leaves it out in silence: on CPUs it knows FSDP for GPUs and their like only.

    Called when *trainer* has made its accelerator, before anything is prepared with it.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    if trainer.args.fsdp_plugin_args is None or trainer.args.device.type != "cpu" or trainer.is_fsdp_enabled:
        return
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if trainer.accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(trainer.accelerator.mixed_precision)
    shared = AcceleratorState._shared_state  # noqa: SLF001 - accelerate has no public way; `read_back` guards it
    shared["fsdp_plugin"] = plugin
    shared["distributed_type"] = DistributedType.FSDP
    # Each later `AcceleratorState()` copies the type from here; the state dict would then be gathered as of DDP.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # noqa: SLF001
    trainer.is_fsdp_enabled = True


def read_back(trainer: Any, config: RunConfig, precision: Precision, *, halvings: int) -> RunFacts:
    """What is in force in the running *trainer*; another strategy, type or number than was asked for ends the run."""
    accelerator = trainer.accelerator
    wanted: tuple[int, Strategy, Precision] = (config.compute.processes, config.compute.strategy, precision)
    strategy = _effective(trainer)
    effective = {"bf16": "BF16", "fp16": "FP16", "no": "FP32"}.get(accelerator.mixed_precision, "?")
    found = (accelerator.num_processes, strategy, effective)
    if found != wanted:
        raise StrategyMismatchError(
            f"asked for {wanted[1]} in {wanted[2]} with {wanted[0]} ranks, got {found[1]} in {found[2]} with"
            f" {found[0]}; remove what overrides it from spec.extraArgs, or report this"
        )
    return RunFacts(
        base_commit=config.base.commit,
        strategy=strategy,
        precision=effective,
        ranks=accelerator.num_processes,
        per_device_train_batch_size=trainer.args.per_device_train_batch_size,
        gradient_accumulation_steps=trainer.args.gradient_accumulation_steps,
        batch_halvings=halvings,
        versions=[Metric(name=name, value=importlib.metadata.version(name)) for name in _VERSIONS_OF],
    )


def reshard(trainer: Any) -> None:
    """Bring FSDP's parameters back into their shards.

    After a forward pass without a backward one (an evaluation, a probe) the outermost module stays gathered, and what
    then reads or saves its parameters finds no shards.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in trainer.model_wrapped.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _effective(trainer: Any) -> str:
    """The strategy by what the model is now, not by what was configured."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    wrapped, ranks = trainer.model_wrapped, trainer.accelerator.num_processes
    if isinstance(wrapped, FSDPModule):
        if str(trainer.accelerator.distributed_type) != "DistributedType.FSDP":
            return f"FSDP that is treated as {trainer.accelerator.distributed_type}"
        trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        if not all(isinstance(parameter, DTensor) for parameter in trained):
            return "FSDP with whole parameters"
        local = sum(parameter.to_local().numel() for parameter in trained)
        if local >= sum(parameter.numel() for parameter in trained):
            return "FSDP without shards"
        stepped = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
        # accelerate finds them again by their addresses, and where these are not real it steps other ones in silence.
        return "FSDP" if stepped == {id(one) for one in trained} else "FSDP whose optimizer steps other weights"
    if ranks == 1:
        return "Single"  # torchrun's one rank is wrapped too
    return "DDP" if isinstance(wrapped, DistributedDataParallel) else "ranks that train apart"


def check_agreement(trainer: Any) -> None:
    """Raise unless all ranks ended with the same weights: whatever the trainer says, else they trained apart.

    With FSDP each has its own part, and there is nothing to compare.
    """
    import torch

    if trainer.accelerator.num_processes == 1 or trainer.is_fsdp_enabled:
        return
    trained = [p.detach().double().sum() for p in trainer.model.parameters() if p.requires_grad]
    sums = trainer.accelerator.gather(torch.stack(trained).sum().reshape(1))
    if bool((sums != sums[0]).any()):
        raise StrategyMismatchError(
            "the ranks ended with different weights: they did not train together; please report this"
        )


def agree(trainer: Any, *wishes: bool) -> list[bool]:
    """Each of *wishes* as soon as one rank has it; all ranks must call this at the same time."""
    if trainer.accelerator.num_processes == 1:
        return list(wishes)
    import torch
    from torch import distributed

    flags = torch.tensor([int(wish) for wish in wishes], device=trainer.args.device)
    distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flags.tolist()]
