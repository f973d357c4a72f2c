"""The Job of an attempt, whatever its stage: one restricted pod that tries once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.common import SecretRef
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import API_VERSION, ATTEMPT_LABEL
from largeforge.api.run import CONFIG_DIR, TERMINATION_LOG
from largeforge.api.uri import HfUri, parse
from largeforge.resources.attemptpod import (
    AttemptPod,
    Installation,
    attempt_job,
    common_env,
    pod_account,
    secret_variable,
)
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import Manifest, container_security, overlay_env, resources, scratch_volumes
from largeforge.resources.runconfig import hub_token_variable, run_labels
from largeforge.resources.runstorage import base_of, row_sources

CONTAINER = "trainer"
"""In both stages: it is what `podFailurePolicy` and the reader of the termination message look for."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a stage's pod has of its own."""

    command: Sequence[str]
    config_map: str
    env: Sequence[Manifest]
    resources: Manifest
    volumes: Sequence[Manifest]
    mounts: Sequence[Manifest]
    placement: Manifest
    shared_memory: str
    grace_seconds: int
    read_only_root: bool = True


def run_job(job: FineTuneJob, run: RunRecord, parts: Parts, *, installation: Installation) -> Manifest:
    """The Indexed Job of the run's newest attempt. It tries once: the next attempt is another Job.

    Nothing of it is suspended: a suspended run has no Job.
    """
    spec, template = job.spec, job.spec.compute.pod_template
    labels = run_labels(job, run, stage=run.stage) | {ATTEMPT_LABEL: str(run.attempt)}
    scratch, scratch_mounts = scratch_volumes(shared_memory=parts.shared_memory)
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image or installation.image,
        "imagePullPolicy": installation.pull_policy,
        "command": list(parts.command),
        "env": overlay_env([*parts.env, *common_env(installation), *hub_tokens(job, run)], template),
        "resources": parts.resources,
        "securityContext": container_security(read_only_root=parts.read_only_root),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            *parts.mounts,
            {"name": "run", "mountPath": CONFIG_DIR, "readOnly": True},
            *scratch_mounts,
        ],
    }
    metadata = {
        "name": run.job_name,
        "namespace": job.metadata.namespace,
        "labels": labels,
        "ownerReferences": [owner_reference(API_VERSION, "FineTuneJob", job.metadata)],
    }
    return attempt_job(
        metadata,
        AttemptPod(
            containers=[container],
            volumes=[*parts.volumes, {"name": "run", "configMap": {"name": parts.config_map}}, *scratch],
            template=template,
            account=pod_account(spec.service_account_name, spec.image_pull_secrets),
            placement=parts.placement,
            grace_seconds=parts.grace_seconds,
        ),
    )


def training_resources(job: FineTuneJob, *, gpus: bool = True) -> Manifest:
    """The user's, else what a small model needs: a core and 4 GiB for each rank, four times that beside a GPU."""
    compute, ranks = job.spec.compute, job.spec.compute.processes
    cores, gibibytes = (4 * ranks, 16 * ranks) if compute.gpus_per_node else (ranks, 4 * ranks)
    return resources(
        compute.resources,
        defaults={"cpu": str(cores), "memory": f"{gibibytes}Gi"},
        gpus=compute.gpus_per_node if gpus else 0,
        gpu_resource=compute.gpu_resource,
    )


def hub_tokens(job: FineTuneJob, run: RunRecord) -> list[Manifest]:
    """The variables with the hub's tokens; the kubelet takes them from the user's Secrets."""
    base = base_of(run)
    named: list[tuple[str, str, SecretRef | None]] = [
        ("base", base.uri, job.spec.base.secret_ref or base.secret_ref),
        *((rows.key, rows.source.uri, rows.source.secret_ref) for rows in row_sources(job)),
    ]
    return [
        secret_variable(hub_token_variable(key), secret)
        for key, uri, secret in named
        if secret is not None and isinstance(parse(uri), HfUri)
    ]
