"""Good manifests, and the table of bad ones: a good one with one thing changed, and what the server must say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tests.integration.finetunejobs import BAD_JOBS, GOOD_JOBS, REMOVED, Manifest


def inferenceservice() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen-7b"},
        "spec": {
            "model": {"uri": "pvc://models/qwen2.5-7b"},
            "replicas": 2,
            "engine": {"maxModelLen": 8192, "extraArgs": {"max-num-seqs": "64"}},
            "lora": {"store": "pvc://models", "maxLoras": 4, "maxLoraRank": 64},
            "compute": {"gpusPerReplica": 1},
        },
    }


def adapter_expert() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "sql"},
        "spec": {
            "type": "Adapter",
            "sourceRef": {"kind": "FineTuneJob", "name": "sql-sft"},
            "inferenceServiceRef": {"name": "qwen-7b"},
            "version": "1.2.0",
            "routing": {"domains": ["sql"], "keywords": [{"pattern": "select", "type": "Word"}]},
            "defaults": {"systemPrompt": "Answer in SQL.", "temperature": 0, "topP": 1, "topK": 40, "maxTokens": 512},
            "limits": {"maxConcurrentRequests": 8, "timeoutSeconds": 120},
            "access": {"clients": ["team-a", "Batch_1.x"]},
            "stage": "Production",
            "probe": {"prompt": "What is the capital of France?", "expectRegex": r"(?i)\bparis\b"},
        },
    }


def external_expert() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "cloud"},
        "spec": {
            "type": "External",
            "endpoint": {"url": "https://llm.example.com:8443/openai", "model": "org/large-1.5"},
        },
    }


def whole_model_expert() -> Manifest:
    expert = model_expert()
    del expert["spec"]["artifact"]
    expert["spec"]["sourceRef"] = {"kind": "FineTuneJob", "name": "merged", "run": 3}
    return expert


def model_expert() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "general"},
        "spec": {
            "type": "Model",
            "artifact": {"uri": "pvc://models/qwen2.5-7b"},
            "inferenceServiceRef": {"name": "qwen-7b"},
            "routing": {"fallback": True},
        },
    }


GOOD = {
    **GOOD_JOBS,
    "inferenceservice": inferenceservice,
    "adapter expert": adapter_expert,
    "model expert": model_expert,
    "whole model expert": whole_model_expert,
    "external expert": external_expert,
}


@dataclass(frozen=True)
class Bad:
    """A good manifest with the values at some paths changed, and a part of the message that refuses it."""

    good: str
    changes: dict[str, Any]
    message: str

    def manifest(self) -> Manifest:
        manifest = copy.deepcopy(GOOD[self.good]())
        for path, value in self.changes.items():
            *parents, last = path.split(".")
            node: Any = manifest
            for part in parents:
                node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
            if value is REMOVED:
                del node[last]
            elif isinstance(node, list):
                node[int(last)] = value
            else:
                node[last] = value
        return manifest

    @property
    def title(self) -> str:
        changed = ", ".join(
            f"{path}={'(removed)' if value is REMOVED else value!r}" for path, value in self.changes.items()
        )
        return f"{self.good}: {changed}"[:120]


SERVICE, ADAPTER, MODEL, _WHOLE, EXTERNAL = list(GOOD)[-5:]
ONE_OF = "exactly one of sourceRef, artifact and endpoint"

BAD = [
    *(Bad(*row) for row in BAD_JOBS),
    # InferenceService
    Bad(SERVICE, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(SERVICE, {"metadata.name": "b" * 41}, "at most 40 characters"),
    Bad(SERVICE, {"spec.model.uri": "hf://org/model"}, "spec.model.uri"),
    Bad(SERVICE, {"spec.replicas": 65}, "spec.replicas"),
    Bad(SERVICE, {"spec.engine.maxModelLen": 0}, "spec.engine.maxModelLen"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"api-key": "x"}}, "remove it from extraArgs"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"max-model-len": "9"}}, "set by LargeForge or by a field of its own"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"--host": "0.0.0.0"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"Max_Seqs": "1"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"ssl-ca-certs": "/x"}}, "remove it from extraArgs"),
    Bad(SERVICE, {"spec.lora.maxLoraRank": 48}, "supported values"),
    Bad(SERVICE, {"spec.lora.maxCpuLoras": 4}, "one slot stays free for swapping versions"),
    Bad(SERVICE, {"spec.lora.store": REMOVED}, "spec.lora.store: Required value"),
    Bad(SERVICE, {"spec.service": {"type": "ExternalName"}}, 'supported values: "ClusterIP"'),
    # Expert
    Bad(ADAPTER, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(ADAPTER, {"spec.type": "Oracle"}, 'supported values: "Adapter", "Model", "External"'),
    Bad(ADAPTER, {"spec.type": "External"}, "endpoint makes an expert of type External"),
    Bad(ADAPTER, {"spec.sourceRef": REMOVED}, ONE_OF),
    Bad(ADAPTER, {"spec.artifact": {"uri": "pvc://models/x"}}, ONE_OF),
    Bad(ADAPTER, {"spec.endpoint": {"url": "https://x.example"}}, ONE_OF),
    Bad(ADAPTER, {"spec.sourceRef.run": 0}, "spec.sourceRef.run"),
    Bad(ADAPTER, {"spec.stage": "Retired"}, 'supported values: "Development", "Staging"'),
    Bad(ADAPTER, {"spec.probe.prompt": REMOVED}, "spec.probe.prompt: Required value"),
    Bad(ADAPTER, {"spec.probe.expectRegex": "(paris"}, "missing closing )"),
    Bad(ADAPTER, {"spec.probe.expectRegex": "(?=paris)"}, "invalid or unsupported Perl syntax"),
    Bad(ADAPTER, {"spec.sourceRef.kind": "QuantizeJob"}, 'supported values: "FineTuneJob"'),
    Bad(ADAPTER, {"spec.sourceRef.name": "other-ns/sql-sft"}, "spec.sourceRef.name"),
    Bad(ADAPTER, {"spec.inferenceServiceRef": REMOVED}, "name their InferenceService in inferenceServiceRef"),
    Bad(ADAPTER, {"spec.version": "-1"}, "spec.version"),
    Bad(ADAPTER, {"spec.routing.keywords.0.pattern": ""}, "spec.routing.keywords[0].pattern"),
    Bad(ADAPTER, {"spec.routing.keywords.0.type": "Regex"}, 'supported values: "Word", "Literal"'),
    Bad(ADAPTER, {"spec.routing.domains": ["x"] * 17}, "must have at most 16 items"),
    Bad(ADAPTER, {"spec.defaults.systemPrompt": ""}, "spec.defaults.systemPrompt"),
    Bad(ADAPTER, {"spec.defaults.systemPrompt": "x" * 8193}, "spec.defaults.systemPrompt"),
    Bad(ADAPTER, {"spec.defaults.temperature": -0.1}, "spec.defaults.temperature"),
    Bad(ADAPTER, {"spec.defaults.temperature": 2.1}, "spec.defaults.temperature"),
    Bad(ADAPTER, {"spec.defaults.topP": 0}, "topP must be above 0, for example 0.9"),
    Bad(ADAPTER, {"spec.defaults.topP": 1.1}, "spec.defaults.topP"),
    Bad(ADAPTER, {"spec.defaults.topK": 0}, "spec.defaults.topK"),
    Bad(ADAPTER, {"spec.defaults.maxTokens": 0}, "spec.defaults.maxTokens"),
    Bad(ADAPTER, {"spec.defaults.maxTokens": "many"}, "spec.defaults.maxTokens"),
    Bad(ADAPTER, {"spec.limits.maxConcurrentRequests": 0}, "spec.limits.maxConcurrentRequests"),
    Bad(ADAPTER, {"spec.limits.timeoutSeconds": 0}, "spec.limits.timeoutSeconds"),
    Bad(ADAPTER, {"spec.limits.timeoutSeconds": 86401}, "spec.limits.timeoutSeconds"),
    Bad(ADAPTER, {"spec.access.clients": ["team/a"]}, "spec.access.clients[0]"),
    Bad(ADAPTER, {"spec.access.clients": [""]}, "spec.access.clients[0]"),
    Bad(ADAPTER, {"spec.access.clients": ["team", "team"]}, ".spec.access.clients: duplicate entries"),
    Bad(ADAPTER, {"spec.access.clients": [f"team-{n}" for n in range(129)]}, "must have at most 128 items"),
    Bad(MODEL, {"spec.artifact": REMOVED}, ONE_OF),
    Bad(MODEL, {"spec.sourceRef": {"kind": "FineTuneJob", "name": "sql-sft"}}, ONE_OF),
    Bad(MODEL, {"spec.artifact.uri": "s3://bucket/model"}, "spec.artifact.uri"),
    Bad(EXTERNAL, {"spec.endpoint": REMOVED}, ONE_OF),
    Bad(EXTERNAL, {"spec.type": "Model"}, "endpoint makes an expert of type External"),
    Bad(EXTERNAL, {"spec.inferenceServiceRef": {"name": "qwen-7b"}}, "External has none"),
    Bad(EXTERNAL, {"spec.probe": {"prompt": "Hello"}}, "remove probe"),
    Bad(EXTERNAL, {"spec.endpoint.url": "https://user:key@llm.example.com"}, "spec.endpoint.url"),
    Bad(EXTERNAL, {"spec.endpoint.url": "https://llm.example.com/../admin"}, "spec.endpoint.url"),
    Bad(EXTERNAL, {"spec.endpoint.url": "https://llm.example.com/?key=1"}, "spec.endpoint.url"),
    Bad(EXTERNAL, {"spec.endpoint.url": "file:///etc/passwd"}, "spec.endpoint.url"),
    Bad(EXTERNAL, {"spec.endpoint.model": "two words"}, "spec.endpoint.model"),
]
