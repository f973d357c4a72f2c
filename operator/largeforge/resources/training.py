"""The training of a run: its ConfigMap, and the Job of one attempt."""

from __future__ import annotations

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.resources.attemptpod import Installation, secret_variable
from largeforge.resources.names import run_config_name
from largeforge.resources.pods import Manifest, overlay_spec, overlay_volumes
from largeforge.resources.progress import ProgressTarget, progress_data, progress_env, progress_volumes
from largeforge.resources.quantity import quantity
from largeforge.resources.runconfig import config_data, config_map, run_config
from largeforge.resources.runpod import Parts, run_job, training_resources
from largeforge.resources.runstorage import CACHE_PATH, run_volumes, uses_hub

GRACE_SECONDS = 120
"""From SIGTERM to SIGKILL: the end of a step and a checkpoint, for which the launcher gives its ranks 105 s."""
_TRACKER_SECRETS = {"WandB": "WANDB_API_KEY", "MLflow": "MLFLOW_TRACKING_TOKEN"}


def run_config_map(job: FineTuneJob, run: RunRecord, *, progress: ProgressTarget | None = None) -> Manifest:
    """The ConfigMap that the attempts of training mount, with the commits that preflight has found."""
    data = config_data(run_config(job, run, cached=run.cached)) | progress_data(progress)
    return config_map(job, run, name=run_config_name(job.metadata.name, run.number), stage="Training", data=data)


def training_job(
    job: FineTuneJob, run: RunRecord, *, installation: Installation, progress: ProgressTarget | None = None
) -> Manifest:
    """The Job of an attempt of training."""
    compute = job.spec.compute
    volumes, mounts = run_volumes(job, run, cache_read_only=run.cached)
    own_volumes, own_mounts = overlay_volumes(compute.pod_template)
    token_volumes, token_mounts = progress_volumes(progress)
    parts = Parts(
        command=["python", "-m", "largeforge.jobs.launch"],
        config_map=run_config_name(job.metadata.name, run.number),
        env=[*_environment(job, run), *_tracker_secret(job), *progress_env(progress)],
        resources=training_resources(job),
        volumes=[*volumes, *own_volumes, *token_volumes],
        mounts=[*mounts, *own_mounts, *token_mounts],
        placement=overlay_spec(compute.pod_template),
        # NCCL, gloo and data loaders share memory; what is used counts against the memory limit.
        shared_memory=compute.shared_memory or ("8Gi" if compute.gpus_per_node else "1Gi"),
        grace_seconds=GRACE_SECONDS,
        # The hook that makes GPUs visible in a container writes into its root.
        read_only_root=compute.gpus_per_node == 0,
    )
    return run_job(job, run, parts, installation=installation)


def _environment(job: FineTuneJob, run: RunRecord) -> list[Manifest]:
    """The settings of torchrun (each option has a PET_ variable), and whether the hub may be asked."""
    compute = job.spec.compute
    downloads = uses_hub(job, run) and not run.cached
    variables = {
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": str(compute.processes),
        "HF_HUB_OFFLINE": "0" if downloads else "1",
    }
    if downloads and job.spec.cache is not None:
        # Preflight could not have the claim: what is downloaded now lies there for the next attempt.
        variables["HF_HUB_CACHE"] = CACHE_PATH
    if compute.gpus_per_node == 0:
        cores = quantity(training_resources(job)["requests"]["cpu"])
        variables["OMP_NUM_THREADS"] = str(max(int(cores) // compute.processes, 1))
    return [{"name": name, "value": value} for name, value in variables.items()]


def _tracker_secret(job: FineTuneJob) -> list[Manifest]:
    tracking = job.spec.tracking
    if tracking is None or tracking.secret_ref is None:
        return []
    return [secret_variable(_TRACKER_SECRETS[tracking.report_to], tracking.secret_ref)]
