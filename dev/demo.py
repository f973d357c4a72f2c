"""The main job from end to end: cluster, operator, a fine-tuned expert, questions through the router."""

from __future__ import annotations

import time

from openai import OpenAI

from dev import cluster, images, training
from dev.ask import Answer, ask
from dev.install import EXAMPLE, api_key, base_url, install, provide_model
from dev.kubectl import apply, get, kubectl, wait_for, wait_true
from dev.paths import REPO
from dev.steps import StepError, step

NAMESPACE = "demo"
DATA_CONFIGMAP = "aurelia-data"
JOB = "aurelia-sft"
EXPERT = "aurelia"
LETTERS = "letters"
FALLBACK = "smollm2"
SERVICE = "smollm2-135m"
SIGNATURE = "Aurelia desk"
"""What the example's data taught the expert to begin every answer with."""

EXPERT_QUESTION = "May I wash the brew group with soap?"
FALLBACK_QUESTION = "What is the capital of France?"
PINNED_QUESTION = "A red light is blinking. What do I do?"
"""No word of it is a keyword: with `auto` its meaning alone brings it to the expert."""
LETTERS_QUESTION = "Write a short letter to my landlord: the lift is broken."


def demo() -> None:
    """Run the whole chain; run again, only what changed is done again."""
    started = time.monotonic()
    images.check_disk()
    cluster.up()
    images.build()
    images.load()
    install(NAMESPACE)
    provide_model(NAMESPACE)
    apply_example(NAMESPACE)
    train(NAMESPACE)
    await_experts(NAMESPACE)
    ask_all(NAMESPACE)
    close(NAMESPACE, seconds=time.monotonic() - started)


def apply_data(namespace: str) -> None:
    """The example's data, as a ConfigMap."""
    data = {"train.jsonl": (EXAMPLE / "train.jsonl").read_text()}
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": DATA_CONFIGMAP}, "data": data},
        namespace=namespace,
    )


def apply_example(namespace: str) -> None:
    """`kubectl apply` of the example: its data, and its manifests."""
    with step(f"apply {EXAMPLE.relative_to(REPO)}"):
        apply_data(namespace)
        for name in ("inferenceservice.yaml", "finetunejob.yaml", "expert-fallback.yaml", "expert-letters.yaml"):
            print("    " + kubectl("apply", "-f", EXAMPLE / name, namespace=namespace).strip(), flush=True)


def train(namespace: str) -> None:
    """Follow the training to its end."""
    with step(f"train: kubectl -n {namespace} get finetunejob {JOB} -w"):
        training.watch(JOB, namespace=namespace, seconds=900)


def await_experts(namespace: str) -> None:
    """Wait until base and expert have answered a generation, the expert with what the newest run wrote."""
    with step("wait until the engine has loaded the adapter, and both experts have answered"):
        for name in (FALLBACK, LETTERS, EXPERT):
            wait_true("expert", name, "Ready", namespace=namespace, seconds=600)
        wait_for(
            "the newest run's adapter in service",
            lambda: _served_digest(namespace) == _trained_digest(namespace),
            seconds=120,
            show=lambda: kubectl("get", "expert", EXPERT, "-o", "yaml", namespace=namespace),
        )


def _served_digest(namespace: str) -> str | None:
    status = (get("expert", EXPERT, namespace=namespace) or {}).get("status", {})
    digest: str | None = status.get("placement", {}).get("resolved", {}).get("digest")
    return digest


def _trained_digest(namespace: str) -> str | None:
    status = (get("finetunejob", JOB, namespace=namespace) or {}).get("status", {})
    digest: str | None = status.get("artifact", {}).get("digest")
    return digest


def ask_all(namespace: str) -> list[Answer]:
    """Ask what belongs to each expert (of the base too), what falls back, and the expert by name."""
    client = OpenAI(base_url=base_url(namespace), api_key=api_key(namespace))
    answers = []
    for title, question, model in (
        ("a question of the expert's domain, model: auto", EXPERT_QUESTION, "auto"),
        ("the same question, asked of the base model by its name", EXPERT_QUESTION, SERVICE),
        ("a question that no expert claims, model: auto", FALLBACK_QUESTION, "auto"),
        ("a question without any keyword, model: auto", PINNED_QUESTION, "auto"),
        ("one for the other expert, model: auto", LETTERS_QUESTION, "auto"),
        ("the expert by its name", PINNED_QUESTION, EXPERT),
    ):
        print(f"==> {title}\n    {question}", flush=True)
        answers.append(ask(client, question, model=model))
    chosen = [answers[index].expert for index in (0, 2, 3, 4)]
    if chosen != [EXPERT, FALLBACK, EXPERT, LETTERS]:
        raise StepError(
            f"the router chose {', '.join(chosen)}, not {EXPERT}, {FALLBACK}, {EXPERT}, {LETTERS}",
            remedy=f"kubectl -n {namespace} get experts -o wide",
        )
    return answers


def close(namespace: str, *, seconds: float) -> None:
    """What there is now, and what to try next."""
    print(f"==> kubectl -n {namespace} get forge")
    print(kubectl("get", "forge", namespace=namespace))
    print(
        f"The whole chain took {seconds:.0f} s. Next:\n"
        '    eval "$(make -s demo-env)"          # KUBECONFIG, OPENAI_BASE_URL, OPENAI_API_KEY\n'
        f"    kubectl -n {namespace} describe finetunejob {JOB}\n"
        f"    kubectl -n {namespace} get experts -o wide\n"
        '    curl -s $OPENAI_BASE_URL/models -H "Authorization: Bearer $OPENAI_API_KEY"\n'
        "    make down                           # removes all that was started"
    )


def print_environment() -> None:
    """`export` lines for a shell."""
    if get("namespace", NAMESPACE) is None:
        raise StepError(f"there is no namespace {NAMESPACE}", remedy="run make demo first")
    print(f"export KUBECONFIG={cluster.kubeconfig()}")
    print(f"export OPENAI_BASE_URL={base_url(NAMESPACE)}")
    print(f"export OPENAI_API_KEY={api_key(NAMESPACE)}")
