"""What the pods of a QuantizeJob mount, and where; and which objects of the user's that needs."""

from __future__ import annotations

from largeforge.api.finetunejobstatus import ResolvedBase
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord, SourceRecord
from largeforge.api.uri import ConfigMapUri, HfUri, PvcUri, parse, parse_pvc
from largeforge.resources.pods import ClaimMount, Manifest, claim_volumes
from largeforge.resources.runstorage import (
    ADAPTER_PATH,
    CACHE_PATH,
    OUTPUT_PATH,
    Rows,
    claim_mounts,
    claims_of,
    config_map_keys,
    config_map_volumes,
)

SOURCE_PATH = "/mnt/source"
PREPARED_PATH = "/mnt/prepared"
MODEL_PATH = "/mnt/model"
"""In the engine: the source, or a method's result."""

Mounts = tuple[list[Manifest], list[Manifest]]


def calibration_rows(job: QuantizeJob) -> list[Rows]:
    """The calibration data in order."""
    chosen = job.spec.calibration
    sources = chosen.datasets if chosen is not None else []
    return [Rows(source, f"spec.calibration.datasets[{i}]", str(i)) for i, source in enumerate(sources)]


def held_out_rows(job: QuantizeJob) -> Rows | None:
    """The held-out text, where the spec names one."""
    source = job.spec.quality_gate.dataset
    return None if source is None else Rows(source, "spec.qualityGate.dataset", "eval")


def all_rows(job: QuantizeJob) -> list[Rows]:
    """Calibration data and held-out text."""
    held_out = held_out_rows(job)
    return calibration_rows(job) + ([] if held_out is None else [held_out])


def source_field(job: QuantizeJob) -> str:
    """The field that names the model."""
    source = job.spec.source
    if source.uri is not None:
        return "spec.source.uri"
    return "spec.source.fineTuneJobRef" if source.fine_tune_job_ref is not None else "spec.source.expertRef"


def base_of(run: QuantizeRunRecord) -> ResolvedBase:
    """What the run begins with; the operator has found it before it makes any pod."""
    if run.base is None:
        raise AssertionError("the run's source is resolved before anything is made of it")
    return run.base


def source_of(job: QuantizeJob) -> SourceRecord:
    """The model as preflight has found or merged it."""
    if job.status.source is None:
        raise AssertionError("preflight passes before anything is made of the source")
    return job.status.source


def needs_cache(run: QuantizeRunRecord) -> bool:
    """Whether quantizer and engine read the source from the hub's cache: it has to be on a claim then."""
    base = base_of(run)
    return base.adapter is None and isinstance(parse(base.uri), HfUri)


def uses_hub(job: QuantizeJob, run: QuantizeRunRecord) -> bool:
    """Whether preflight asks the hub for anything."""
    uris = [base_of(run).uri, *(rows.source.uri for rows in all_rows(job))]
    return any(isinstance(parse(uri), HfUri) for uri in uris)


def preflight_mounts(job: QuantizeJob, run: QuantizeRunRecord) -> Mounts:
    """Of preflight: all that the spec names; output and cache are writable."""
    base, rows = base_of(run), all_rows(job)
    uri = parse(base.uri)
    claims = [ClaimMount(uri, SOURCE_PATH)] if isinstance(uri, PvcUri) else []
    if base.adapter is not None:
        claims.append(ClaimMount(parse_pvc(base.adapter), ADAPTER_PATH))
    claims += [*claim_mounts(rows), _output(job)]
    if job.spec.cache is not None and uses_hub(job, run):
        claims.append(ClaimMount(parse_pvc(job.spec.cache.uri), CACHE_PATH, read_only=False))
    volumes, mounts = claim_volumes(claims)
    keys, key_mounts = config_map_volumes(rows)
    return [*volumes, *keys], [*mounts, *key_mounts]


def quantize_mounts(job: QuantizeJob, run: QuantizeRunRecord) -> Mounts:
    """Of the quantizer: the source and the calibration tokens, read-only, and the output."""
    return claim_volumes([_source(job, SOURCE_PATH), _prepared(run), _output(job)])


def evaluate_mounts(job: QuantizeJob, run: QuantizeRunRecord) -> tuple[list[Manifest], list[Manifest], list[Manifest]]:
    """Of the evaluation, all read-only: the volumes, the mounts of the engine, those of `evaluate`."""
    model = ClaimMount(parse_pvc(result_uri(job, run)), MODEL_PATH) if run.method is not None else None
    volumes, mounts = claim_volumes([model or _source(job, MODEL_PATH), _prepared(run)])
    return volumes, mounts[:1], mounts[1:]


def result_uri(job: QuantizeJob, run: QuantizeRunRecord) -> str:
    """What the run's current method wrote."""
    attempt = job.status.attempts[run.method] if run.method is not None else None
    if attempt is None or attempt.artifact is None:
        raise AssertionError("a method has written its result before that is evaluated")
    return attempt.artifact.uri


def source_path(job: QuantizeJob, folder: str) -> str:
    """Where the source is, in a container that has it mounted at *folder*, or the cache."""
    source = source_of(job)
    uri = parse(source.uri)
    if not isinstance(uri, HfUri):
        return folder
    # The hub client's own layout; the snapshot links to blobs beside it, so the whole cache is mounted.
    return f"{CACHE_PATH}/models--{uri.repo.replace('/', '--')}/snapshots/{source.commit}"


def needed_claims(job: QuantizeJob, run: QuantizeRunRecord) -> dict[str, str]:
    """The claims that the run's stage mounts, each with the first field that names it."""
    base, spec = base_of(run), job.spec
    named: list[tuple[str, str | None]] = []
    if run.stage == "Preflight":
        named += [(source_field(job), base.uri), (source_field(job), base.adapter)]
        named += [(f"{rows.field}.uri", rows.source.uri) for rows in all_rows(job)]
    elif not source_of(job).merged and (run.stage == "Quantize" or run.method is None):
        named.append((source_field(job), source_of(job).uri))
    named.append(("spec.output.uri", spec.output.uri))
    if spec.cache is not None and (uses_hub(job, run) if run.stage == "Preflight" else needs_cache(run)):
        named.append(("spec.cache.uri", spec.cache.uri))
    return claims_of(named, spec.compute.pod_template)


def needed_config_maps(job: QuantizeJob, run: QuantizeRunRecord) -> list[tuple[ConfigMapUri, str]]:
    """The keys of ConfigMaps that the run's stage reads, each with the field that names it."""
    return config_map_keys(all_rows(job)) if run.stage == "Preflight" else []


def _source(job: QuantizeJob, folder: str) -> ClaimMount:
    uri = parse(source_of(job).uri)
    if isinstance(uri, PvcUri):
        return ClaimMount(uri, folder)
    if job.spec.cache is None:
        raise AssertionError("a source of the hub has a cache")
    return ClaimMount(parse_pvc(job.spec.cache.uri), CACHE_PATH)


def _prepared(run: QuantizeRunRecord) -> ClaimMount:
    if run.prepared_uri is None:
        raise AssertionError("preflight passes before its tokens are read")
    return ClaimMount(parse_pvc(run.prepared_uri), PREPARED_PATH)


def _output(job: QuantizeJob) -> ClaimMount:
    return ClaimMount(parse_pvc(job.spec.output.uri), OUTPUT_PATH, read_only=False)
