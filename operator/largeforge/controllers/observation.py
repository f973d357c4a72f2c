"""What a decision about a FineTuneJob is made of: everything is read here, nothing is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.meta import ObjectMeta
from largeforge.api.names import FINETUNEJOB_LABEL
from largeforge.controllers import runsources, storage
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.podstate import Problem, is_running
from largeforge.controllers.runsources import Sources
from largeforge.controllers.storagelook import Need, look_at_storage, node_of
from largeforge.kube.cluster import CONFIGMAPS, EXPERTS, JOBS, PODS, Cluster, Manifest
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
    if run is not None and goes_on and run.base is not None and not has_running_pod(jobs.get(run.job_name), pods):
        blocked, unbound = await _storage(cluster, job, run, pods)
    no_base = run is not None and goes_on and run.base is None
    removable = run is not None and (
        run.digest != run_digest(spec) or (not goes_on and spec.ttl_seconds_after_finished is not None)
    )
    return Observed(
        jobs=jobs,
        pods=pods,
        expert=await cluster.get(EXPERTS, namespace, spec.publish.expert.name) if spec.publish else None,
        blocked=blocked,
        unbound=unbound,
        sources=await runsources.look(cluster, spec.base, namespace) if no_base else Sources(),
        configs=await _configs(cluster, job, run) if run is not None and removable else (),
    )


def has_running_pod(batch: Manifest | None, pods: Sequence[Manifest]) -> bool:
    """Whether a pod of *batch* runs."""
    return batch is not None and any(map(is_running, pods_of(batch, pods)))


async def _configs(cluster: Cluster, job: FineTuneJob, run: RunRecord) -> list[Manifest]:
    name = job.metadata.name
    names = (preflight_config_name(name, run.number), run_config_name(name, run.number))
    return await own_config_maps(cluster, job.metadata, names)


async def own_config_maps(cluster: Cluster, owner: ObjectMeta, names: Iterable[str]) -> list[Manifest]:
    """The ConfigMaps of these *names* that *owner* controls."""
    found = [await cluster.get(CONFIGMAPS, owner.namespace, name) for name in names]
    return [each for each in found if each is not None and controller_uid(each) == owner.uid]


async def _storage(
    cluster: Cluster, job: FineTuneJob, run: RunRecord, pods: Sequence[Manifest]
) -> tuple[Problem | None, frozenset[str]]:
    need = Need(
        job.metadata.namespace,
        claims=needed_claims(job, run),
        keys=needed_config_maps(job),
        node=node_of(run.job_name, pods) or storage.pinned_node(job.spec.compute.pod_template.node_selector),
    )
    return await look_at_storage(cluster, need, pods)
