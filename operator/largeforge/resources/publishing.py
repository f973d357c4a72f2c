"""The Expert that a complete run makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from largeforge.api.finetunejob import PublishedExpert
from largeforge.api.meta import ObjectMeta
from largeforge.api.names import API_VERSION, FINETUNEJOB_LABEL, MANAGED_BY, MANAGER, PUBLISH_MANAGER, QUANTIZEJOB_LABEL
from largeforge.resources.drift import covers
from largeforge.resources.pods import Manifest


class Publisher(Protocol):
    """A job that publishes: a kind of ours, with its name and namespace."""

    @property
    def kind(self) -> str:
        """What `sourceRef.kind` says."""
        ...

    @property
    def metadata(self) -> ObjectMeta:
        """Where it is."""
        ...


@dataclass(frozen=True, slots=True)
class Publishing:
    """How the Experts of one kind of job are made."""

    label: str
    """The label by which they are known as its own."""
    expert_type: Literal["Adapter", "Model"]


FINE_TUNED = Publishing(FINETUNEJOB_LABEL, "Adapter")
QUANTIZED = Publishing(QUANTIZEJOB_LABEL, "Model")


def published_expert(job: Publisher, expert: PublishedExpert, *, how: Publishing = FINE_TUNED) -> Manifest:
    """The Expert that follows *job*. It has no owner: deleting the job must not take a serving expert down.

    Only what the job says is in it, so that all else of the Expert is its editors'.
    """
    wishes = expert.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "inference_service_ref"}
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "Expert",
        "metadata": {
            "name": expert.name,
            "namespace": job.metadata.namespace,
            "labels": {MANAGED_BY: MANAGER, how.label: job.metadata.name},
        },
        "spec": {
            "type": how.expert_type,
            "sourceRef": {"kind": job.kind, "name": job.metadata.name},
            "inferenceServiceRef": {"name": expert.inference_service_ref.name},
            **wishes,
        },
    }


def is_published_by(expert: Manifest, job: Publisher, *, how: Publishing = FINE_TUNED) -> bool:
    """Whether *expert* is what *job*, or a job of its name before it, made."""
    label = expert["metadata"].get("labels", {}).get(how.label)
    return bool(label == job.metadata.name)


def missing_of(desired: Manifest, observed: Manifest) -> Manifest | None:
    """What is still to be applied of *desired*, or None where *observed* has it all.

    Fields that a person has changed since belong to that person: they are left out. A field that the publisher owns and
    *desired* has no more is taken back by applying the rest.
    """
    ours = _owned(observed).get("f:spec", {})
    spec = _kept(desired["spec"], observed["spec"], ours)
    if covers(observed["spec"], spec) and not _has_dropped(ours, spec):
        return None
    return desired | {"spec": spec}


def _owned(observed: Manifest) -> dict[str, Any]:
    """The fields that the publisher owns, in the form of `managedFields`."""
    for entry in observed["metadata"].get("managedFields", []):
        if (
            entry.get("manager") == PUBLISH_MANAGER
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            fields: dict[str, Any] = entry.get("fieldsV1", {})
            return fields
    return {}


def _has_dropped(owned: dict[str, Any], desired: Any) -> bool:
    """Whether *owned*, in the form of `managedFields`, has a field that *desired* has not."""
    fields = {key.removeprefix("f:"): below for key, below in owned.items() if key.startswith("f:")}
    if not isinstance(desired, dict):
        return False
    return any(name not in desired or _has_dropped(below, desired[name]) for name, below in fields.items())


def _kept(desired: dict[str, Any], observed: dict[str, Any], owned: dict[str, Any]) -> dict[str, Any]:
    """*desired* without the fields that are there, with another value, and not owned by the publisher."""
    kept: dict[str, Any] = {}
    for key, value in desired.items():
        there, mine = observed.get(key), owned.get(f"f:{key}")
        if isinstance(value, dict) and isinstance(there, dict):
            kept[key] = _kept(value, there, mine or {})
        elif there is None or mine is not None or covers(there, value):
            kept[key] = value
    return kept
