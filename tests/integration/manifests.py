"""Good manifests, and the table of bad ones: a good one with one thing changed, and what the server must say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tests.integration.finetunejobs import BAD_JOBS, GOOD_JOBS, REMOVED, Manifest
from tests.integration.quantizejobs import BAD_QUANTIZEJOBS, GOOD_QUANTIZEJOBS


def inferenceservice() -> Manifest:
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen-7b"},
        "spec": {
            "model": {"uri": "pvc://models/qwen2.5-7b"},
            "replicas": 2,
            "engine": {"maxModelLen": 8192, "extraArgs": {"seed": "64"}},
            "lora": {"store": "pvc://models", "maxLoras": 4, "maxLoraRank": 64},
            "compute": {"gpusPerReplica": 1},
        },
    }


def full_inferenceservice() -> Manifest:
    """Every field that is not in the plain one."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen-full"},
        "spec": {
            "model": {
                "uri": "hf://Qwen/Qwen2.5-7B-Instruct",
                "revision": "main",
                "secretRef": {"name": "hub", "key": "token"},
                "tokenizer": "pvc://models/tokenizer",
                "trustRemoteCode": False,
            },
            "servedModelNames": ["qwen", "Qwen/Qwen2.5-7B-Instruct"],
            "replicas": 1,
            "stopped": False,
            "engine": {
                "dtype": "bfloat16",
                "quantization": "awq",
                "kvCacheDtype": "fp8",
                "maxModelLen": 8192,
                "gpuMemoryUtilization": 0.9,
                "maxNumSeqs": 64,
                "maxNumBatchedTokens": 8192,
                "tensorParallelSize": 2,
                "pipelineParallelSize": 2,
                "enablePrefixCaching": True,
                "enforceEager": True,
                "chatTemplate": "configmap://templates/qwen.jinja",
                "toolCallParser": "hermes",
                "reasoningParser": "qwen3",
                "speculativeConfig": {
                    "method": "ngram",
                    "numSpeculativeTokens": 3,
                    "promptLookupMax": 4,
                    "promptLookupMin": 2,
                },
                "extraArgs": {"seed": "7"},
                "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "WARNING"}],
            },
            "lora": {"store": "pvc://models", "maxLoras": 4, "maxLoraRank": 64, "maxCpuLoras": 8},
            "compute": {"gpusPerReplica": 4, "gpuResource": "nvidia.com/gpu", "gpuMemory": "80Gi"},
            "autoscaling": {"minReplicas": 1, "maxReplicas": 4, "metric": "KVCacheUsage", "target": 90},
            "rollout": {"maxSurge": 1, "maxUnavailable": 0},
            "drainSeconds": 120,
            "startup": {"timeoutSeconds": 3600},
            "cache": {"uri": "pvc://cache/engines"},
            "service": {"type": "ClusterIP", "annotations": {"a": "b"}},
            "networkPolicy": {
                "enabled": True,
                "allowFrom": [{"namespaceLabels": {"team": "monitoring"}, "podLabels": {"app": "prometheus"}}],
            },
        },
    }


def service_of_an_expert() -> Manifest:
    made = inferenceservice()
    made["spec"]["model"] = {"expertRef": {"name": "general"}}
    made["spec"]["engine"] |= {
        "speculativeConfig": {"method": "eagle3", "model": "hf://org/draft", "numSpeculativeTokens": 3},
        "env": [{"name": "CORP_TOKEN", "valueFrom": {"secretKeyRef": {"name": "corp", "key": "token"}}}],
    }
    return made


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
            "routing": {
                "domains": ["sql"],
                "keywords": [
                    {"pattern": "select", "type": "Word"},
                    {"pattern": r"\bORA-\d{5}\b", "type": "Regex", "weight": 2.5},
                ],
                "examples": ["Which customers bought more than ten items?"],
                "negativeExamples": ["Which table is free at eight?"],
                "priority": 10,
                "threshold": 0.6,
                "stickiness": 0.2,
            },
            "defaults": {"systemPrompt": "Answer in SQL.", "temperature": 0, "topP": 1, "topK": 40, "maxTokens": 512},
            "limits": {"maxConcurrentRequests": 8, "timeoutSeconds": 120},
            "access": {"clients": ["team-a", "Batch_1.x"]},
            "stage": "Production",
            "probe": {"prompt": "What is the capital of France?", "expectRegex": r"(?i)\bparis\b"},
        },
    }


def artifact_expert() -> Manifest:
    expert = adapter_expert()
    del expert["spec"]["sourceRef"]
    expert["spec"] |= {"artifact": {"uri": "pvc://uploads/sql/v2"}, "deletionPolicy": "Delete"}
    return expert


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
    **GOOD_QUANTIZEJOBS,
    "inferenceservice of an expert": service_of_an_expert,
    "full inferenceservice": full_inferenceservice,
    "inferenceservice": inferenceservice,
    "adapter expert": adapter_expert,
    "model expert": model_expert,
    "whole model expert": whole_model_expert,
    "external expert": external_expert,
    "artifact expert": artifact_expert,
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


SECRET_VARIABLE = {"name": "CORP_TOKEN"}


def secret(name: str, key: str) -> Manifest:
    return {"secretKeyRef": {"name": name, "key": key}}


SERVICE, ADAPTER, MODEL, _WHOLE, EXTERNAL, ARTIFACT = list(GOOD)[-6:]
ONE_OF = "exactly one of sourceRef, artifact and endpoint"

BAD = [
    *(Bad(*row) for row in BAD_JOBS),
    *(Bad(*row) for row in BAD_QUANTIZEJOBS),
    # InferenceService
    Bad(SERVICE, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(SERVICE, {"metadata.name": "b" * 41}, "at most 40 characters"),
    Bad(SERVICE, {"spec.model.uri": "s3://bucket/model"}, "spec.model.uri"),
    Bad(SERVICE, {"spec.model.uri": REMOVED}, "set either model.uri or model.expertRef"),
    Bad(SERVICE, {"spec.model.expertRef": {"name": "x"}}, "set either model.uri or model.expertRef"),
    Bad(SERVICE, {"spec.model.revision": "main"}, "model.revision is of a repository of the hub"),
    Bad(SERVICE, {"spec.model.secretRef": {"name": "x"}}, "model.secretRef is a token of the hub"),
    Bad(SERVICE, {"spec.servedModelNames": ["qwen", "auto"]}, "servedModelNames: 'auto' is the router's own name"),
    Bad(SERVICE, {"spec.servedModelNames": ["qwen", "qwen"]}, "duplicate entries"),
    Bad(SERVICE, {"spec.servedModelNames": ["-x"]}, "spec.servedModelNames[0]"),
    Bad(SERVICE, {"spec.engine.dtype": "--dtype"}, "spec.engine.dtype"),
    Bad(SERVICE, {"spec.engine.gpuMemoryUtilization": 1.1}, "spec.engine.gpuMemoryUtilization"),
    Bad(
        SERVICE,
        {"spec.compute.gpusPerReplica": 0, "spec.engine.gpuMemoryUtilization": 0.9},
        "engine.gpuMemoryUtilization needs a GPU",
    ),
    Bad(
        SERVICE,
        {"spec.compute.gpusPerReplica": 0, "spec.engine.tensorParallelSize": 1},
        "engine.tensorParallelSize and pipelineParallelSize need GPUs",
    ),
    Bad(SERVICE, {"spec.engine.tensorParallelSize": 2}, "must be compute.gpusPerReplica"),
    Bad(SERVICE, {"spec.engine.pipelineParallelSize": 2}, "a multiple of engine.pipelineParallelSize"),
    Bad(SERVICE, {"spec.engine.chatTemplate": "hf://org/model"}, "spec.engine.chatTemplate"),
    Bad(
        SERVICE,
        {"spec.engine.speculativeConfig": {"method": "custom_class", "numSpeculativeTokens": 3}},
        "no code from outside in the engine",
    ),
    Bad(
        SERVICE,
        {"spec.engine.speculativeConfig": {"method": "eagle3", "numSpeculativeTokens": 3}},
        "this method needs model",
    ),
    *(
        Bad(SERVICE, {"spec.engine.env": [{"name": name, "value": "1"}]}, "opens an endpoint of the engine")
        for name in ("VLLM_SERVER_DEV_MODE", "VLLM_PLUGINS", "LD_PRELOAD", "HF_TOKEN", "VLLM_RPC_BASE_PATH")
    ),
    Bad(SERVICE, {"spec.engine.env": [{"name": "OMP_NUM_THREADS", "value": "1"}]}, "LargeForge sets this variable"),
    Bad(SERVICE, {"spec.autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas must not be above"),
    Bad(SERVICE, {"spec.autoscaling": {"maxReplicas": 2, "metric": "CPU", "target": 101}}, "target is a percentage"),
    Bad(SERVICE, {"spec.rollout": {"maxSurge": 0, "maxUnavailable": 0}}, "one of maxSurge and maxUnavailable"),
    Bad(SERVICE, {"spec.drainSeconds": 3601}, "spec.drainSeconds"),
    Bad(SERVICE, {"spec.startup": {"timeoutSeconds": 5}}, "spec.startup.timeoutSeconds"),
    Bad(SERVICE, {"spec.cache": {"uri": "hf://a/b"}}, "spec.cache.uri"),
    Bad(SERVICE, {"spec.networkPolicy": {"allowFrom": [{}]}}, "a peer needs namespaceLabels, podLabels or both"),
    Bad(SERVICE, {"spec.compute.gpuResource": "gpu"}, "spec.compute.gpuResource"),
    Bad(SERVICE, {"spec.compute": {"gpusPerReplica": 0, "gpuMemory": "80Gi"}}, "gpuMemory is the memory of a GPU"),
    Bad(SERVICE, {"spec.replicas": 65}, "spec.replicas"),
    Bad(SERVICE, {"spec.engine.maxModelLen": 0}, "spec.engine.maxModelLen"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"api-key": "x"}}, "remove from extraArgs"),
    Bad(
        SERVICE,
        {"spec.engine.extraArgs": {"max-model-len": "9"}},
        "set by spec.engine.maxModelLen; remove from extraArgs",
    ),
    Bad(SERVICE, {"spec.engine.extraArgs": {"no-enable-lora": ""}}, "set by spec.lora; remove from extraArgs"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"--host": "0.0.0.0"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"Max_Seqs": "1"}}, "flags of the engine without dashes"),
    Bad(SERVICE, {"spec.engine.extraArgs": {"ssl-ca-certs": "/x"}}, "remove from extraArgs"),
    Bad(SERVICE, {"spec.lora.maxLoraRank": 48}, "supported values"),
    Bad(SERVICE, {"spec.lora.maxCpuLoras": 4}, "one slot stays free for swapping versions"),
    Bad(SERVICE, {"spec.lora.store": REMOVED}, "spec.lora.store: Required value"),
    Bad(SERVICE, {"spec.service": {"annotations": {"-a": "b"}}}, "annotations: a key has letters"),
    *(
        Bad(SERVICE, {"spec.networkPolicy": {"allowFrom": [{field: {"a b": "c"}}]}}, f"{field}: a key has letters")
        for field in ("namespaceLabels", "podLabels")
    ),
    Bad(SERVICE, {"spec.networkPolicy": {"allowFrom": [{"podLabels": {"a": "$(b)"}}]}}, "podLabels.a: Invalid value"),
    Bad(SERVICE, {"spec.engine.env": [SECRET_VARIABLE | {"valueFrom": secret("../x", "k")}]}, "secretKeyRef.name"),
    Bad(SERVICE, {"spec.engine.env": [SECRET_VARIABLE | {"valueFrom": secret("x", "../k")}]}, "secretKeyRef.key"),
    *(
        Bad(SERVICE, {"spec.compute.podTemplate": {field: {"a b": "c"}}}, f"{field}: a key has letters")
        for field in ("labels", "nodeSelector")
    ),
    *(
        Bad(SERVICE, {"spec.compute.resources": {field: {"a b": "1"}}}, f"{field}: a key has letters")
        for field in ("requests", "limits")
    ),
    *(
        Bad(SERVICE, {"spec.compute.podTemplate": {field: value}}, f"spec.compute.podTemplate.{field}")
        for field, value in {
            "labels": {"a": "-b"},
            "tolerations": [{"key": "a b"}],
            "runtimeClassName": "../x",
            "priorityClassName": "x;y",
            "volumes": [{"name": "a", "mountPath": "/a", "configMap": {"name": "other/x"}}],
        }.items()
    ),
    Bad(SERVICE, {"spec.service": {"type": "ExternalName"}}, 'supported values: "ClusterIP"'),
    # Expert
    Bad(ADAPTER, {"metadata.name": "auto"}, "'auto' is the router's own name"),
    Bad(
        ADAPTER,
        {"spec.sourceRef": {"kind": "QuantizeJob", "name": "small"}},
        "a QuantizeJob makes whole models; set type: Model",
    ),
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
    Bad(ADAPTER, {"spec.sourceRef.kind": "Expert"}, 'supported values: "FineTuneJob", "QuantizeJob"'),
    Bad(ADAPTER, {"spec.sourceRef.name": "other-ns/sql-sft"}, "spec.sourceRef.name"),
    Bad(ADAPTER, {"spec.inferenceServiceRef": REMOVED}, "name their InferenceService in inferenceServiceRef"),
    Bad(ADAPTER, {"spec.version": "-1"}, "spec.version"),
    Bad(ADAPTER, {"spec.routing.keywords.0.pattern": ""}, "spec.routing.keywords[0].pattern"),
    Bad(ADAPTER, {"spec.routing.keywords.0.type": "Glob"}, 'supported values: "Word", "Literal", "Regex"'),
    Bad(ADAPTER, {"spec.routing.keywords.0": {"pattern": "(a", "type": "Regex"}}, "missing closing )"),
    Bad(ADAPTER, {"spec.routing.keywords.0": {"pattern": "(?=a)", "type": "Regex"}}, "invalid or unsupported Perl"),
    Bad(ADAPTER, {"spec.routing.keywords.0": {"pattern": "a*", "type": "Regex"}}, "pattern matches the empty text"),
    Bad(
        ADAPTER, {"spec.routing.keywords": [{"pattern": "a+", "type": "Regex"}] * 17}, "at most 16 may have type Regex"
    ),
    Bad(ADAPTER, {"spec.routing.keywords.0.weight": 0}, "weight must be above 0"),
    Bad(ADAPTER, {"spec.routing.keywords.0.weight": 11}, "spec.routing.keywords[0].weight"),
    Bad(ADAPTER, {"spec.routing.examples": [""]}, "spec.routing.examples[0]"),
    Bad(ADAPTER, {"spec.routing.examples": ["x" * 513]}, "spec.routing.examples[0]"),
    Bad(ADAPTER, {"spec.routing.examples": ["x"] * 1001}, "must have at most 1000 items"),
    Bad(ADAPTER, {"spec.routing": {"negativeExamples": ["x"]}}, "add examples, or remove them"),
    Bad(ADAPTER, {"spec.routing.priority": 101}, "spec.routing.priority"),
    Bad(ADAPTER, {"spec.routing.threshold": 1.1}, "spec.routing.threshold"),
    Bad(ADAPTER, {"spec.routing.stickiness": -0.1}, "spec.routing.stickiness"),
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
    Bad(MODEL, {"spec.deletionPolicy": "Delete"}, "removes an adapter's files; leave it out"),
    Bad(ARTIFACT, {"spec.deletionPolicy": "Forget"}, 'supported values: "Retain", "Delete"'),
    Bad(ARTIFACT, {"spec.artifact.uri": "pvc://uploads"}, "write pvc://<claim>/<path>"),
    Bad(ARTIFACT, {"spec.artifact.uri": "hf://org/adapter"}, "write pvc://<claim>/<path>"),
    Bad(ARTIFACT, {"spec.artifact.uri": "pvc://uploads/../sql"}, "spec.artifact.uri"),
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
