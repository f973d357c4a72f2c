"""What the operator counts: every metric of it, in a registry of its own. `docs/metrics.md` is made from it.

Labels hold kinds, verbs, phases, reasons and statuses, which are lists in the code or in the API, and in one metric
namespaces: never the name of an object, so that there are as many series with ten objects as with ten thousand.
"""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.utils import INF

from largeforge import __version__
from largeforge.kube.traffic import Call

REGISTRY = CollectorRegistry()
PREFIX = "largeforge_operator_"
LOOK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, INF)
"""Bounds for a look at an object: from one that found nothing to do, to the longest that is allowed."""
CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, INF)

BUILD = Info("largeforge_operator_build", "The operator's version, and that of its Python.", registry=REGISTRY)
LEADER = Gauge(
    "largeforge_operator_leader",
    "1 where this replica acts, 0 where it stands by for the one that does.",
    registry=REGISTRY,
)
QUEUE_LENGTH = Gauge("largeforge_operator_queue_length", "Objects that wait for a worker.", ["kind"], registry=REGISTRY)
QUEUE_OLDEST = Gauge(
    "largeforge_operator_queue_oldest_seconds",
    "How long the object that has waited longest for a worker has waited; 0 where none waits.",
    ["kind"],
    registry=REGISTRY,
)
FAILING = Gauge(
    "largeforge_operator_failing_objects",
    "Objects whose last look ended with an error, and that are looked at again after a pause.",
    ["kind"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "largeforge_operator_reconcile_seconds",
    "How long a look at an object took, whatever its end.",
    ["kind"],
    buckets=LOOK_SECONDS,
    registry=REGISTRY,
)
RECONCILE_ERRORS = Counter(
    "largeforge_operator_reconcile_errors_total",
    "Looks that ended with an error, by the error's word: of the API server, Timeout, or Mistake (of the operator).",
    ["kind", "reason"],
    registry=REGISTRY,
)
API_REQUESTS = Counter(
    "largeforge_operator_api_requests_total",
    "Requests to the API server, each attempt of one; code is the HTTP status, or none where no answer came.",
    ["verb", "resource", "code"],
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "largeforge_operator_api_request_seconds",
    "From a request to the API server until the head of its answer.",
    ["verb"],
    buckets=CALL_SECONDS,
    registry=REGISTRY,
)
WATCH_RESTARTS = Counter(
    "largeforge_operator_watch_restarts_total",
    "Watches that were begun again; the API server ends each after five minutes.",
    ["resource"],
    registry=REGISTRY,
)
PROGRESS_POSTS = Counter(
    "largeforge_operator_progress_posts_total",
    "Posts of trainers, by the status that answered them.",
    ["code"],
    registry=REGISTRY,
)
PROGRESS_WRITES = Counter(
    "largeforge_operator_progress_writes_total",
    "Writes of progress into a status: ok, conflict, refused or error.",
    ["result"],
    registry=REGISTRY,
)
ProcessCollector(registry=REGISTRY)

BUILD.info({"version": __version__, "python": platform.python_version()})
LEADER.set(1)


def queue_of(kind: str) -> None:
    """Make the series of a queue, so that a rate has a beginning before the first error."""
    RECONCILE_SECONDS.labels(kind)
    for reason in ("ClusterError", "Mistake"):
        RECONCILE_ERRORS.labels(kind, reason)


class ApiCalls:
    """Counts what is asked of the API server; `observe` is what `kube.traffic.tracing` takes."""

    def __init__(self) -> None:
        self._watched: set[str] = set()

    def observe(self, call: Call, code: str, seconds: float) -> None:
        """One request has been answered, or has failed."""
        API_REQUESTS.labels(call.verb, call.resource, code).inc()
        API_SECONDS.labels(call.verb).observe(seconds)
        if call.verb == "watch":
            restarts = WATCH_RESTARTS.labels(call.resource)
            if call.scope in self._watched:
                restarts.inc()
            self._watched.add(call.scope)


CALLS = ApiCalls()
"""Of this process."""
