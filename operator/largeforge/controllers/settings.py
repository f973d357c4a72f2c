"""The operator's configuration, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from largeforge.kube.lease import LEASE_SECONDS
from largeforge.resources.proxy import Proxy

PREFIX = "LARGEFORGE_"
LISTS = frozenset({"namespaces", "hub_hosts", "no_proxy", "remote_code_namespaces", "service_accounts"})
"""Fields that are separated by commas in their variables."""
MASTER_KEY_FILE = Path("/etc/largeforge/master/key")


class Settings(BaseModel):
    """What the chart decides. `docs/contracts.md` names the variables: `LARGEFORGE_` and the field in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trainer_image: Annotated[str, Field(min_length=1)]
    """The image of training pods."""
    engine_image: Annotated[str, Field(min_length=1)]
    """The image of engines with GPUs."""
    engine_cpu_image: Annotated[str, Field(min_length=1)]
    """The image of engines without."""
    quantizer_image: Annotated[str, Field(min_length=1)]
    """The image of QuantizeJobs' pods."""
    quantizer_autoawq_image: Annotated[str, Field(min_length=1)]
    """The image that quantizes for the engine AutoAWQ."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """The pull policy of all of them."""
    master_key_file: Path = MASTER_KEY_FILE
    """The installation's master key."""
    namespaces: frozenset[str] = frozenset()
    """The namespaces that are served, comma-separated in the variable; none means all of them."""
    workers: Annotated[int, Field(ge=1, le=64)] = 16
    """Objects of one kind that are worked on at a time."""
    resync_seconds: Annotated[float, Field(gt=0)] = 300
    """How often every object is looked at without a reason."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Health and metrics."""
    progress_url: Annotated[str, Field(pattern=r"^https://[^/?#@]+/v1/progress$")] | None = None
    """Where training pods post their progress to, `https://<host>/v1/progress`; the operator's certificate is for that
    host. None: nobody listens, and status shows no progress."""
    progress_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    """Where it listens for that."""
    hub_endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$")] | None = None
    """The address of the hub, or of a mirror of it; None: the client's own."""
    hub_hosts: frozenset[str] = frozenset()
    """More hosts that the hub may redirect to."""
    proxy_url: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+/?$")] | None = None
    """The proxy through which pods reach the hub and trackers; None: directly."""
    no_proxy: frozenset[str] = frozenset()
    """Hosts that they reach without it, beside those of the cluster."""
    remote_code_namespaces: frozenset[str] = frozenset()
    """The namespaces in which `base.trustRemoteCode` is allowed."""
    operator_namespace: Annotated[str, Field(max_length=63)] | None = None
    """The namespace that the operator runs in, for the engines' NetworkPolicies; None: outside the cluster, and there
    are none, since they would shut it out."""
    prometheus_address: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$")] | None = None
    """The Prometheus that KEDA asks for the engines' metrics."""
    service_accounts: frozenset[str] = frozenset()
    """The service accounts, beside `default`, that a run's pods may have."""
    pod_name: Annotated[str, Field(max_length=253)] | None = None
    """The pod that this is: the name by which it holds the lease."""
    lease_name: Annotated[str, Field(max_length=253)] | None = None
    """The Lease in `operator_namespace` by which replicas agree on who acts; None: this process is alone."""
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = LEASE_SECONDS
    """How long a holder of it that is silent keeps the others waiting."""

    @field_validator("lease_name")
    @classmethod
    def _held_by_somebody(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not (info.data.get("operator_namespace") and info.data.get("pod_name")):
            raise ValueError(f"a lease needs {PREFIX}OPERATOR_NAMESPACE and {PREFIX}POD_NAME, too")
        return value

    @property
    def proxy(self) -> Proxy | None:
        """The proxy of pods that download."""
        return Proxy(self.proxy_url, sorted(self.no_proxy)) if self.proxy_url else None


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings; a `ValueError` names each variable that is wrong or missing, one a line."""
    given: dict[str, object] = {
        name: environment[variable]
        for name in Settings.model_fields
        if environment.get(variable := f"{PREFIX}{name.upper()}")
    }
    for name in LISTS & given.keys():
        given[name] = frozenset(filter(None, (entry.strip() for entry in str(given[name]).split(","))))
    try:
        return Settings.model_validate(given)
    except ValidationError as exc:
        problems = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in exc.errors(include_url=False)]
        raise ValueError("\n".join(problems)) from exc
