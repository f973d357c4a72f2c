"""What an attempt's pod of a QuantizeJob does at the moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from largeforge.api.names import Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.controllers.attempts import pods_of
from largeforge.controllers.making import STORAGE_SECONDS
from largeforge.controllers.plan import Plan
from largeforge.controllers.podstate import Problem, is_over, is_running, lost_node, problem
from largeforge.controllers.quantizephases import doing_of
from largeforge.controllers.quantizesituation import Situation
from largeforge.controllers.watching import PODLESS, made_at, podless
from largeforge.kube.cluster import Manifest
from largeforge.resources.quantizestorage import all_rows


def watch_attempt(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, current: Manifest) -> Plan:
    """Say what is seen of the attempt; it has not ended."""
    observed, speaker = here.observed, here.speaker
    pods, again = pods_of(current, observed.pods), None
    awaited = f"attempt {run.attempt} waits for its pod: it {doing_of(job, run)}"
    held = next(filter(None, (lost_node(p) or problem(p) for p in pods)), None)
    if any(map(is_over, pods)):
        status = speaker.unchanged()  # the Job's controller is about to say how it ended
    elif held is None and any(map(is_running, pods)):
        status = speaker.runs(run)
    elif observed.blocked is not None:
        status, again = speaker.lacks_storage(observed.blocked), STORAGE_SECONDS
    elif held is not None:
        status, again = speaker.held_up(_with_field(job, held)), STORAGE_SECONDS
    elif any(map(_engine_starts, pods)):
        status, again = speaker.waits(run, f"attempt {run.attempt} waits for its engine to load the model"), None
    elif pods:
        status, again = speaker.waits(run, awaited), STORAGE_SECONDS
    else:
        again = (PODLESS - (here.now - made_at(current, here.now))).total_seconds()
        status = speaker.waits(run, awaited) if again > 0 else speaker.held_up(podless(current))
        again = again if again > 0 else STORAGE_SECONDS
    return Plan(status=status, again_after=again)


def _engine_starts(pod: Manifest) -> bool:
    """Whether the sidecar runs and has not answered yet."""
    statuses = pod.get("status", {}).get("initContainerStatuses", [])
    return any("running" in status.get("state", {}) and not status.get("started") for status in statuses)


def _with_field(job: QuantizeJob, held: Problem) -> Problem:
    """The problem with the field of the Secret that it names."""
    if held.reason != Reason.SECRET_MISSING:
        return held
    field = next((f for f, name in _secrets(job).items() if f"Secret {name!r}" in held.message), None)
    return held if field is None else Problem(held.reason, f"{field}: {held.message}")


def _secrets(job: QuantizeJob) -> Mapping[str, str]:
    """The fields that name a Secret, each with its name."""
    spec = job.spec
    named = {"spec.source.secretRef": spec.source.secret_ref}
    named |= {f"{rows.field}.secretRef": rows.source.secret_ref for rows in all_rows(job)}
    found = {field: secret.name for field, secret in named.items() if secret is not None}
    for i, variable in enumerate(spec.compute.pod_template.env):
        if variable.value_from is not None:
            found[f"spec.compute.podTemplate.env[{i}].valueFrom.secretKeyRef"] = variable.value_from.secret_key_ref.name
    return found
