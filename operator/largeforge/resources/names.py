"""The names of the objects that we make: deterministic, and never cut, since ours have at most 40 characters."""

from __future__ import annotations

import re

from largeforge.api.keys import digest8


def training_job_name(job: str, run: int, attempt: int) -> str:
    """A Job's template is immutable, so each attempt of a run is a Job of its own."""
    return f"{job}-r{run}-a{attempt}"


def preflight_job_name(job: str, run: int, attempt: int) -> str:
    """The same for the attempts of the run's preflight."""
    return f"{job}-r{run}-p{attempt}"


def run_config_name(job: str, run: int) -> str:
    """The ConfigMap with the run's RunConfig, shared by its attempts."""
    return f"{job}-r{run}-config"


def preflight_config_name(job: str, run: int) -> str:
    """The same for preflight. Another object, because a kubelet may hand out a ConfigMap as it was a moment ago."""
    return f"{job}-r{run}-preflight"


def errand_name(parent: str, purpose: str, request: str) -> str:
    """The Job that asks *request* (a digest) for *parent*: asking again finds it, asking something else is another."""
    return f"{parent}-{purpose}-{request[:8]}"


def quantize_step(stage: str, method: int | None) -> str:
    """A step of a QuantizeJob's run: `p`, `e0` (the source), then `m1`, `e1` and so on for the methods in order."""
    number = 0 if method is None else method + 1
    return {"Preflight": "p", "Quantize": f"m{number}", "Evaluate": f"e{number}"}[stage]


def quantize_job_name(job: str, run: int, step: str, attempt: int) -> str:
    """The Job of an attempt of a step; `q`, since a FineTuneJob of the same name may be there too."""
    return f"{job}-q{run}-{step}-a{attempt}"


def quantize_config_name(job: str, run: int, step: str) -> str:
    """The ConfigMap of a step, shared by its attempts."""
    return f"{job}-q{run}-{step}"


def engine_name(service: str) -> str:
    """The Deployment and the Service of an InferenceService."""
    return f"{service}-engine"


def engine_key_secret_name(service: str, key: str) -> str:
    """The Secret with an engine's API key; its name changes with the key, so it is only ever created."""
    return f"{service}-engine-{digest8(key)}"


def adapter_name(expert: str, digest: str) -> str:
    """The name under which an engine knows an expert's adapter."""
    return f"{expert}-{digest[:8]}"


def adapter_owner(name: str) -> str | None:
    """The Expert whose adapter an engine knows as *name*, or None where *name* is no adapter of ours."""
    found = re.fullmatch(r"(.+)-[0-9a-f]{8}", name)
    return found and found[1]
