"""The engine's own flags, listed from its image, and which of them `spec.engine.extraArgs` may set.

`engineargs.json` is written by `python -m dev.engineargs`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

_LIST = Path(__file__).with_name("engineargs.json")
_CODE = "LargeForge (no code from outside in the engine)"
_NETWORK = "LargeForge (what the engine opens and calls)"
_PROMPTS = "LargeForge (what clients send is not logged)"
_CLIENTS = "LargeForge (clients send text, and no templates, tensors or files)"
_SCALE = "spec.replicas (an adapter is loaded in one server process for each pod)"

_SET_BY: Mapping[str, tuple[str, ...]] = {
    "spec.model.uri": ("model", "model-tag", "hf-config-path", "config-format", "download-dir"),
    "spec.model.revision": ("revision", "code-revision", "tokenizer-revision"),
    "spec.model.secretRef": ("hf-token",),
    "spec.model.tokenizer": ("tokenizer", "skip-tokenizer-init"),
    "spec.model.trustRemoteCode": ("trust-remote-code",),
    "spec.servedModelNames": ("served-model-name",),
    "spec.engine.dtype": ("dtype",),
    "spec.engine.quantization": ("quantization",),
    "spec.engine.kvCacheDtype": ("kv-cache-dtype",),
    "spec.engine.maxModelLen": ("max-model-len",),
    "spec.engine.gpuMemoryUtilization": ("gpu-memory-utilization", "device-memory-utilization"),
    "spec.engine.maxNumSeqs": ("max-num-seqs",),
    "spec.engine.maxNumBatchedTokens": ("max-num-batched-tokens",),
    "spec.engine.tensorParallelSize": ("tensor-parallel-size",),
    "spec.engine.pipelineParallelSize": ("pipeline-parallel-size",),
    "spec.engine.enablePrefixCaching": ("enable-prefix-caching",),
    "spec.engine.enforceEager": ("enforce-eager",),
    "spec.engine.chatTemplate": ("chat-template",),
    "spec.engine.toolCallParser": ("tool-call-parser", "enable-auto-tool-choice"),
    "spec.engine.reasoningParser": ("reasoning-parser",),
    "spec.engine.speculativeConfig": ("speculative-config", "spec-method", "spec-model", "spec-tokens"),
    "spec.lora": ("enable-lora", "lora-modules", "default-mm-loras"),
    "spec.lora.maxLoras": ("max-loras",),
    "spec.lora.maxLoraRank": ("max-lora-rank",),
    "spec.lora.maxCpuLoras": ("max-cpu-loras",),
    "spec.drainSeconds": ("shutdown-timeout",),
    _SCALE: (
        "api-server-count",
        "data-parallel-address",
        "data-parallel-backend",
        "data-parallel-external-lb",
        "data-parallel-hybrid-lb",
        "data-parallel-multi-port-external-lb",
        "data-parallel-rank",
        "data-parallel-rpc-port",
        "data-parallel-size",
        "data-parallel-size-local",
        "data-parallel-start-rank",
        "data-parallel-supervisor-port",
        "distributed-executor-backend",
        "headless",
        "master-addr",
        "master-port",
        "nnodes",
        "node-rank",
    ),
    _CODE: (
        "config",
        "ec-manager-config",
        "ec-transfer-config",
        "io-processor-plugin",
        "kv-transfer-config",
        "load-format",
        "log-config-file",
        "logging-config",
        "logits-processors",
        "middleware",
        "model-class-overrides",
        "reasoning-parser-plugin",
        "scheduler-cls",
        "tool-parser-plugin",
        "weight-transfer-config",
        "worker-cls",
        "worker-extension-cls",
    ),
    _NETWORK: (
        "api-key",
        "disable-access-log-for-endpoints",
        "enable-ssl-refresh",
        "grpc",
        "grpc-port",
        "host",
        "kv-events-config",
        "port",
        "profiler-config",
        "root-path",
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "ssl-certfile",
        "ssl-ciphers",
        "ssl-keyfile",
        "tool-server",
        "uds",
    ),
    _PROMPTS: ("enable-log-deltas", "enable-log-outputs", "enable-log-requests"),
    _CLIENTS: (
        "allowed-local-media-path",
        "enable-mm-embeds",
        "enable-prompt-embeds",
        "trust-request-chat-template",
        "trust-request-mm-kwargs",
    ),
}


def _both(names: tuple[str, ...]) -> tuple[str, ...]:
    """*names*, and the negation of each."""
    return (*names, *(f"no-{name}" for name in names))


RESERVED: Mapping[str, str] = {name: field for field, names in _SET_BY.items() for name in _both(names)}
"""Flags that `extraArgs` may not set, and what sets each."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of the engine."""

    kind: str
    """`switch`, `integer`, `number` or `text`."""
    choices: tuple[str, ...] = ()
    """The only values, where there are such."""


@cache
def engine_version() -> str:
    """The version of vLLM that the list is of."""
    return str(_listed()["vllm"])


@cache
def flags() -> Mapping[str, Flag]:
    """The flags of that engine, by name without dashes."""
    return {
        name: Flag(kind=said["kind"], choices=tuple(said.get("choices", ())))
        for name, said in _listed()["flags"].items()
    }


@cache
def _listed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_LIST.read_text())
    return found


def problems(arguments: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with *arguments* for the engine that we know, one line each, with the remedy."""
    for name, value in sorted(arguments.items()):
        where = f"spec.engine.extraArgs.{name}"
        if name in RESERVED:
            yield f"{where}: set by {RESERVED[name]}; remove it from extraArgs"
        elif name not in flags():
            yield f"{where}: {_unknown(name)}"
        elif (wrong := value_problem(name, value)) is not None:
            yield f"{where}: {wrong}"


def value_problem(name: str, value: str) -> str | None:
    """Why the flag *name* does not take *value*, or None where nothing speaks against it."""
    flag = flags()[name]
    if flag.kind == "switch":
        return f"it takes no value (got {value[:32]!r}); write '{name}: \"\"'" if value else None
    if not value:
        return "it needs a value"
    if flag.choices and value not in flag.choices:
        return f"must be one of {', '.join(flag.choices)} (got {value[:32]!r})"
    if flag.kind == "integer" and not _is(int, value):
        return f"must be a whole number (got {value[:32]!r})"
    if flag.kind == "number" and not _is(float, value):
        return f"must be a number (got {value[:32]!r})"
    return None


def _unknown(name: str) -> str:
    """What to write instead: argparse would take a beginning for the flag itself, and another one tomorrow."""
    allowed = [each for each in flags() if each not in RESERVED]
    begun = [each for each in flags() if each.startswith(name)]
    if begun:
        return f"flags are written in full; it is the beginning of {', '.join(sorted(begun)[:3])}"
    near = difflib.get_close_matches(name, allowed, n=1)
    advice = f"did you mean {near[0]}?" if near else "see the engine's documentation for its flags"
    return f"vLLM {engine_version()} has no such flag; {advice}"


def _is(number: type[int | float], text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _rule(field: str, names: tuple[str, ...]) -> dict[str, str]:
    listed = ", ".join(f"'{name}'" for name in _both(names))
    verb = "is" if len(names) == 1 else "are"
    return {
        "rule": f"!self.exists(k, k in [{listed}])",
        "message": f"{', '.join(names)} {verb} set by {field}; remove from extraArgs",
    }


ExtraEngineArgs = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=1024)],
    ],
    Field(
        max_length=32,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.all(k, k.matches('^[a-z][a-z0-9-]*$'))",
                    "message": "keys are flags of the engine without dashes before them, for example seed",
                },
                *(_rule(field, names) for field, names in _SET_BY.items()),
            ]
        },
    ),
]
"""Flag to value; what is not a flag of the engine, or has a value that it does not take, becomes a condition."""
