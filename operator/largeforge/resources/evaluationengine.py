"""The engine that evaluates: a sidecar of one pod that serves one model to that pod alone."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.quantizejob import QuantizeJob
from largeforge.resources import enginelogging
from largeforge.resources.pods import Manifest, container_security, overlay_env
from largeforge.resources.quantity import quantity
from largeforge.resources.quantizeconfig import ENGINE_PORT, SERVED_NAME, WINDOW_TOKENS

CONTAINER = "engine"
KV_CACHE_GIB = "1"
"""On a CPU: a few windows at a time need a fraction of it."""
START_PERIOD = 5
START_FAILURES = 720
"""An hour: a large model from slow storage. An engine that fails ends by itself long before."""

# Not urllib, which would ask a proxy of the user's environment.
_HEALTH = (
    f"import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', {ENGINE_PORT}, timeout=4);"
    " c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"
)


def engine_sidecar(
    job: QuantizeJob, *, image: str, model_path: str, amounts: Manifest, mounts: Sequence[Manifest]
) -> Manifest:
    """The native sidecar: the other container begins when it answers, and it ends with the pod.

    It has no LoRA, because prompt log-probabilities kill an engine that has (vLLM 0.32), and listens on the loopback:
    what it serves needs no key.
    """
    gpus = job.spec.compute.gpus_per_node
    return {
        "name": CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "command": _command(job, model_path),
        "env": overlay_env(_environment(gpus=gpus, limits=amounts["limits"]), job.spec.compute.pod_template),
        "resources": amounts,
        "securityContext": container_security(read_only_root=not gpus),  # nvidia-cdi-hook writes below /etc
        "startupProbe": {
            # Not httpGet: the kubelet would ask at the pod's address.
            "exec": {"command": ["python3", "-c", _HEALTH]},
            "periodSeconds": START_PERIOD,
            "timeoutSeconds": 30,
            "failureThreshold": START_FAILURES,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(mounts),
    }


def _command(job: QuantizeJob, model_path: str) -> list[str]:
    gpus = job.spec.compute.gpus_per_node
    flags = [
        f"--model={model_path}",
        f"--served-model-name={SERVED_NAME}",
        "--host=127.0.0.1",
        f"--port={ENGINE_PORT}",
        "--load-format=safetensors",  # pickled weights could carry code
        f"--max-model-len={WINDOW_TOKENS + 8}",
        "--max-num-seqs=8",
        "--enforce-eager",  # a graph or a compilation for each length of prompt takes longer than the prompts
        "--no-enable-prefix-caching",
    ]
    if gpus > 1:
        flags.append(f"--tensor-parallel-size={gpus}")
    if job.spec.source.trust_remote_code:
        flags.append("--trust-remote-code")
    return ["python3", "-m", "vllm.entrypoints.openai.api_server", *flags]


def _environment(*, gpus: int, limits: dict[str, str]) -> list[Manifest]:
    values = {
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of this container alone
        "USER": "largeforge",  # torch asks for the user's name, and 2000 has none in some images
        "VLLM_CACHE_ROOT": "/tmp/vllm",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "TORCH_COMPILE_DISABLE": "1",  # prompt log-probabilities set off minutes of it
        enginelogging.VARIABLE: enginelogging.PATH,
    }
    if not gpus:
        values |= {
            "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(max(1, int(quantity(limits["cpu"])))),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    return [{"name": name, "value": value} for name, value in values.items()]
