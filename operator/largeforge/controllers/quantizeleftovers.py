"""What a run of a QuantizeJob leaves on the claim and nobody needs any more. Pure.

What was let out once stays out, so the results of the other methods go. Where no result was let out all of them stay: a
looser gate may take one. A merged source goes when no step of the run can ask for it, and no published Expert names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.api.uri import PvcUri, parse_pvc
from largeforge.kube.cluster import Manifest
from largeforge.resources.deliver import split

Named = Mapping[str, Sequence[Manifest]]
"""By kind, the objects beside this one that may name a folder."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that the run has no use for."""

    folder: PvcUri
    digest: str
    method: int | None
    """The place in `status.attempts` of the method that wrote it; None: the merged source."""


def leftovers(job: QuantizeJob) -> list[Leftover]:
    """What may go of the run that is recorded, in order; nothing while it goes on."""
    run = job.status.run
    if run is None or run.outcome is None:
        return []
    found = [*_results(job, run), *_source(job, run)]
    return [each for each in found if _is_ours(each, job, run)]


def named_by(leftover: Leftover, others: Named, job: str) -> str | None:
    """The first of *others* that names the folder, or something in it; what follows the QuantizeJob *job* is made from
    its source.
    """
    uri = str(leftover.folder)
    for kind, objects in others.items():
        for each in objects:
            source = each.get("spec", {}).get("sourceRef", {}) if leftover.method is None else {}
            follows = (source.get("kind"), source.get("name")) == ("QuantizeJob", job)
            if follows or any(text == uri or text.startswith(f"{uri}/") for text in _texts(each)):
                return f"{kind} {each['metadata']['name']!r}"
    return None


def _results(job: QuantizeJob, run: QuantizeRunRecord) -> Iterator[Leftover]:
    if run.chosen_method is None:
        return
    records = [job.status.artifact, run.artifact, *(earlier.artifact for earlier in job.status.history)]
    let_out = {record.uri for record in records if record is not None}
    for place, attempt in enumerate(job.status.attempts):
        wrote = attempt.artifact
        if wrote is not None and not attempt.removed and wrote.uri not in let_out:
            yield Leftover(parse_pvc(wrote.uri), wrote.digest, place)


def _source(job: QuantizeJob, run: QuantizeRunRecord) -> Iterator[Leftover]:
    source = job.status.source
    if source is None or not source.merged or source.removed:
        return
    # Without a result a changed onFailure may ask for the next method, which begins with it.
    untried = run.chosen_method is None and len(job.status.attempts) < len(job.spec.methods)
    if run.outcome == "Failed" or not (untried or job.spec.publish is not None):
        yield Leftover(parse_pvc(source.uri), source.digest, None)


def _is_ours(each: Leftover, job: QuantizeJob, run: QuantizeRunRecord) -> bool:
    """Whether it lies beside the run's tokens under a name of this object's: a container said where it lies."""
    if run.prepared_uri is None or not each.folder.path or not _DIGEST.fullmatch(each.digest):
        return False
    above, name = split(each.folder)
    named = re.fullmatch(rf"{job.metadata.name}-[a-z0-9-]+", name)
    return above == split(parse_pvc(run.prepared_uri))[0] and named is not None


def _texts(value: object) -> Iterator[str]:
    """Every text in *value*, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)
