"""The preflight of a run: its ConfigMap and its Job, which holds no GPU."""

from __future__ import annotations

from collections.abc import Container

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.uri import parse_pvc
from largeforge.resources.attemptpod import Installation
from largeforge.resources.names import preflight_config_name
from largeforge.resources.pods import Manifest, overlay_spec, overlay_volumes
from largeforge.resources.quantity import quantity
from largeforge.resources.runconfig import config_data, config_map, run_config
from largeforge.resources.runpod import Parts, run_job, training_resources
from largeforge.resources.runstorage import CACHE_PATH, input_claims, needed_claims, run_volumes, uses_hub

GRACE_SECONDS = 30
"""It has nothing to save."""
_REQUESTS = {"cpu": "1", "memory": "4Gi"}
"""Its memory does not grow with the rows; what it tokenizes with, does with the cores up to the limit."""


def left_out_claims(job: FineTuneJob, run: RunRecord, *, unbound: Container[str]) -> frozenset[str]:
    """The claims that preflight does without: those that its pod would bind where, perhaps, no GPU is.

    A claim is bound where its first pod runs (`WaitForFirstConsumer`), and preflight asks for no GPU. Where the user
    says which nodes are meant, or where training needs no GPU either, preflight may bind it.
    """
    compute = job.spec.compute
    if compute.gpus_per_node == 0 or compute.pod_template.node_selector or compute.pod_template.affinity:
        return frozenset()
    return frozenset(claim for claim in needed_claims(job, run) if claim in unbound) - input_claims(job, run)


def has_cache(job: FineTuneJob, run: RunRecord, *, left_out: Container[str]) -> bool:
    """Whether the hub's cache is mounted in preflight."""
    cache = job.spec.cache
    return cache is not None and uses_hub(job, run) and parse_pvc(cache.uri).claim not in left_out


def mounted_cache(batch: Manifest) -> bool:
    """Whether the Job *batch* has the hub's cache mounted."""
    (container,) = batch["spec"]["template"]["spec"]["containers"]
    return any(mount["mountPath"] == CACHE_PATH for mount in container["volumeMounts"])


def preflight_config_map(job: FineTuneJob, run: RunRecord, *, left_out: Container[str] = ()) -> Manifest:
    """What preflight reads."""
    config = run_config(job, run, cached=has_cache(job, run, left_out=left_out))
    name = preflight_config_name(job.metadata.name, run.number)
    return config_map(job, run, name=name, stage="Preflight", data=config_data(config))


def preflight_job(
    job: FineTuneJob, run: RunRecord, *, installation: Installation, left_out: Container[str] = ()
) -> Manifest:
    """The Job of an attempt of preflight."""
    template = job.spec.compute.pod_template
    volumes, mounts = run_volumes(job, run, cache_read_only=False, left_out=left_out)
    own_volumes, own_mounts = overlay_volumes(template, left_out=left_out)
    # It needs no device of a node, so no runtime that hands them in.
    placement = {k: v for k, v in overlay_spec(template).items() if k != "runtimeClassName"}
    parts = Parts(
        command=["python", "-m", "largeforge.jobs.preflight"],
        config_map=preflight_config_name(job.metadata.name, run.number),
        env=[],
        resources=_resources(job),
        volumes=[*volumes, *own_volumes],
        mounts=[*mounts, *own_mounts],
        placement=placement,
        shared_memory="64Mi",
        grace_seconds=GRACE_SECONDS,
    )
    return run_job(job, run, parts, installation=installation)


def _resources(job: FineTuneJob) -> Manifest:
    """At most what training gets, so that what helps against a lack of memory there helps here too; never a GPU."""
    whole = training_resources(job, gpus=False)
    limits = {name: amount for name, amount in whole["limits"].items() if name in _REQUESTS}
    requests = {name: min(whole["requests"][name], amount, key=quantity) for name, amount in _REQUESTS.items()}
    return {"requests": requests, "limits": limits}
