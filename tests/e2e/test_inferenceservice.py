"""An engine as a user sees it: ready, measured, replaced under load, stopped; and why one does not come."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from openai import OpenAI

from dev import demo
from dev.cluster.programs import program
from dev.engineargs import LIST, PROGRAM
from dev.install import CLAIM, EXAMPLE, MODEL_FOLDER, api_key, base_url
from dev.kubectl import Manifest, apply, condition, environment, get, items, kubectl, wait_for, wait_true
from tests.e2e.ground import container
from tests.e2e.story import tell

pytestmark = pytest.mark.cluster

SERVICE = demo.SERVICE
AT_A_TIME = 20
MADE_UP = f"pvc://{CLAIM}/made-up"


@pytest.fixture(scope="module")
def service(namespace: str) -> Manifest:
    """The example's service, Ready; it is there already where the chain was tested before."""
    kubectl("apply", "-f", EXAMPLE / "inferenceservice.yaml", namespace=namespace)
    wait_true("inferenceservice", SERVICE, "Ready", namespace=namespace, seconds=300)
    wait_for(
        "the measured request",
        lambda: "warmup" in newest(namespace)["status"],
        seconds=60,
        show=lambda: tell(namespace),
    )
    return newest(namespace)


def newest(namespace: str, name: str = SERVICE) -> Manifest:
    return get("inferenceservice", name, namespace=namespace) or {}


def patch(namespace: str, spec: dict[str, Any], name: str = SERVICE) -> None:
    text = json.dumps({"spec": spec})
    kubectl("patch", "inferenceservice", name, "--type=merge", "--patch", text, namespace=namespace)


def engine_pods(namespace: str, name: str = SERVICE) -> list[Manifest]:
    return items("pods", namespace=namespace, selector=f"largeforge.ai/inferenceservice={name}")


def test_a_ready_service_says_what_it_serves_and_how_fast(service: Manifest, namespace: str):
    status = service["status"]
    assert status["model"]["architecture"] == "LlamaForCausalLM"
    assert status["model"]["parameters"] == 134_515_008
    assert status["model"]["maxModelLen"] == service["spec"]["engine"]["maxModelLen"]
    assert "requests of 2048 tokens at a time" in status["fit"]
    assert 0 < status["warmup"]["ttftMs"] < 30_000
    assert float(status["warmup"]["tokensPerSecond"]) > 0
    assert 0 < status["warmup"]["startSeconds"] < 300
    lines = kubectl("get", "infsvc", SERVICE, namespace=namespace).splitlines()
    assert lines[0].split() == ["NAME", "MODEL", "READY", "GPUS", "ADAPTERS", "URL", "AGE"]
    assert lines[1].split()[1:4] == [f"pvc://{CLAIM}/{MODEL_FOLDER}", "1/1", "0"]
    policy = get("networkpolicy", f"{SERVICE}-engine", namespace=namespace)
    assert policy is not None
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_the_flags_that_are_checked_are_those_of_the_engine(service: Manifest, namespace: str):
    pod = engine_pods(namespace)[0]["metadata"]["name"]
    command = ("exec", "-i", pod, "--", "env", "VLLM_LOGGING_LEVEL=ERROR", "python3", "-")
    found = kubectl(*command, stdin=PROGRAM.read_text(), namespace=namespace)
    assert found == LIST.read_text()
    del service


def test_a_roll_out_under_load_loses_no_request(service: Manifest, namespace: str):
    before = {pod["metadata"]["uid"] for pod in engine_pods(namespace)}
    with load(namespace) as (answered, press):
        patch(namespace, {"rollout": {"maxSurge": 1}, "engine": {"maxNumSeqs": 48}})
        wait_for(
            "the new pod",
            lambda: len(ready_pods(namespace) - before) == 1,
            seconds=400,
            show=lambda: tell(namespace),
        )
        press.set()
        wait_for(
            "the new pod alone",
            lambda: rolled_out(namespace, before),
            seconds=240,
            show=lambda: tell(namespace),
        )
        done = answered()
        wait_for("answers of the new pod", lambda: answered() > done + 20, seconds=60, show=lambda: tell(namespace))
    del service


def ready_pods(namespace: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in engine_pods(namespace) if condition(pod, "Ready").get("status") == "True"}


def rolled_out(namespace: str, before: set[str]) -> bool:
    pods = {pod["metadata"]["uid"] for pod in engine_pods(namespace)}
    found = newest(namespace)
    return len(pods) == 1 and not pods & before and condition(found, "Reconciling") == {} and ready(found)


def ready(found: Manifest) -> bool:
    said = condition(found, "Ready")
    return said["status"] == "True" and said["observedGeneration"] == found["metadata"]["generation"]


@contextmanager
def load(namespace: str) -> Iterator[tuple[Callable[[], int], threading.Event]]:
    """Requests through the router; none may fail. Gives the number of answers so far, and what makes it press.

    Until then each of `AT_A_TIME` clients asks once a second, so that the new engine gets to start beside them on two
    processors; from then on each has a request under way always.
    """
    over, press, answers = threading.Event(), threading.Event(), [0] * AT_A_TIME
    url, key = base_url(namespace), api_key(namespace)

    def ask(index: int) -> list[str]:
        failures = []
        with OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
            while not over.is_set():
                try:
                    answer = client.completions.create(model=SERVICE, prompt="One, two,", max_tokens=4, temperature=0)
                    assert answer.choices[0].finish_reason == "length"
                    answers[index] += 1
                except Exception as error:  # noqa: BLE001 - whatever a client sees is a lost request
                    failures.append(f"{time.strftime('%X')}: {error!r}"[:300])
                press.wait(1.0)
        return failures

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        threads = [pool.submit(ask, index) for index in range(AT_A_TIME)]
        try:
            yield lambda: sum(answers), press
        finally:
            over.set()
        lost = [failure for thread in threads for failure in thread.result()]
    assert lost == []
    assert sum(answers) > AT_A_TIME


def test_another_name_of_a_service_needs_no_other_pod(service: Manifest, namespace: str):
    before = [pod["metadata"]["uid"] for pod in engine_pods(namespace)]
    patch(namespace, {"servedModelNames": [SERVICE, "org/Base-135M"]})
    with OpenAI(base_url=base_url(namespace), api_key=api_key(namespace), max_retries=0, timeout=60) as client:
        wait_for(
            "the name at the router",
            lambda: "org/Base-135M" in {model.id for model in client.models.list()},
            seconds=30,
            show=lambda: tell(namespace),
        )
        answer = client.completions.create(model="org/Base-135M", prompt="One, two,", max_tokens=4)
    assert answer.choices[0].finish_reason == "length"
    assert [pod["metadata"]["uid"] for pod in engine_pods(namespace)] == before
    del service


def test_a_stopped_service_keeps_everything_but_its_pods(service: Manifest, namespace: str):
    secrets = kubectl("get", "secrets", "-o", "name", namespace=namespace)
    patch(namespace, {"stopped": True})
    wait_for(
        "no pod",
        lambda: condition(newest(namespace), "Ready").get("reason") == "Stopped" and not engine_pods(namespace),
        seconds=120,
        show=lambda: tell(namespace),
    )
    assert kubectl("get", "secrets", "-o", "name", namespace=namespace) == secrets
    cold = newest(namespace)["status"]["warmup"]
    patch(namespace, {"stopped": False})
    wait_true("inferenceservice", SERVICE, "Ready", namespace=namespace, seconds=240)
    wait_for(
        "another measured request",
        lambda: newest(namespace)["status"]["warmup"]["containerID"] != cold["containerID"],
        seconds=60,
        show=lambda: tell(namespace),
    )
    assert newest(namespace)["status"]["warmup"]["coldStartSeconds"] == cold["coldStartSeconds"]
    del service


@pytest.fixture(scope="module")
def wrong(namespace: str) -> Iterator[str]:
    """An InferenceService that cannot be; the tests change what is wrong with it."""
    apply(made_up(), namespace=namespace)
    wait_for(
        "the model of an architecture that nobody has",
        lambda: ((get("job", "made-up", namespace=namespace) or {}).get("status") or {}).get("succeeded") == 1,
        seconds=120,
        show=lambda: tell(namespace),
    )
    yield "wrong"
    kubectl("delete", "inferenceservice", "wrong", "--ignore-not-found", "--wait=false", namespace=namespace)
    kubectl("delete", "job", "made-up", "--wait=false", namespace=namespace)


def made_up() -> Manifest:
    """A Job that copies the base and names another architecture in its config.json."""
    script = (
        "import json, pathlib, shutil, sys; old, new = map(pathlib.Path, sys.argv[1:]);"
        "shutil.rmtree(new, ignore_errors=True); shutil.copytree(old, new); config = new / 'config.json';"
        "said = json.loads(config.read_text()) | {'architectures': ['MadeUpForCausalLM']};"
        "config.write_text(json.dumps(said))"
    )
    mount = {"name": "models", "mountPath": "/mnt/models"}
    arguments = [f"/mnt/models/{MODEL_FOLDER}", "/mnt/models/made-up"]
    copy = container("copy", image="trainer", command=["python", "-c", script, *arguments], mounts=[mount])
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 2000,
            "runAsGroup": 2000,
            "fsGroup": 2000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [copy],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "made-up"},
        "spec": {"backoffLimit": 2, "template": {"spec": spec}},
    }


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"model": {"uri": f"pvc://{CLAIM}/nothing-is-here"}}, "ArtifactNotFound", "nothing-is-here"),
        ({"model": {"uri": MADE_UP}}, "UnsupportedArchitecture", "MadeUpForCausalLM"),
        (
            {"model": {"uri": f"pvc://{CLAIM}/{MODEL_FOLDER}"}, "engine": {"extraArgs": {"hf-overrides": "{"}}},
            "BadArgument",
            "hf_overrides",
        ),
        (
            {"engine": {"extraArgs": {"max-num-seq": "8"}}},
            "BadArgument",
            "flags are written in full; it is the beginning of max-num-seqs",
        ),
    ],
    ids=["path", "architecture", "argument", "abbreviation"],
)
def test_what_cannot_be_served_says_why(wrong: str, namespace: str, spec: dict[str, Any], reason: str, words: str):
    resources = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}
    base = {"compute": {"gpusPerReplica": 0, "resources": resources}, "engine": {"maxModelLen": 512}}
    model = {"model": {"uri": f"pvc://{CLAIM}/{MODEL_FOLDER}"}}
    manifest = {"apiVersion": "largeforge.ai/v1alpha1", "kind": "InferenceService", "metadata": {"name": wrong}}
    apply(manifest | {"spec": {**base, **model, **spec}}, namespace=namespace)
    wait_for(
        f"{reason} of InferenceService {wrong}",
        lambda: condition(newest(namespace, wrong), "Stalled").get("reason") == reason,
        seconds=180,
        show=lambda: tell(namespace),
    )
    found = newest(namespace, wrong)
    assert words in condition(found, "Stalled")["message"]
    assert condition(found, "Ready")["status"] == "False"


def test_a_scale_of_the_object_scales_its_pods(service: Manifest, namespace: str):
    done = subprocess.run(
        [program("kubectl"), "--namespace", namespace, "scale", "infsvc", SERVICE, "--replicas=1", "-o", "json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["spec"]["replicas"] == 1
    scale = json.loads(kubectl("get", "infsvc", SERVICE, "--subresource=scale", "-o", "json", namespace=namespace))
    assert scale["status"]["selector"] == f"largeforge.ai/inferenceservice={SERVICE}"
    del service
