"""What is known of a model before an engine is made for it, and what is measured of the engine after."""

from __future__ import annotations

import pytest

from largeforge.controllers.enginewords import reason_of
from largeforge.kube.cluster import DEPLOYMENTS, JOBS, PERSISTENTVOLUMECLAIMS
from tests.unit.serving import NAMESPACE, World, pod_manifest, second_pod, service_manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def world_of(**spec):
    return World(service_manifest(inspected=False, **spec))


def engine(world):
    return world.raw("deployments", "smol-engine")["spec"]["template"]["spec"]["containers"][0]


def variables(world):
    return {v["name"]: v.get("value") for v in engine(world)["env"]}


async def test_the_models_files_are_read_before_an_engine_is_made():
    world = world_of(engine={"maxModelLen": 2048})
    again = await world.look()
    (job,) = world.cluster.all(JOBS)
    assert world.cluster.all(DEPLOYMENTS) == []
    name = job["metadata"]["name"]
    assert world.said(world.service(), "Ready") == ("False", "Inspecting", f"Job {name!r} reads the files")
    assert world.said(world.service(), "Reconciling")[1] == "Inspecting"
    assert again["smol"] == 5
    world.inspect()
    await world.look()
    status = world.service().status
    assert (status.model.architecture, status.model.parameters) == ("LlamaForCausalLM", 134_515_008)
    assert (status.model.uri, status.model.max_model_len) == ("pvc://models/base", 2048)
    assert status.fit.startswith("0.25 GiB weights + 1.00 GiB KV cache")
    assert len(world.cluster.all(DEPLOYMENTS)) == 1


async def test_what_was_read_once_is_not_read_again():
    world = world_of()
    await world.look()
    world.inspect()
    await world.look()
    world.cluster.drop(JOBS, NAMESPACE, world.cluster.all(JOBS)[0]["metadata"]["name"])
    await world.look()
    assert world.cluster.all(JOBS) == []
    world.edit("inferenceservices", "smol", model={"uri": "pvc://models/other"})
    await world.look()
    assert len(world.cluster.all(JOBS)) == 1
    volumes = {m["mountPath"]: m.get("subPath") for m in engine(world)["volumeMounts"]}
    assert volumes["/mnt/model"] == "base"  # the engine that is there stays until the new model is known


async def test_a_model_that_cannot_be_read_makes_no_engine():
    world = world_of()
    await world.look()
    world.uninspected("NotAModel", "pvc://models/base: there is no config.json")
    again = await world.look()
    said = "pvc://models/base: there is no config.json; it is tried again in 5 minutes"
    assert world.said(world.service(), "Ready") == ("False", "NotAModel", said)
    assert world.said(world.service(), "Stalled") == ("True", "NotAModel", said)
    assert world.cluster.all(DEPLOYMENTS) == []
    assert again["smol"] == 300


async def test_a_claim_that_is_missing_is_said_before_anybody_reads_it():
    world = world_of()
    world.cluster.drop(PERSISTENTVOLUMECLAIMS, NAMESPACE, "models")
    await world.look()
    assert world.said(world.service(), "Ready")[:2] == ("False", "StorageNotReady")
    assert world.cluster.all(JOBS) == []


async def test_a_model_that_cannot_fit_is_refused_with_the_arithmetic():
    world = world_of(compute={"gpusPerReplica": 1, "gpuMemory": "16Gi"}, lora=None)
    await world.look()
    world.inspect(parameters=32_000_000_000, maxPositions=32_768)
    await world.look()
    status, reason, message = world.said(world.service(), "Stalled")
    assert (status, reason) == ("True", "DoesNotFit")
    assert message.startswith("59.60 GiB weights + 0.70 GiB KV cache of a request of 32768 tokens = 60.31 GiB of 14.72")
    assert message.endswith("lower spec.engine.maxModelLen, quantize the model, or raise spec.compute")
    assert world.cluster.all(DEPLOYMENTS) == []
    world.edit("inferenceservices", "smol", compute={"gpusPerReplica": 1, "gpuMemory": "80Gi"})
    await world.look()
    assert world.said(world.service(), "Stalled") is None
    assert len(world.cluster.all(DEPLOYMENTS)) == 1


async def test_a_repository_is_pinned_to_the_commit_that_was_read():
    world = world_of(model={"uri": "hf://org/model", "revision": "main", "secretRef": {"name": "hub"}})
    await world.look()
    world.inspect(commit=COMMIT)
    await world.look()
    assert {"--model=org/model", f"--revision={COMMIT}"} <= set(engine(world)["command"])
    token = next(v for v in engine(world)["env"] if v["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}
    assert (variables(world)["HF_HUB_OFFLINE"], variables(world)["HF_HUB_DISABLE_XET"]) == ("0", "1")
    assert world.service().status.model.commit == COMMIT


async def test_with_a_cache_the_engine_asks_nothing_of_the_hub():
    cache = {"uri": "pvc://models/cache"}
    world = world_of(model={"uri": "hf://org/model", "secretRef": {"name": "hub"}}, cache=cache)
    await world.look()
    world.inspect(commit=COMMIT)
    await world.look()
    found = variables(world)
    assert (found["HF_HUB_OFFLINE"], found["HF_HUB_CACHE"], found["VLLM_CACHE_ROOT"]) == (
        "1",
        "/mnt/cache",
        "/mnt/cache/vllm",
    )
    assert "HF_TOKEN" not in found
    (mount,) = [m for m in engine(world)["volumeMounts"] if m["mountPath"] == "/mnt/cache"]
    assert mount.get("readOnly") is None


async def test_one_request_is_measured_after_ready_and_again_of_a_new_container():
    world = World(service_manifest(cache={"uri": "pvc://models/cache"}))
    world.cluster.put(started(pod_manifest(), after=41))
    await world.look()
    warmup = world.service().status.warmup
    assert world.engines.measured == [("10.0.0.1", "smol")]
    assert (warmup.ttft_ms, warmup.tokens_per_second) == (120, "31.2")
    assert (warmup.start_seconds, warmup.cold_start_seconds) == (41, 41)
    await world.look()
    assert len(world.engines.measured) == 1
    world.cluster.put(started(pod_manifest(container="c2"), after=12))
    await world.look()
    warmup = world.service().status.warmup
    assert (warmup.start_seconds, warmup.cold_start_seconds) == (12, 41)
    world.edit("inferenceservices", "smol", replicas=2)
    world.cluster.put(started(second_pod(), after=13))
    await world.look()
    assert len(world.engines.measured) == 2


async def test_another_model_starts_the_measuring_anew():
    world = World(service_manifest())
    world.cluster.put(started(pod_manifest(), after=41))
    await world.look()
    world.edit("inferenceservices", "smol", model={"uri": "pvc://models/other"})
    await world.look()
    world.inspect()
    world.raw("deployments", "smol-engine")["played"] = {"updatedReplicas": 0}
    await world.look()
    assert world.service().status.warmup is None
    assert len(world.engines.measured) == 1  # the old pod is not measured again
    world.raw("deployments", "smol-engine")["played"] = {"updatedReplicas": 1}
    world.cluster.put(started(pod_manifest(container="c2"), after=30))
    await world.look()
    assert world.service().status.warmup.cold_start_seconds == 30


async def test_a_measured_request_that_fails_takes_nothing_down():
    world = World(service_manifest())
    world.cluster.put(pod_manifest())
    world.engines.troubles["measure", "10.0.0.1"] = "slow"
    await world.look()
    assert world.said(world.service(), "Ready")[0] == "True"
    assert world.service().status.warmup is None


def started(pod, *, after):
    pod["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-11-25T12:00:00Z"}}
    ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    ready["lastTransitionTime"] = f"2026-11-25T12:00:{after:02}Z"
    return pod


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "BadArgument"),
        ("api_server.py: error: argument --dtype: invalid choice: 'x'", "BadArgument"),
        (
            "ValidationError: 1 validation error for ModelConfig Value error, User-specified max_model_len (99999) is"
            " greater than the derived max_model_len",
            "BadArgument",
        ),
        (
            "ValidationError: 1 validation error for ModelConfig Value error, Model architectures ['FooForCausalLM']"
            " are not supported for now.",
            "UnsupportedArchitecture",
        ),
        (
            "ValidationError: 1 validation error for ModelConfig Value error, Invalid repository ID or local directory"
            " specified: '/mnt/model'.",
            "ModelNotFound",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "OutOfGPUMemory"),
        (
            "ValueError: To serve at least one request with the models max seq len (8192), (4.0 GiB KV cache is needed",
            "OutOfMemory",
        ),
        ("OSError: [Errno 28] No space left on device", "DiskFull"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "HubNotFound"),
        ("KeyError: 'invalid tool call parser: x (chose from { hermes,llama })'", "BadArgument"),
        ("RuntimeError: something else", "EngineFailed"),
    ],
)
def test_an_engines_last_words_have_a_reason(words, reason):
    assert reason_of(words) == reason


async def test_an_architecture_is_named_although_the_kubelet_kept_only_the_end_of_vllms_list():
    """2048 bytes of a log stay; the list of what vLLM 0.32.0 supports has 12,000."""
    names = ", ".join(f"'Some{number}ForCausalLM'" for number in range(100))
    log = (
        f"ssionLM', {names}]) [type=value_error, input_value=ArgsKwargs((), {{'model': ...}}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/value_error\n"
    )
    ended = {"exitCode": 1, "reason": "Error", "message": log}
    world = World(service_manifest())
    world.cluster.put(
        pod_manifest(ready=False, container_status={"restartCount": 1, "lastState": {"terminated": ended}})
    )
    await world.look()
    status, reason, message = world.said(world.service(), "Stalled")
    assert (status, reason) == ("True", "UnsupportedArchitecture")
    assert message.endswith("not supported by this vLLM: see architectures in config.json (LlamaForCausalLM)")
