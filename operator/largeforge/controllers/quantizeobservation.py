"""What a decision about a QuantizeJob is made of: everything is read here, nothing is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import QUANTIZEJOB_LABEL
from largeforge.api.quantizedigest import run_digest
from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers import runsources, storage
from largeforge.controllers.observation import has_running_pod, own_config_maps
from largeforge.controllers.plan import read
from largeforge.controllers.podstate import Problem
from largeforge.controllers.quantizeleftovers import Named, leftovers
from largeforge.controllers.runsources import Sources
from largeforge.controllers.storagelook import Need, look_at_storage, node_of
from largeforge.kube.cluster import (
    EXPERTS,
    FINETUNEJOBS,
    INFERENCESERVICES,
    JOBS,
    PODS,
    QUANTIZEJOBS,
    Cluster,
    Manifest,
)
from largeforge.resources.names import quantize_config_name, quantize_step
from largeforge.resources.owner import controller_uid
from largeforge.resources.quantizestorage import needed_claims, needed_config_maps

MOST_METHODS = 4


@dataclass(frozen=True, slots=True)
class Observed:
    """What a decision is made of, beside the object."""

    jobs: Mapping[str, Manifest] = field(default_factory=dict)
    """Jobs that this object controls, by name."""
    pods: Sequence[Manifest] = ()
    """Pods with its label; whose they are is for `attempts.pods_of` to say."""
    expert: Manifest | None = None
    """What bears the name that is to be published."""
    service: InferenceService | None = None
    """The InferenceService that is to serve the result, where it is there already."""
    blocked: Problem | None = None
    """The first thing that the run needs and the cluster lacks; looked for only while no pod of it runs."""
    sources: Sources = field(default_factory=Sources)
    """What `spec.source` names; looked at only until the run has its source."""
    configs: Sequence[Manifest] = ()
    """The ConfigMaps of the recorded run; looked for only where they may have to go."""
    others: Named = field(default_factory=dict)
    """The objects that may name a folder of the run; looked for only while one may have to go."""


async def observe(cluster: Cluster, job: QuantizeJob) -> Observed:
    """Read all that `decide` needs."""
    namespace, run, spec = job.metadata.namespace, job.status.run, job.spec
    labels = {QUANTIZEJOB_LABEL: job.metadata.name}
    listed = await cluster.list(JOBS, namespace, labels=labels)
    jobs = {j["metadata"]["name"]: j for j in listed if controller_uid(j) == job.metadata.uid}
    goes_on = run is not None and run.outcome is None
    pods = await cluster.list(PODS, namespace, labels=labels) if jobs or goes_on else []
    blocked = None
    if run is not None and goes_on and run.base is not None and not has_running_pod(jobs.get(run.job_name), pods):
        need = Need(
            namespace,
            claims=needed_claims(job, run),
            keys=needed_config_maps(job, run),
            node=node_of(run.job_name, pods) or storage.pinned_node(spec.compute.pod_template.node_selector),
        )
        blocked, _ = await look_at_storage(cluster, need, pods)
    no_base = run is not None and goes_on and run.base is None
    return Observed(
        jobs=jobs,
        pods=pods,
        expert=await cluster.get(EXPERTS, namespace, spec.publish.expert.name) if spec.publish else None,
        service=await _service(cluster, job),
        blocked=blocked,
        sources=await runsources.look(cluster, spec.source, namespace) if no_base else Sources(),
        configs=await _configs(cluster, job),
        others=await _others(cluster, job) if leftovers(job) else {},
    )


async def _service(cluster: Cluster, job: QuantizeJob) -> InferenceService | None:
    publish = job.spec.publish
    if publish is None:
        return None
    name = publish.expert.inference_service_ref.name
    raw = await cluster.get(INFERENCESERVICES, job.metadata.namespace, name)
    found = None if raw is None else read(InferenceService, raw)
    return None if isinstance(found, ValidationError) else found


async def _others(cluster: Cluster, job: QuantizeJob) -> dict[str, list[Manifest]]:
    namespace, own = job.metadata.namespace, job.metadata.uid
    kinds = {
        "Expert": EXPERTS,
        "InferenceService": INFERENCESERVICES,
        "FineTuneJob": FINETUNEJOBS,
        "QuantizeJob": QUANTIZEJOBS,
    }
    found = {name: await cluster.list(kind, namespace) for name, kind in kinds.items()}
    return {name: [each for each in objects if each["metadata"].get("uid") != own] for name, objects in found.items()}


async def _configs(cluster: Cluster, job: QuantizeJob) -> list[Manifest]:
    run = job.status.run
    if run is None:
        return []
    ended = run.outcome is not None and job.spec.ttl_seconds_after_finished is not None
    if run.digest == run_digest(job.spec) and not ended:
        return []
    steps = [quantize_step("Preflight", None), quantize_step("Evaluate", None)]
    steps += [quantize_step(stage, i) for i in range(MOST_METHODS) for stage in ("Quantize", "Evaluate")]
    names = (quantize_config_name(job.metadata.name, run.number, step) for step in steps)
    return await own_config_maps(cluster, job.metadata, names)
