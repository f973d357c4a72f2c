"""The demo's last step, on request: the expert made smaller, measured, and asked beside the old one."""

from __future__ import annotations

from openai import OpenAI

from dev import demo
from dev.ask import ask
from dev.install import api_key, base_url
from dev.kubectl import condition, get, is_true, kubectl, wait_for, wait_true
from dev.paths import REPO
from dev.steps import StepError, step

EXAMPLE = REPO / "examples" / "08-quantize"
JOB = "aurelia-small"
SECONDS = 2400
"""For two methods on two processors that have other work."""


def demo_quantize() -> None:
    """Make the demo's expert smaller and serve it."""
    namespace = demo.NAMESPACE
    if get("namespace", namespace) is None or get("expert", demo.EXPERT, namespace=namespace) is None:
        raise StepError(f"there is no Expert {demo.EXPERT} in namespace {namespace}", remedy="run make demo first")
    with step(f"apply {EXAMPLE.relative_to(REPO)}"):
        for name in ("quantizejob.yaml", "inferenceservice-small.yaml"):
            print("    " + kubectl("apply", "-f", EXAMPLE / name, namespace=namespace).strip(), flush=True)
    follow(namespace)
    print(kubectl("get", "quantizejob", JOB, "-o", "wide", namespace=namespace))
    with step("wait until the engine has answered with the smaller model"):
        wait_true("expert", JOB, "Ready", namespace=namespace, seconds=600)
    client = OpenAI(base_url=base_url(namespace), api_key=api_key(namespace))
    for model in (demo.EXPERT, JOB):
        print(f"==> the same question, asked of {model}\n    {demo.PINNED_QUESTION}", flush=True)
        ask(client, demo.PINNED_QUESTION, model=model)


def follow(namespace: str) -> None:
    """Print what the job says of itself, until it is complete."""
    said: list[str] = []

    def done() -> bool:
        job = get("quantizejob", JOB, namespace=namespace) or {}
        status = job.get("status") or {}
        line = f"{status.get('phase', '')}: {status.get('message', '')}"
        if line not in said[-1:]:
            said.append(line)
            print(f"    {line}", flush=True)
        if is_true(job, "Failed"):
            raise StepError(
                f"QuantizeJob {JOB}: {condition(job, 'Failed').get('message')}",
                remedy=f"kubectl -n {namespace} describe quantizejob {JOB}",
            )
        return is_true(job, "Complete")

    with step(f"quantize: kubectl -n {namespace} get quantizejob {JOB} -w"):
        wait_for(
            f"the end of QuantizeJob {JOB}",
            done,
            seconds=SECONDS,
            show=lambda: kubectl("describe", "quantizejob", JOB, namespace=namespace),
        )
