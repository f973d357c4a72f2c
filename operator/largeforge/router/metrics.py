"""What the router counts: once for each request, in plain dictionaries that are read when Prometheus asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

NO_EXPERT = ""


class Metrics(Collector):
    """Counts of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: dict[tuple[str, str, str], int] = {}
        self.in_flight = 0
        self.retries = 0
        self._table_at = clock()
        self._experts = 0

    def count(self, expert: str, reason: str, code: str) -> None:
        """A request has ended: with an HTTP status, `gone` (the client left) or `cut` (the engine broke off)."""
        key = (expert, reason, code)
        self._requests[key] = self._requests.get(key, 0) + 1

    def table_changed(self, routes: int) -> None:
        """A new route table is in use."""
        self._table_at = self._clock()
        self._experts = routes

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        requests = CounterMetricFamily(
            "largeforge_router_requests",
            "Requests that ended, by expert, by the reason it was chosen, and by HTTP status, gone or cut.",
            labels=("expert", "reason", "code"),
        )
        for key, value in sorted(self._requests.items()):
            requests.add_metric(key, value)
        yield requests
        yield CounterMetricFamily(
            "largeforge_router_retries", "Second attempts, on another pod or connection.", value=self.retries
        )
        yield GaugeMetricFamily("largeforge_router_in_flight", "Requests under way at engines.", value=self.in_flight)
        yield GaugeMetricFamily("largeforge_router_routes", "Names that can be asked for.", value=self._experts)
        yield GaugeMetricFamily(
            "largeforge_router_table_age_seconds",
            "Time since the route table last changed.",
            value=self._clock() - self._table_at,
        )

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry
