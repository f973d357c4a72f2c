"""What an Expert's spec comes to at the moment: the artifact, where it comes from, and what its job measured."""

from __future__ import annotations

from dataclasses import dataclass

from largeforge.api.common import Metric
from largeforge.api.expert import Expert, SourceRef
from largeforge.api.expertstatus import Evaluation, Lineage, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import ArtifactRecord, RunRecord
from largeforge.api.inspect import AdapterFacts
from largeforge.api.meta import Condition
from largeforge.api.names import ARTIFACT_RESOLVED, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.resources.names import adapter_name

Job = FineTuneJob | QuantizeJob


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and `ArtifactResolved`."""

    condition: Condition
    resolved: Resolved | None = None
    lineage: Lineage | None = None
    evaluation: Evaluation | None = None
    inspection: AdapterFacts | None = None
    """What the inspection of a folder of the user's says."""


def of_job(expert: Expert, source: SourceRef, job: Job | None) -> Found:
    """The artifact of a job's run.

    What was resolved once stays, though the job be deleted: that must not take a serving expert down.
    """
    run = _run(source, job)
    if job is not None and (artifact := _artifact(source, job, run)) is not None:
        resolved = _resolved(expert, artifact)
        same = resolved == expert.status.resolved and expert.status.lineage is not None
        lineage = expert.status.lineage if same else _lineage(job, artifact, run)
        of_run = f"run {run} of " if run is not None else ""
        said = resolved_as("True", Reason.RESOLVED, f"{of_run}{source.kind} {source.name!r}")
        return Found(said, resolved, lineage, _evaluation(job, run) or (expert.status.evaluation if same else None))
    if (kept := _kept(expert, source, job)) is not None:
        return kept
    status = expert.status
    return Found(_missing(expert, source, job), status.resolved, status.lineage, status.evaluation)


def service_model(expert: Expert, uri: str) -> Found:
    """The model that an InferenceService serves from *uri*."""
    resolved = Resolved(uri=uri, base=uri, engine_name=expert.spec.service_name)
    return Found(resolved_as("True", Reason.RESOLVED, "the service's own model"), resolved)


def resolved_as(status: str, reason: str, message: str) -> Condition:
    """`ArtifactResolved`."""
    return Condition.model_validate({"type": ARTIFACT_RESOLVED, "status": status, "reason": reason, "message": message})


def source_text(expert: Expert, lineage: Lineage | None) -> str:
    """Where it comes from, in one word."""
    spec = expert.spec
    if spec.source_ref is not None:
        run = lineage.run if lineage is not None else spec.source_ref.run
        return f"{spec.source_ref.kind}/{spec.source_ref.name}" + ("" if run is None else f"/{run}")
    if spec.artifact is not None:
        return spec.artifact.uri
    return spec.endpoint.url if spec.endpoint is not None else ""


def _run(source: SourceRef, job: Job | None) -> int | None:
    return source.run if source.run is not None or job is None else job.status.artifact_run


def _artifact(source: SourceRef, job: Job, run: int | None) -> ArtifactRecord | None:
    """The newest that the gate has let out, or that of the run that was named."""
    if source.run is None:
        return job.status.artifact
    record = _record(job, run)
    return record.artifact if record is not None else None


def _record(job: Job, run: int | None) -> RunRecord | QuantizeRunRecord | None:
    records: list[RunRecord | QuantizeRunRecord] = [*job.status.history]
    if job.status.run is not None:
        records.insert(0, job.status.run)
    return next((record for record in records if record.number == run), None)


def _kept(expert: Expert, source: SourceRef, job: Job | None) -> Found | None:
    """What was resolved earlier from the same source, where that does not say it any more."""
    before, lineage = expert.status.resolved, expert.status.lineage
    if before is None or lineage is None or _maker(source, lineage) != source.name:
        return None
    if source.run is not None and lineage.run != source.run:
        return None
    if job is None:
        why = "which is gone"
    else:
        why = "which has no complete run any more" if source.run is None else "which knows nothing of it any more"
    said = resolved_as("True", Reason.RESOLVED, f"run {lineage.run} of {source.kind} {source.name!r}, {why}")
    return Found(said, before, lineage, expert.status.evaluation)


def _missing(expert: Expert, source: SourceRef, job: Job | None) -> Condition:
    kind, name = source.kind, source.name
    if job is None:
        said = f"spec.sourceRef: no {kind} {name!r} in namespace {expert.metadata.namespace!r}; create it"
        return resolved_as("False", Reason.SOURCE_NOT_FOUND, said)
    if source.run is None:
        said = f"{kind} {name!r} has no complete run yet ({job.status.phase or 'Pending'})"
        return resolved_as("False", Reason.SOURCE_NOT_COMPLETE, said)
    record, newest = _record(job, source.run), job.status.run.number if job.status.run is not None else 0
    if record is None and source.run <= newest:
        said = f"spec.sourceRef.run: nothing is known any more of run {source.run} of {kind} {name!r}"
        remedy = "name one of its status.run and status.history, or leave run out"
        return resolved_as("False", Reason.SOURCE_NOT_FOUND, f"{said}; {remedy}")
    state = "has failed" if record is not None and record.outcome == "Failed" else "is not complete yet"
    said = f"spec.sourceRef.run: run {source.run} of {kind} {name!r} {state}; name another, or leave run out"
    return resolved_as("False", Reason.SOURCE_NOT_COMPLETE, said)


def _resolved(expert: Expert, artifact: ArtifactRecord) -> Resolved:
    adapter = expert.spec.type == "Adapter"
    return Resolved(
        uri=artifact.uri,
        digest=artifact.digest,
        rank=artifact.rank,
        base=artifact.base,
        base_commit=artifact.base_commit,
        unsupported=unsupported_adapter(artifact) if adapter else _unsupported_model(artifact),
        probes=artifact.probes,
        engine_name=adapter_name(expert.metadata.name, artifact.digest) if adapter else expert.spec.service_name,
    )


def unsupported_adapter(artifact: ArtifactRecord) -> str | None:
    """What in *artifact* no engine can serve as an adapter, with the remedy."""
    if artifact.kind == "Model" or artifact.rank is None:
        return "holds whole weights, not an adapter; fine-tune with peft.type: LoRA, or make an Expert of type Model"
    if artifact.use_dora:
        return "is a DoRA adapter, which engines refuse; set output.merge: true, or train without peft.useDora"
    if artifact.modules_to_save:
        modules = ", ".join(artifact.modules_to_save)
        return f"has whole modules beside the adapter ({modules}), which engines refuse; set output.merge: true"
    return None


def _unsupported_model(artifact: ArtifactRecord) -> str | None:
    if artifact.kind == "Model":
        return None
    return "holds an adapter, not a whole model; set output.merge: true in its job, or make an Expert of type Adapter"


def _lineage(job: Job, artifact: ArtifactRecord, run: int | None) -> Lineage:
    if isinstance(job, QuantizeJob):
        versions = job.status.versions if job.status.artifact_run == run else []
        return Lineage(quantize_job=job.metadata.name, run=run, base_commit=artifact.base_commit, versions=versions)
    status, record = job.status, _record(job, run)
    newest = record is None or record == status.run
    return Lineage(
        fine_tune_job=job.metadata.name,
        run=run,
        dataset_digest=status.dataset.digest if status.dataset and newest else None,
        base_commit=artifact.base_commit,
        parent=record.base.adapter if record is not None and record.base is not None else None,
        versions=status.resolved.versions if status.resolved and newest else [],
    )


def _evaluation(job: Job, run: int | None) -> Evaluation | None:
    """What is known of *run*: the job's figures are those of its newest run."""
    if job.status.run is not None and job.status.run.number != run:
        return None
    if isinstance(job, QuantizeJob):
        return _quantized(job)
    status = job.status
    verdict = status.gate.verdict if status.gate is not None else ""
    return Evaluation(gate=verdict, metrics=status.metrics) if verdict or status.metrics else None


def _quantized(job: QuantizeJob) -> Evaluation | None:
    """What the method that was chosen has lost."""
    chosen = next((a for a in job.status.attempts if a.method == job.status.chosen_method), None)
    if chosen is None:
        return None
    figures = {
        "perplexity_before": chosen.perplexity_before,
        "perplexity": chosen.perplexity_after,
        "perplexity_increase_percent": chosen.increase_percent,
    }
    metrics = [Metric(name=name, value=value) for name, value in figures.items() if value is not None]
    return Evaluation(gate=chosen.verdict or "", metrics=metrics)


def _maker(source: SourceRef, lineage: Lineage) -> str | None:
    return lineage.quantize_job if source.kind == "QuantizeJob" else lineage.fine_tune_job
