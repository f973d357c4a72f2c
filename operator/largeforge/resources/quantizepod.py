"""The Jobs of a QuantizeJob's run: preflight, a method, or the evaluation of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.common import SecretRef
from largeforge.api.names import API_VERSION, ATTEMPT_LABEL
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.api.run import CONFIG_DIR, TERMINATION_LOG
from largeforge.api.uri import HfUri, parse
from largeforge.resources import enginelogging
from largeforge.resources.attemptpod import (
    AttemptPod,
    Installation,
    attempt_job,
    common_env,
    pod_account,
    secret_variable,
)
from largeforge.resources.evaluationengine import engine_sidecar
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import (
    Manifest,
    container_security,
    overlay_env,
    overlay_spec,
    overlay_volumes,
    resources,
    scratch_volumes,
)
from largeforge.resources.progress import ProgressTarget, progress_env, progress_volumes
from largeforge.resources.quantity import quantity
from largeforge.resources.quantizeconfig import config_name, step_labels
from largeforge.resources.quantizestorage import (
    MODEL_PATH,
    all_rows,
    base_of,
    evaluate_mounts,
    preflight_mounts,
    quantize_mounts,
    source_path,
    uses_hub,
)
from largeforge.resources.runconfig import hub_token_variable
from largeforge.resources.runstorage import CACHE_PATH

CONTAINER = "quantizer"
"""Our own container in every stage: what `podFailurePolicy` and the reader of the termination message look for."""
GRACE_SECONDS = 30
"""There is nothing to save: what is not whole is written anew."""
_RUN = "run"
"""The volume of the step's ConfigMap."""
_PREFLIGHT_REQUESTS = {"cpu": "1", "memory": "4Gi"}
_EVALUATE_AMOUNTS = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
"""It sends token ids to the engine and adds up what comes back."""


@dataclass(frozen=True, slots=True)
class Images:
    """What the chart decides of a QuantizeJob's pods."""

    installation: Installation
    """Its image is the quantizer's."""
    autoawq: str
    engine: str
    engine_cpu: str


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a stage's pod has of its own."""

    module: str
    image: str
    env: Sequence[Manifest]
    amounts: Manifest
    volumes: Sequence[Manifest]
    mounts: Sequence[Manifest]
    sidecars: Sequence[Manifest] = ()
    shared_memory: str = "64Mi"
    read_only_root: bool = True
    runtime_class: bool = True


def step_job(
    job: QuantizeJob, run: QuantizeRunRecord, *, images: Images, progress: ProgressTarget | None = None
) -> Manifest:
    """The Job of the newest attempt of the run's current step."""
    if run.stage == "Preflight":
        return _job(job, run, _preflight(job, run, images), images)
    stage = _quantize(job, run, images) if run.stage == "Quantize" else _evaluate(job, run, images)
    return _job(job, run, stage, images, progress=progress)


def _preflight(job: QuantizeJob, run: QuantizeRunRecord, images: Images) -> _Stage:
    """At most what quantizing gets, so that what helps against a lack of memory there helps here too; never a GPU."""
    volumes, mounts = preflight_mounts(job, run)
    whole = _amounts(job, gpus=False)
    least = {name: min(whole["requests"][name], least, key=quantity) for name, least in _PREFLIGHT_REQUESTS.items()}
    hub = uses_hub(job, run)
    env = [{"name": "HF_HUB_OFFLINE", "value": "0" if hub else "1"}]
    if hub and job.spec.cache is not None:
        env.append({"name": "HF_HUB_CACHE", "value": CACHE_PATH})
    return _Stage(
        module="largeforge.jobs.quantize",
        image=_checking_image(job, images),
        env=[*env, *_hub_tokens(job, run)],
        amounts={"requests": least, "limits": {name: whole["limits"][name] for name in least}},
        volumes=volumes,
        mounts=mounts,
        runtime_class=False,  # it needs no device of a node, so no runtime that hands them in
    )


def _quantize(job: QuantizeJob, run: QuantizeRunRecord, images: Images) -> _Stage:
    volumes, mounts = quantize_mounts(job, run)
    gpus = job.spec.compute.gpus_per_node
    amounts = _amounts(job)
    env = {"HF_HUB_OFFLINE": "1"}
    if not gpus:
        env["OMP_NUM_THREADS"] = str(max(int(quantity(amounts["limits"]["cpu"])), 1))
    own = images.autoawq if job.spec.engine == "AutoAWQ" else images.installation.image
    return _Stage(
        module="largeforge.jobs.quantize",
        image=job.spec.image or own,
        env=[{"name": name, "value": value} for name, value in env.items()],
        amounts=amounts,
        volumes=volumes,
        mounts=mounts,
        shared_memory=_shared_memory(job),
        read_only_root=not gpus,  # nvidia-cdi-hook writes below /etc
    )


def _evaluate(job: QuantizeJob, run: QuantizeRunRecord, images: Images) -> _Stage:
    volumes, engine_mounts, mounts = evaluate_mounts(job, run)
    shared, shared_mounts = scratch_volumes(shared_memory=_shared_memory(job))
    renames = {volume["name"]: f"engine-{volume['name']}" for volume in shared}
    sidecar = engine_sidecar(
        job,
        image=images.engine if job.spec.compute.gpus_per_node else images.engine_cpu,
        model_path=source_path(job, MODEL_PATH) if run.method is None else MODEL_PATH,
        amounts=_amounts(job),
        mounts=[
            *engine_mounts,
            {"name": _RUN, "mountPath": enginelogging.PATH, "subPath": enginelogging.FILE, "readOnly": True},
            *(mount | {"name": renames[mount["name"]]} for mount in shared_mounts),
        ],
    )
    return _Stage(
        module="largeforge.jobs.evaluate",
        image=_checking_image(job, images),
        env=[{"name": "HF_HUB_OFFLINE", "value": "1"}],
        amounts=_EVALUATE_AMOUNTS,
        volumes=[*volumes, *(volume | {"name": renames[volume["name"]]} for volume in shared)],
        mounts=mounts,
        sidecars=[sidecar | {"imagePullPolicy": images.installation.pull_policy}],
    )


def _job(
    job: QuantizeJob,
    run: QuantizeRunRecord,
    stage: _Stage,
    images: Images,
    *,
    progress: ProgressTarget | None = None,
) -> Manifest:
    spec, template = job.spec, job.spec.compute.pod_template
    scratch, scratch_mounts = scratch_volumes(shared_memory=stage.shared_memory)
    own_volumes, own_mounts = overlay_volumes(template)
    token_volumes, token_mounts = progress_volumes(progress)
    container: Manifest = {
        "name": CONTAINER,
        "image": stage.image,
        "imagePullPolicy": images.installation.pull_policy,
        "command": ["python", "-m", stage.module],
        "env": overlay_env([*stage.env, *common_env(images.installation), *progress_env(progress)], template),
        "resources": stage.amounts,
        "securityContext": container_security(read_only_root=stage.read_only_root),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            *stage.mounts,
            *own_mounts,
            *token_mounts,
            {"name": _RUN, "mountPath": CONFIG_DIR, "readOnly": True},
            *scratch_mounts,
        ],
    }
    metadata = {
        "name": run.job_name,
        "namespace": job.metadata.namespace,
        "labels": step_labels(job, run) | {ATTEMPT_LABEL: str(run.attempt)},
        "ownerReferences": [owner_reference(API_VERSION, "QuantizeJob", job.metadata)],
    }
    config = {"name": _RUN, "configMap": {"name": config_name(job, run)}}
    placement = overlay_spec(template)
    return attempt_job(
        metadata,
        AttemptPod(
            containers=[container],
            volumes=[*stage.volumes, *own_volumes, *token_volumes, config, *scratch],
            template=template,
            account=pod_account(spec.service_account_name, spec.image_pull_secrets),
            placement={k: v for k, v in placement.items() if stage.runtime_class or k != "runtimeClassName"},
            grace_seconds=GRACE_SECONDS,
            sidecars=stage.sidecars,
        ),
    )


def _amounts(job: QuantizeJob, *, gpus: bool = True) -> Manifest:
    """The user's, else what a small model needs: two cores and 6 GiB, an engine's least, and more with GPUs."""
    compute = job.spec.compute
    number = compute.gpus_per_node
    cores, gibibytes = (4 * number, 16 * number) if number else (2, 6)
    return resources(
        compute.resources,
        defaults={"cpu": str(cores), "memory": f"{gibibytes}Gi"},
        gpus=number if gpus else 0,
        gpu_resource=compute.gpu_resource,
    )


def _checking_image(job: QuantizeJob, images: Images) -> str:
    """The image of preflight and evaluation: a user's own one only where it is llm-compressor's too."""
    return (job.spec.image if job.spec.engine == "LLMCompressor" else None) or images.installation.image


def _shared_memory(job: QuantizeJob) -> str:
    compute = job.spec.compute
    return compute.shared_memory or ("8Gi" if compute.gpus_per_node else "1Gi")


def _hub_tokens(job: QuantizeJob, run: QuantizeRunRecord) -> list[Manifest]:
    """The variables with the hub's tokens; the kubelet takes them from the user's Secrets."""
    base = base_of(run)
    named: list[tuple[str, str, SecretRef | None]] = [
        ("base", base.uri, job.spec.source.secret_ref or base.secret_ref),
        *((rows.key, rows.source.uri, rows.source.secret_ref) for rows in all_rows(job)),
    ]
    return [
        secret_variable(hub_token_variable(key), secret)
        for key, uri, secret in named
        if secret is not None and isinstance(parse(uri), HfUri)
    ]
