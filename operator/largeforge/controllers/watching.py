"""What an attempt's pod does at the moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import Reason
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.making import STORAGE_SECONDS, leftovers, pod_awaited
from largeforge.controllers.plan import Plan
from largeforge.controllers.podstate import Problem, is_over, is_running, lost_node, problem
from largeforge.controllers.situation import Situation
from largeforge.kube.cluster import Manifest
from largeforge.resources.runstorage import needed_claims

PODLESS = timedelta(seconds=30)
"""After so long without a pod, a Job's pod was refused: its controller makes one within a second."""


def watch_attempt(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest) -> Plan:
    """Say what is seen of the attempt; it has not ended."""
    observed, speaker = here.observed, here.speaker
    pods, again = pods_of(current, observed.pods), None
    held = next(filter(None, (lost_node(p) or problem(p) for p in pods)), None)
    if any(map(is_over, pods)):
        status = speaker.unchanged()  # the Job's controller is about to say how it ended
    elif held is None and any(map(is_running, pods)):
        status = speaker.runs(run, _without(job, run, current))
    elif observed.blocked is not None:
        status, again = speaker.lacks_storage(observed.blocked), STORAGE_SECONDS
    elif held is not None:
        status, again = speaker.held_up(_with_field(job, held)), STORAGE_SECONDS
    elif pods:
        status, again = speaker.waits(run, pod_awaited(run)), STORAGE_SECONDS
    else:
        again = (PODLESS - (here.now - made_at(current, here.now))).total_seconds()
        status = speaker.waits(run, pod_awaited(run)) if again > 0 else speaker.held_up(podless(current))
        again = again if again > 0 else STORAGE_SECONDS
    return Plan(delete=leftovers(observed, run), status=status, again_after=again)


def _without(job: FineTuneJob, run: RunRecord, batch: Manifest) -> str:
    """What preflight does without, and why."""
    volumes = batch["spec"]["template"]["spec"]["volumes"]
    there = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    missing = sorted(needed_claims(job, run).keys() - there) if run.stage == "Preflight" else []
    if not missing:
        return ""
    return (
        f", without PersistentVolumeClaim {', '.join(missing)}: it is not bound yet, and would be bound where perhaps"
        " no GPU is; name the nodes in spec.compute.podTemplate.nodeSelector to let preflight use it"
    )


def _with_field(job: FineTuneJob, held: Problem) -> Problem:
    """The problem with the field of the Secret that it names."""
    if held.reason != Reason.SECRET_MISSING:
        return held
    field = next((f for f, name in _secrets(job).items() if f"Secret {name!r}" in held.message), None)
    return held if field is None else Problem(held.reason, f"{field}: {held.message}")


def _secrets(job: FineTuneJob) -> Mapping[str, str]:
    """The fields that name a Secret, each with its name."""
    spec = job.spec
    named = {"spec.base.secretRef": spec.base.secret_ref}
    named |= {f"spec.datasets[{i}].secretRef": source.secret_ref for i, source in enumerate(spec.datasets)}
    named["spec.evalDataset.secretRef"] = spec.eval_dataset.secret_ref if spec.eval_dataset is not None else None
    named["spec.tracking.secretRef"] = spec.tracking.secret_ref if spec.tracking is not None else None
    found = {field: secret.name for field, secret in named.items() if secret is not None}
    for i, variable in enumerate(spec.compute.pod_template.env):
        if variable.value_from is not None:
            found[f"spec.compute.podTemplate.env[{i}].valueFrom.secretKeyRef"] = variable.value_from.secret_key_ref.name
    return found


def made_at(batch: Manifest, now: datetime) -> datetime:
    """When *batch* was made."""
    made = batch["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(made) if made else now


def podless(batch: Manifest) -> Problem:
    """What is said of a Job whose pod is not made."""
    name, namespace = batch["metadata"]["name"], batch["metadata"]["namespace"]
    return Problem(
        Reason.REFUSED,
        f"no pod was made for Job {name!r}, most likely because of a quota or a policy of the cluster; see kubectl"
        f" describe job -n {namespace} {name}",
    )
