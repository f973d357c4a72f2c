"""The Job that looks at a model or an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from largeforge.api.common import SecretRef
from largeforge.api.inspect import InspectConfig
from largeforge.api.run import ModelSource
from largeforge.api.uri import HfUri, PvcUri, parse, parse_pvc
from largeforge.resources.attemptpod import Installation, secret_variable
from largeforge.resources.errand import CACHE_PATH, SOURCE_PATH, Errand, Parent, errand_job
from largeforge.resources.pods import ClaimMount, Manifest
from largeforge.resources.runconfig import hub_token_variable


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at, as the user wrote it."""

    expect: Literal["Model", "Adapter"]
    uri: str
    """`pvc://` or, for a model, `hf://`."""
    field: str
    """The field that names it, for example `spec.model.uri`."""
    revision: str | None = None
    secret_ref: SecretRef | None = None
    """The Secret with the hub's token."""
    cache_uri: str | None = None
    """Where a model of the hub is downloaded to; without it, only its headers are read. Leave out a claim that no
    volume is bound to yet, unless the placement says where: this pod would bind it where, perhaps, no GPU is."""
    trust_remote_code: bool = False


def inspect_config(subject: Subject) -> InspectConfig:
    """What the Job is asked; its `request` tells whether facts in a status are the answer to it."""
    hub = isinstance(parse(subject.uri), HfUri)
    source = ModelSource(
        uri=subject.uri,
        field=subject.field,
        path=None if hub else SOURCE_PATH,
        revision=subject.revision if hub else None,
        token_env=hub_token_variable("source") if hub and subject.secret_ref is not None else None,
        trust_remote_code=subject.trust_remote_code,
    )
    cache = subject.cache_uri if hub else None
    return InspectConfig(
        expect=subject.expect, source=source, cache_uri=cache, cache_path=CACHE_PATH if cache is not None else None
    )


def inspect_job(
    subject: Subject, parent: Parent, *, installation: Installation, placement: Mapping[str, object] | None = None
) -> Manifest:
    """The Job; its claims are mounted read-only, but for the cache that it fills."""
    config = inspect_config(subject)
    variable = config.source.token_env
    env = [secret_variable(variable, subject.secret_ref)] if variable and subject.secret_ref is not None else []
    errand = Errand("inspect", config, list(_mounts(subject, config)), env, placement or {})
    return errand_job(errand, parent, installation=installation)


def _mounts(subject: Subject, config: InspectConfig) -> list[ClaimMount]:
    uri = parse(subject.uri)
    mounts = [ClaimMount(uri, SOURCE_PATH)] if isinstance(uri, PvcUri) else []
    if config.cache_uri is not None:
        mounts.append(ClaimMount(parse_pvc(config.cache_uri), CACHE_PATH, read_only=False))
    return mounts
