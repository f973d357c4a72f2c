"""What a decision about a FineTuneJob is made of: everything is read here, nothing is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import FINETUNEJOB_LABEL, Reason
from largeforge.controllers import runsources, storage
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.podstate import Problem, is_running
from largeforge.controllers.runsources import Sources
from largeforge.kube.cluster import CONFIGMAPS, EXPERTS, JOBS, PERSISTENTVOLUMECLAIMS, PODS, Cluster, Manifest
from largeforge.resources.names import preflight_config_name, run_config_name
from largeforge.resources.owner import controller_uid
from largeforge.resources.runstorage import needed_claims, needed_config_maps


@dataclass(frozen=True, slots=True)
class Observed:
    """What a decision is made of, beside the object."""

    jobs: Mapping[str, Manifest] = field(default_factory=dict)
    """Jobs that this object controls, by name."""
    pods: Sequence[Manifest] = ()
    """Pods with its label; whose they are is for `attempts.pods_of` to say."""
    expert: Manifest | None = None
    """What bears the name that is to be published."""
    blocked: Problem | None = None
    """The first thing that the run needs and the cluster lacks; looked for only while no pod of it runs."""
    unbound: frozenset[str] = frozenset()
    """The claims of the run that no volume is bound to yet; looked at together with `blocked`."""
    sources: Sources = field(default_factory=Sources)
    """What `spec.base` names; looked at only until the run has its base."""
    configs: Sequence[Manifest] = ()
    """The ConfigMaps of the recorded run; looked for only where they may have to go."""


async def observe(cluster: Cluster, job: FineTuneJob) -> Observed:
    """Read all that `decide` needs."""
    namespace, name, run, spec = job.metadata.namespace, job.metadata.name, job.status.run, job.spec
    labels = {FINETUNEJOB_LABEL: name}
    listed = await cluster.list(JOBS, namespace, labels=labels)
    jobs = {j["metadata"]["name"]: j for j in listed if controller_uid(j) == job.metadata.uid}
    goes_on = run is not None and run.outcome is None
    pods = await cluster.list(PODS, namespace, labels=labels) if jobs or goes_on else []
    blocked, unbound = None, frozenset[str]()
    if run is not None and goes_on and run.base is not None and not _runs(jobs.get(run.job_name), pods):
        blocked, unbound = await _storage(cluster, job, run, pods)
    removable = run is not None and (
        run.digest != run_digest(spec) or (not goes_on and spec.ttl_seconds_after_finished is not None)
    )
    return Observed(
        jobs=jobs,
        pods=pods,
        expert=await cluster.get(EXPERTS, namespace, spec.publish.expert.name) if spec.publish else None,
        blocked=blocked,
        unbound=unbound,
        sources=await runsources.look(cluster, job) if run is not None and goes_on and run.base is None else Sources(),
        configs=await _configs(cluster, job, run) if run is not None and removable else (),
    )


def _runs(batch: Manifest | None, pods: Sequence[Manifest]) -> bool:
    return batch is not None and any(map(is_running, pods_of(batch, pods)))


async def _configs(cluster: Cluster, job: FineTuneJob, run: RunRecord) -> list[Manifest]:
    name = job.metadata.name
    found = [
        await cluster.get(CONFIGMAPS, job.metadata.namespace, each)
        for each in (preflight_config_name(name, run.number), run_config_name(name, run.number))
    ]
    return [each for each in found if each is not None and controller_uid(each) == job.metadata.uid]


async def _storage(
    cluster: Cluster, job: FineTuneJob, run: RunRecord, pods: Sequence[Manifest]
) -> tuple[Problem | None, frozenset[str]]:
    namespace = job.metadata.namespace
    claims = [
        storage.Claim(name, where, await cluster.get(PERSISTENTVOLUMECLAIMS, namespace, name))
        for name, where in needed_claims(job, run).items()
    ]
    unbound = frozenset(claim.name for claim in claims if claim.phase == "Pending")
    for claim in claims:
        if (problem := storage.absent(claim, namespace)) is not None:
            return problem, unbound
    if any(claim.is_single for claim in claims):
        ours = {pod["metadata"]["uid"] for pod in pods}
        others = [p for p in await cluster.list(PODS, namespace) if p["metadata"]["uid"] not in ours]
        problem = storage.taken(claims, others, node=_node(job, run, pods))
        if problem is not None:
            return problem, unbound
    return await _missing_rows(cluster, job), unbound


def _node(job: FineTuneJob, run: RunRecord, pods: Sequence[Manifest]) -> str | None:
    """Where the attempt's pod is, or has to be."""
    for pod in pods:
        if pod["metadata"]["name"].startswith(f"{run.job_name}-") and "nodeName" in pod.get("spec", {}):
            return str(pod["spec"]["nodeName"])
    return storage.pinned_node(job.spec.compute.pod_template.node_selector)


async def _missing_rows(cluster: Cluster, job: FineTuneJob) -> Problem | None:
    namespace = job.metadata.namespace
    for uri, where in needed_config_maps(job):
        found = await cluster.get(CONFIGMAPS, namespace, uri.name)
        if found is None:
            return Problem(
                Reason.DATASET_MISSING,
                f"{where}: no ConfigMap {uri.name!r} in namespace {namespace!r}; create it to start the run",
            )
        if uri.key not in {**found.get("data", {}), **found.get("binaryData", {})}:
            return Problem(
                Reason.DATASET_MISSING, f"{where}: ConfigMap {uri.name!r} has no key {uri.key!r}; add it, or correct it"
            )
    return None
