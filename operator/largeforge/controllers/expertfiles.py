"""An Expert's files: what they are, by an `inspect` Job, and where engines read them, by a `deliver` Job. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from largeforge.api.deliver import DeliverResult
from largeforge.api.expert import Expert
from largeforge.api.expertstatus import DeliveryRecord, Evaluation, Lineage, Resolved
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inspect import AdapterFacts, InspectResult
from largeforge.api.meta import Condition
from largeforge.api.names import LOADED, Reason
from largeforge.api.uri import HF_PATTERN, parse_pvc
from largeforge.controllers.expertrules import path_in_store
from largeforge.controllers.expertsource import Found, resolved_as
from largeforge.controllers.inspection import Pending, Question, Seen, Step, decide, is_known
from largeforge.controllers.plan import Deletion
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import Manifest
from largeforge.resources.attemptpod import Installation
from largeforge.resources.deliver import Delivery, deliver_config, deliver_job
from largeforge.resources.errand import REACHING, Parent
from largeforge.resources.inspect import Subject, inspect_config, inspect_job
from largeforge.resources.names import adapter_name
from largeforge.resources.pods import overlay_spec


@dataclass(frozen=True, slots=True)
class Files:
    """What is asked of the files in this pass, and the Jobs that are seen."""

    inspection: tuple[Question[InspectResult], Seen] | None = None
    delivery: tuple[Question[DeliverResult], Seen] | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """What has become of what was asked, and what to do for it."""

    delivery: Step[DeliverResult] | None = None
    create: Sequence[Manifest] = ()
    delete: Sequence[Deletion] = ()
    waits: Sequence[float] = ()


def files_steps(files: Files, *, now: datetime) -> Steps:
    """What has become of *files*."""
    inspection = decide(*files.inspection, now=now) if files.inspection is not None else None
    delivery = decide(*files.delivery, now=now) if files.delivery is not None else None
    steps = [step for step in (inspection, delivery) if step is not None]
    return Steps(
        delivery=delivery,
        create=[job for step in steps for job in step.create],
        delete=[job for step in steps for job in step.delete],
        waits=[step.again_after for step in steps if step.again_after is not None],
    )


def inspection_question(
    expert: Expert, service: InferenceService | None, installation: Installation
) -> Question[InspectResult] | None:
    """What is still to be found out of an adapter's own folder."""
    artifact = expert.spec.artifact
    if artifact is None or expert.spec.type != "Adapter":
        return None
    subject = Subject("Adapter", artifact.uri, "spec.artifact.uri")
    config = inspect_config(subject)
    if is_known(expert.status.inspection, config):
        return None
    job = inspect_job(subject, _parent(expert), installation=installation, placement=_placement(service))
    return Question(job, config, InspectResult)


def of_artifact(expert: Expert, uri: str, step: Step[InspectResult] | None) -> Found:
    """The adapter in a folder of the user's, by what its inspection says; *step* is None where that is known."""
    state = None if step is None else step.state
    facts = state.adapter if isinstance(state, InspectResult) else expert.status.inspection
    if facts is None or isinstance(state, Pending | Problem):
        status = expert.status
        reason, said = (state.reason, state.message) if isinstance(state, Pending | Problem) else (Reason.PENDING, "")
        return Found(
            resolved_as("Unknown" if isinstance(state, Pending) else "False", reason, said),
            status.resolved,
            status.lineage,
            status.evaluation,
            status.inspection,
        )
    made = facts.provenance
    lineage = None
    if made is not None:
        lineage = Lineage(dataset_digest=made.dataset_digest, base_commit=made.base_commit, versions=made.versions)
    return Found(
        resolved_as("True", Reason.RESOLVED, f"an adapter of rank {facts.rank} in {uri}"),
        _resolved(expert, uri, facts),
        lineage,
        Evaluation(metrics=made.metrics) if made is not None and made.metrics else None,
        facts,
    )


def _resolved(expert: Expert, uri: str, facts: AdapterFacts) -> Resolved:
    made = facts.provenance
    written = f"hf://{facts.base}"
    return Resolved(
        uri=uri,
        digest=facts.digest,
        rank=facts.rank,
        base=made.base if made is not None else (written if re.fullmatch(HF_PATTERN, written) else facts.base),
        base_is_written=made is None,
        base_commit=made.base_commit if made is not None else None,
        unsupported=_unsupported(facts),
        does_nothing=facts.changes_nothing,
        probes=made.probes if made is not None else [],
        engine_name=adapter_name(expert.metadata.name, facts.digest),
    )


def _unsupported(facts: AdapterFacts) -> str | None:
    if facts.use_dora:
        return "is a DoRA adapter, which engines refuse; merge it into its base and serve that"
    if facts.modules_to_save:
        modules = ", ".join(facts.modules_to_save[:8])
        return f"has whole modules beside the adapter ({modules}), which engines refuse; merge it and serve that"
    if facts.extends_tokenizer:
        return "extends its base's tokenizer, which engines refuse of adapters; merge it into its base and serve that"
    if facts.refused:
        what = ", ".join(facts.refused)
        return f"has {what}, which engines refuse, or compute otherwise; merge it into its base and serve that"
    if facts.not_finite:
        return "has weights that are infinite or no numbers; train it again"
    return None


def delivery_of(resolved: Resolved, service: InferenceService) -> DeliveryRecord | None:
    """The copy that the service, which can serve it, needs of *resolved*; None where its engines find it as it is."""
    if service.spec.lora is None or path_in_store(resolved.uri, service) is not None:
        return None
    return DeliveryRecord(store=service.spec.lora.store, uri=resolved.uri, digest=resolved.digest)


def delivery_question(
    expert: Expert, resolved: Resolved, service: InferenceService, installation: Installation
) -> Question[DeliverResult] | None:
    """What is still to be copied."""
    wanted = delivery_of(resolved, service)
    known = _same(expert.status.delivery, wanted)
    if wanted is None or (known is not None and known.whole):
        return None
    field = "spec.artifact.uri" if expert.spec.artifact is not None else "spec.sourceRef"
    delivery = Delivery(parse_pvc(wanted.uri), wanted.digest, parse_pvc(wanted.store), field)
    job = deliver_job(delivery, _parent(expert), installation=installation, placement=_placement(service))
    return Question(job, deliver_config(delivery), DeliverResult, since=known.since if known is not None else None)


def delivery(
    expert: Expert, resolved: Resolved | None, service: InferenceService | None, step: Step[DeliverResult] | None
) -> tuple[DeliveryRecord | None, Condition | None]:
    """What status keeps of the copy of *resolved*, and, while there is none, `Loaded`."""
    wanted = delivery_of(resolved, service) if resolved is not None and service is not None else None
    if wanted is None:
        return (expert.status.delivery if resolved is None else None), None
    known = _same(expert.status.delivery, wanted)
    if step is None:
        return known, None
    if isinstance(step.state, DeliverResult):
        return (known or wanted).model_copy(update={"whole": True}), None
    return known or wanted, Condition(type=LOADED, status="False", reason=step.state.reason, message=step.state.message)


def lost(record: DeliveryRecord | None, *, now: datetime) -> DeliveryRecord | None:
    """*record* of a copy that engines do not find: it is made again."""
    return None if record is None else record.model_copy(update={"whole": False, "since": now})


def _same(record: DeliveryRecord | None, wanted: DeliveryRecord | None) -> DeliveryRecord | None:
    if record is None or wanted is None:
        return None
    same = (record.store, record.uri, record.digest) == (wanted.store, wanted.uri, wanted.digest)
    return record if same else None


def _parent(expert: Expert) -> Parent:
    return Parent("Expert", expert.metadata)


def _placement(service: InferenceService | None) -> Mapping[str, object]:
    overlay = overlay_spec(service.spec.compute.pod_template) if service is not None else {}
    return {key: overlay[key] for key in REACHING if key in overlay}
