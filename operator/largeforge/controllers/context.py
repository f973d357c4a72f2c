"""What every reconcile is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from largeforge.controllers.engine import Engines
from largeforge.controllers.routerreports import RouterReports
from largeforge.controllers.settings import Settings
from largeforge.kube.cluster import Cluster
from largeforge.resources.progress import ProgressTarget


def utc_now() -> datetime:
    """The time, in whole seconds, as Kubernetes writes it."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Context:
    """The cluster, the engines, the master key, the settings and the clock; one for the process."""

    cluster: Cluster
    engines: Engines
    master_key: bytes
    settings: Settings
    progress: ProgressTarget | None = None
    """Where trainers post their progress to; None where nobody listens."""
    reports: RouterReports = field(default_factory=RouterReports)
    """What the routers say of the Experts."""
    now: Callable[[], datetime] = field(default=utc_now)
