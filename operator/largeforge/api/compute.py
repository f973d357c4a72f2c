"""What a run gets: ranks, GPUs, memory, and where its pod goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import PodTemplate, ResourceRequirements
from largeforge.api.model import Model, Quantity, rules
from largeforge.api.training import Fsdp


class TrainingCompute(Model):
    """What the run gets."""

    model_config = rules(
        (
            "self.gpusPerNode == 0 || !has(self.processesPerNode) || self.processesPerNode == self.gpusPerNode",
            "processesPerNode is the number of GPUs where there are any; remove it, or set gpusPerNode: 0",
        ),
        (
            "!has(self.fsdp) || self.strategy == 'FSDP'",
            "fsdp holds options of strategy FSDP; set strategy: FSDP, or remove fsdp",
        ),
        (
            "self.strategy != 'Single' || (has(self.processesPerNode) ? self.processesPerNode"
            " : (self.gpusPerNode > 0 ? self.gpusPerNode : 1)) == 1",
            "strategy Single is one process; set gpusPerNode or processesPerNode to 1, or strategy: Auto",
        ),
        (
            "!(self.strategy in ['DDP', 'FSDP']) || (has(self.processesPerNode) ? self.processesPerNode"
            " : self.gpusPerNode) >= 2",
            "strategies DDP and FSDP need two processes or more; raise gpusPerNode or processesPerNode,"
            " or set strategy: Auto",
        ),
    )

    nodes: Annotated[int, Field(ge=1, le=1)] = 1
    """Nodes; in this version a run has one."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of the pod, one rank for each; 0 trains on the CPU."""
    gpu_resource: Annotated[
        str, Field(min_length=3, max_length=128, pattern=r"^[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$")
    ] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Ranks on a CPU; by default 1."""
    strategy: Literal["Auto", "Single", "DDP", "FSDP"] = "Auto"
    """How the ranks share the work: DDP copies the model, FSDP (FSDP2) shards it; Auto is Single for one rank, else
    DDP with LoRA and FSDP for all weights. What the trainer really used is read back; a mismatch fails the run."""
    fsdp: Fsdp | None = None
    """Options of FSDP."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the container."""
    shared_memory: Quantity | None = None
    """The size of /dev/shm, which counts as memory; by default 8Gi with GPUs, else 1Gi."""
    pod_template: PodTemplate = PodTemplate()
    """What is laid over the pod."""

    @property
    def processes(self) -> int:
        """The number of ranks."""
        if self.processes_per_node is not None:
            return self.processes_per_node
        return max(self.gpus_per_node, 1)
