"""What an engine's last words come to: one reason for each thing that a person would do."""

from __future__ import annotations

import re

from largeforge.api.names import Reason

_MEANINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        Reason.UNSUPPORTED_ARCHITECTURE,
        re.compile(
            r"[Mm]odel architectures? .*(not supported|failed to be inspected)|does not recognize this architecture"
            r"|has no vLLM implementation"
        ),
    ),
    (
        Reason.MODEL_NOT_FOUND,
        re.compile(
            r"Invalid repository ID or local directory|No such file or directory: '/mnt/(model|tokenizer|draft)"
            r"|Cannot find any model weights|no file named config\.json"
        ),
    ),
    (Reason.HUB_NOT_FOUND, re.compile(r"(Repository|Revision|Entry)NotFoundError|Repository Not Found")),
    (Reason.HUB_FORBIDDEN, re.compile(r"GatedRepoError|403 Client Error")),
    (Reason.HUB_UNAUTHORIZED, re.compile(r"401 Client Error|Invalid username or password")),
    (Reason.HUB_RATE_LIMITED, re.compile(r"429 Client Error|Too Many Requests")),
    (
        Reason.HUB_UNREACHABLE,
        re.compile(r"LocalEntryNotFoundError|couldn't connect to|MaxRetryError|ConnectError|OfflineModeIsEnabled"),
    ),
    (Reason.DISK_FULL, re.compile(r"No space left on device")),
    (
        Reason.OUT_OF_GPU_MEMORY,
        re.compile(r"CUDA out of memory|OutOfMemoryError|Free memory on device|HIP out of memory"),
    ),
    (
        Reason.OUT_OF_MEMORY,
        re.compile(
            r"KV cache is needed|No available memory for the cache blocks|stored in KV cache|can't allocate memory"
            r"|Not enough memory"
        ),
    ),
    (
        Reason.BAD_ARGUMENT,
        re.compile(
            r"\w: error: |User-specified max_model_len|validation errors? for \w+(Config|Args)|must be divisible"
            r"|invalid (tool call|reasoning) parser|Unknown quantization method"
        ),
    ),
)
"""The first that is found holds: a wrong model is told by vLLM as a wrong argument, too."""

_ARCHITECTURES = re.compile(r"(?:'\w+', ){8}'\w+'\]\) \[type=value_error")
"""The end of vLLM's list of all that it supports: it is longer than what the kubelet keeps of a log, so that nothing of
the sentence before it is left."""
NO_SUCH_ARCHITECTURE = "Model architectures are not supported by this vLLM: see architectures in config.json"


def sentence_of(log: str) -> str | None:
    """What *log* says where the words themselves are cut off; None where they are not."""
    return NO_SUCH_ARCHITECTURE if _ARCHITECTURES.search(log) else None


def reason_of(words: str) -> str:
    """The reason; `EngineFailed` where the words tell nothing that we know."""
    return next((reason for reason, pattern in _MEANINGS if pattern.search(words)), Reason.ENGINE_FAILED)
