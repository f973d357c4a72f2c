"""The Jobs that copy an adapter into a service's store, and that remove a folder of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from largeforge.api.deliver import DeliverConfig
from largeforge.api.uri import PvcUri
from largeforge.resources.attemptpod import Installation
from largeforge.resources.errand import SOURCE_PATH, TARGET_PATH, Errand, Parent, errand_job
from largeforge.resources.pods import ClaimMount, Manifest


@dataclass(frozen=True, slots=True)
class Delivery:
    """An adapter that has to lie in a store."""

    source: PvcUri
    digest: str
    """SHA-256 over its weights, as its inspection found it."""
    store: PvcUri
    field: str
    """The field that names the source, for example `spec.artifact.uri`."""

    @property
    def target(self) -> PvcUri:
        """Where it lies then: a name that follows from what it is, so that nothing ever replaces it."""
        return self.store.child(self.digest)


@dataclass(frozen=True, slots=True)
class Removal:
    """A folder that has to go, if what lies there still is what is meant."""

    folder: PvcUri
    digest: str
    field: str
    """The field that asks for it, for example `spec.deletionPolicy`."""


def deliver_config(delivery: Delivery) -> DeliverConfig:
    """What the Job is asked."""
    return DeliverConfig(
        digest=delivery.digest,
        field=delivery.field,
        source_uri=str(delivery.source),
        source_path=SOURCE_PATH,
        target_uri=str(delivery.target),
        target_path=TARGET_PATH,
        target_name=delivery.digest,
    )


def deliver_job(
    delivery: Delivery, parent: Parent, *, installation: Installation, placement: Mapping[str, object] | None = None
) -> Manifest:
    """The Job that copies; it can write to the store alone."""
    mounts = [ClaimMount(delivery.source, SOURCE_PATH), ClaimMount(delivery.store, TARGET_PATH, read_only=False)]
    errand = Errand("deliver", deliver_config(delivery), mounts, placement=placement or {})
    return errand_job(errand, parent, installation=installation)


def removal_config(removal: Removal) -> DeliverConfig:
    """What the Job is asked; a `ValueError` where the folder is a whole claim."""
    _, name = split(removal.folder)
    return DeliverConfig(
        action="Remove",
        digest=removal.digest,
        field=removal.field,
        target_uri=str(removal.folder),
        target_path=TARGET_PATH,
        target_name=name,
    )


def remove_job(
    removal: Removal, parent: Parent, *, installation: Installation, placement: Mapping[str, object] | None = None
) -> Manifest:
    """The Job that removes; it can write to the folder above, and takes away nothing that has another digest."""
    above, _ = split(removal.folder)
    mounts = [ClaimMount(above, TARGET_PATH, read_only=False)]
    errand = Errand("remove", removal_config(removal), mounts, placement=placement or {})
    return errand_job(errand, parent, installation=installation)


def split(folder: PvcUri) -> tuple[PvcUri, str]:
    """The folder above *folder*, and its own name there."""
    above, _, name = folder.path.rpartition("/")
    if not name:
        raise ValueError(f"{folder} is a whole claim, of which nothing is removed; name a folder of it")
    return PvcUri(folder.claim, above), name
