"""What the pods of a run mount, and where; and which objects of the user's that needs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from largeforge.api.common import PodTemplate
from largeforge.api.datasets import DatasetSource
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import ResolvedBase, RunRecord
from largeforge.api.uri import ConfigMapUri, HfUri, PvcUri, parse, parse_pvc
from largeforge.resources.pods import ClaimMount, Manifest, claim_volumes

BASE_PATH = "/mnt/base"
ADAPTER_PATH = "/mnt/adapter"
DATASETS_PATH = "/mnt/datasets"
CACHE_PATH = "/mnt/cache"
OUTPUT_PATH = "/mnt/output"
CHECKPOINTS_PATH = "/mnt/checkpoints"


@dataclass(frozen=True, slots=True)
class Rows:
    """One data set of the spec."""

    source: DatasetSource
    field: str
    """The field that names it, for example `spec.datasets[0]`."""
    key: str
    """Its number, or `eval`: its folder in the container, and the end of its token's variable."""

    @property
    def uri(self) -> PvcUri | ConfigMapUri | HfUri:
        """Where it lies."""
        return parse(self.source.uri)

    @property
    def folder(self) -> str:
        """The folder in the container that holds its file or folder."""
        return f"{DATASETS_PATH}/{self.key}"

    @property
    def path(self) -> str | None:
        """The file or folder in the container; None where it comes from the hub."""
        uri = self.uri
        if isinstance(uri, HfUri):
            return None
        return f"{self.folder}/{uri.key if isinstance(uri, ConfigMapUri) else uri.path.rpartition('/')[2]}"


def row_sources(job: FineTuneJob) -> list[Rows]:
    """All data sets in order, the evaluation data set last."""
    spec = job.spec
    found = [Rows(source, f"spec.datasets[{i}]", str(i)) for i, source in enumerate(spec.datasets)]
    return found if spec.eval_dataset is None else [*found, Rows(spec.eval_dataset, "spec.evalDataset", "eval")]


def base_of(run: RunRecord) -> ResolvedBase:
    """What the run begins with; the operator has found it before it makes any pod."""
    if run.base is None:
        raise AssertionError("the run's base is resolved before anything is made of it")
    return run.base


def base_field(job: FineTuneJob) -> str:
    """The field that names the base."""
    base = job.spec.base
    if base.uri is not None:
        return "spec.base.uri"
    return "spec.base.fineTuneJobRef" if base.fine_tune_job_ref is not None else "spec.base.expertRef"


def uses_hub(job: FineTuneJob, run: RunRecord) -> bool:
    """Whether anything of the run comes from the hub."""
    uris = [base_of(run).uri, *(rows.source.uri for rows in row_sources(job))]
    return any(isinstance(parse(uri), HfUri) for uri in uris)


def run_volumes(
    job: FineTuneJob, run: RunRecord, *, cache_read_only: bool, left_out: Container[str] = ()
) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of all that the spec names: claims by `subPath`, keys of ConfigMaps.

    Output, checkpoints and cache on a claim in *left_out* are not mounted.
    """
    volumes, mounts = claim_volumes(
        [*_inputs(job, run), *_outputs(job, run, cache_read_only=cache_read_only, left_out=left_out)]
    )
    keys, key_mounts = config_map_volumes(row_sources(job))
    return [*volumes, *keys], [*mounts, *key_mounts]


def config_map_volumes(sources: Sequence[Rows]) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of the data sets that are keys of ConfigMaps."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    for rows in sources:
        uri = rows.uri
        if isinstance(uri, ConfigMapUri):
            items = [{"key": uri.key, "path": uri.key}]
            volumes.append({"name": f"dataset-{rows.key}", "configMap": {"name": uri.name, "items": items}})
            mounts.append({"name": f"dataset-{rows.key}", "mountPath": rows.folder, "readOnly": True})
    return volumes, mounts


def claim_mounts(sources: Sequence[Rows]) -> list[ClaimMount]:
    """The mounts of the data sets that lie on claims: each the folder that holds the file."""
    named = ((rows.uri, rows.folder) for rows in sources)
    return [ClaimMount(_parent(uri), folder) for uri, folder in named if isinstance(uri, PvcUri)]


def input_claims(job: FineTuneJob, run: RunRecord) -> set[str]:
    """The claims that are read: no pod of a run can do without them."""
    return {mount.uri.claim for mount in _inputs(job, run)}


def needed_claims(job: FineTuneJob, run: RunRecord) -> dict[str, str]:
    """The claims that a run mounts, each with the first field that names it."""
    base, spec = base_of(run), job.spec
    named: list[tuple[str, str | None]] = [(base_field(job), base.uri), (base_field(job), base.adapter)]
    named += [(f"{rows.field}.uri", rows.source.uri) for rows in row_sources(job)]
    named += [
        ("spec.output.uri", spec.output.uri),
        ("spec.checkpoint.uri", spec.checkpoint.uri),
        ("spec.cache.uri", spec.cache.uri if spec.cache and uses_hub(job, run) else None),
    ]
    return claims_of(named, spec.compute.pod_template)


def claims_of(named: Sequence[tuple[str, str | None]], template: PodTemplate) -> dict[str, str]:
    """The claims of the URIs that are *named* by their fields and of the user's overlay, each with its first field."""
    found: dict[str, str] = {}
    for field, text in named:
        uri = parse(text) if text is not None else None
        if isinstance(uri, PvcUri):
            found.setdefault(uri.claim, field)
    for i, volume in enumerate(template.volumes):
        if volume.persistent_volume_claim is not None:
            field = f"spec.compute.podTemplate.volumes[{i}].persistentVolumeClaim.claimName"
            found.setdefault(volume.persistent_volume_claim.claim_name, field)
    return found


def needed_config_maps(job: FineTuneJob) -> list[tuple[ConfigMapUri, str]]:
    """The keys of ConfigMaps that a run reads, each with the field that names it."""
    return config_map_keys(row_sources(job))


def config_map_keys(sources: Sequence[Rows]) -> list[tuple[ConfigMapUri, str]]:
    """The keys of ConfigMaps among data sets, each with the field that names it."""
    parsed = ((rows.uri, f"{rows.field}.uri") for rows in sources)
    return [(uri, field) for uri, field in parsed if isinstance(uri, ConfigMapUri)]


def _inputs(job: FineTuneJob, run: RunRecord) -> list[ClaimMount]:
    base = base_of(run)
    uri = parse(base.uri)
    mounts = [ClaimMount(uri, BASE_PATH)] if isinstance(uri, PvcUri) else []
    if base.adapter is not None:
        mounts.append(ClaimMount(parse_pvc(base.adapter), ADAPTER_PATH))
    return mounts + claim_mounts(row_sources(job))


def _outputs(job: FineTuneJob, run: RunRecord, *, cache_read_only: bool, left_out: Container[str]) -> list[ClaimMount]:
    spec = job.spec
    mounts = [ClaimMount(parse_pvc(spec.output.uri), OUTPUT_PATH, read_only=False)]
    if spec.checkpoint.uri is not None:
        mounts.append(ClaimMount(parse_pvc(spec.checkpoint.uri), CHECKPOINTS_PATH, read_only=False))
    if spec.cache is not None and uses_hub(job, run):
        mounts.append(ClaimMount(parse_pvc(spec.cache.uri), CACHE_PATH, read_only=cache_read_only))
    return [mount for mount in mounts if mount.uri.claim not in left_out]


def _parent(uri: PvcUri) -> PvcUri:
    """The folder that holds the file: a `subPath` to a file that is missing would be made, as a folder."""
    return PvcUri(uri.claim, uri.path.rpartition("/")[0])
