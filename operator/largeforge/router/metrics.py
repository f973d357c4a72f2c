"""What the router counts: once for each request, in plain dictionaries that are read when Prometheus asks.

Nothing is done for each piece of an answer but to count it and to keep the last few. Names in labels come from the
table, the clients' keys and lists in the code, never from a request.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from largeforge.router.pool import Peer
from largeforge.router.usage import usage_of, without_content

NO_EXPERT = ""
SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds for a first byte, and for a whole request."""
GAP_SECONDS = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
"""Bounds for the time between two pieces of a stream: 15 ms is 67 tokens a second."""


class Ended(Protocol):
    """A request that has ended, as far as it is counted."""

    attempts: int
    faults: tuple[str, ...]
    """What engines did wrong in it: `connect`, `lost`, `silent`, `status`, `refused`, `unknown_model`."""
    began: float
    first: float
    """When the first byte of an answer's content came; 0 where none did."""
    streamed: bool
    """Whether it was an event stream."""
    pieces: int
    """Of an answer that came whole, as they were read; else 0."""
    last: Sequence[bytes]
    """The last few of them."""


class Gates(Protocol):
    """Who waits for a place."""

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many, by Expert."""
        ...


class Pool(Protocol):
    """The pods."""

    @property
    def peers(self) -> Collection[Peer]:
        """Those of now."""
        ...


class Histogram:
    """How often values lay below each of some bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each holds those below it."""
        found, total = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


@dataclass(slots=True)
class _OfExpert:
    """What is counted of one name that can be asked for."""

    duration: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    first: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    gap: Histogram = field(default_factory=lambda: Histogram(GAP_SECONDS))
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Metrics(Collector):
    """Counts of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: dict[tuple[str, str, str], int] = {}
        self._experts: dict[str, _OfExpert] = {}
        self._faults: dict[tuple[str, str], int] = {}
        self._limited: dict[str, int] = {}
        self._embeddings: dict[str, int] = {}
        self.in_flight = 0
        self.retries = 0
        self._table_at = clock()
        self._routes = 0
        self._from_snapshot = False
        self._pool: Pool | None = None
        self._gates: Gates | None = None
        self._connections: Sized = ()

    def observe(self, *, pool: Pool, gates: Gates, connections: Sized) -> None:
        """Read these when Prometheus asks."""
        self._pool, self._gates, self._connections = pool, gates, connections

    def count(self, expert: str, reason: str, code: str) -> None:
        """A request has ended: with an HTTP status, `gone` (the client left) or `cut` (the engine broke off)."""
        key = (expert, reason, code)
        self._requests[key] = self._requests.get(key, 0) + 1

    def ended(self, expert: str, request: Ended) -> None:
        """A request that was meant for an engine has ended, just now."""
        now = self._clock()
        of = self._experts.get(expert)
        if of is None:
            of = self._experts[expert] = _OfExpert()
        of.duration.observe(now - request.began)
        if request.streamed and request.first:
            of.first.observe(request.first - request.began)
            gaps = request.pieces - without_content(request.last) - 1
            if gaps > 0:
                of.gap.observe((now - request.first) / gaps)
        if request.pieces:
            usage = usage_of(request.last)
            if usage is not None:
                of.prompt_tokens += usage.prompt
                of.completion_tokens += usage.completion
        self.retries += request.attempts > 1
        for fault in request.faults:
            self._faults[expert, fault] = self._faults.get((expert, fault), 0) + 1

    def embedded(self, outcome: str) -> None:
        """Texts of a request had to be embedded: `used`, or why it was decided without."""
        self._embeddings[outcome] = self._embeddings.get(outcome, 0) + 1

    def limited(self, client: str) -> None:
        """A client had as many requests under way as it may, and got 429 for one more."""
        self._limited[client] = self._limited.get(client, 0) + 1

    def table_changed(self, routes: int, *, snapshot_age_seconds: float | None = None) -> None:
        """A new route table is in use, perhaps from a snapshot of that age."""
        self._table_at = self._clock() - (snapshot_age_seconds or 0.0)
        self._routes = routes
        self._from_snapshot = snapshot_age_seconds is not None

    def keep(self, experts: Collection[str]) -> None:
        """Forget what was counted of names that are no longer there, so that the series stay as few as the Experts."""
        self._experts = {name: of for name, of in self._experts.items() if name in experts}
        self._faults = {key: count for key, count in self._faults.items() if key[0] in experts}
        known = {*experts, NO_EXPERT}
        self._requests = {key: count for key, count in self._requests.items() if key[0] in known}

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        yield from self._of_requests()
        yield from self._of_engines()
        yield GaugeMetricFamily("largeforge_router_routes", "Names that can be asked for.", value=self._routes)
        yield GaugeMetricFamily(
            "largeforge_router_table_age_seconds",
            "Time since the route table last changed; of one from a snapshot, since that was written.",
            value=self._clock() - self._table_at,
        )
        yield GaugeMetricFamily(
            "largeforge_router_table_from_snapshot",
            "1 while the route table is from the file of the last run, because the API server has not answered yet.",
            value=self._from_snapshot,
        )
        yield GaugeMetricFamily("largeforge_router_connections", "Clients' connections.", value=len(self._connections))

    def _of_requests(self) -> Iterator[Metric]:
        yield _counter(
            "largeforge_router_requests",
            "Requests that ended, by expert, by the reason it was chosen, and by HTTP status, gone or cut.",
            ("expert", "reason", "code"),
            self._requests,
        )
        yield _counter(
            "largeforge_router_embeddings",
            "Requests whose text was not clear without an embedding: used, late, busy or failed.",
            ("outcome",),
            {(outcome,): count for outcome, count in self._embeddings.items()},
        )
        for name, text, of in (
            (
                "largeforge_router_request_duration_seconds",
                "From a request that was read whole to the end of its answer.",
                lambda found: found.duration,
            ),
            (
                "largeforge_router_time_to_first_token_seconds",
                "Of streams: from a request that was read whole to the first byte of its answer's content.",
                lambda found: found.first,
            ),
            (
                "largeforge_router_time_between_chunks_seconds",
                "Of streams that came whole: the mean time between two pieces as they arrived, once for each stream.",
                lambda found: found.gap,
            ),
        ):
            yield self._histogram(name, text, of)
        yield _counter(
            "largeforge_router_tokens",
            "Tokens that engines named in `usage`; a stream has it only where its client asked for it.",
            ("expert", "type"),
            {
                (name, kind): count
                for name, of in self._experts.items()
                for kind, count in (("prompt", of.prompt_tokens), ("completion", of.completion_tokens))
            },
        )
        yield _counter(
            "largeforge_router_client_limited",
            "Requests answered 429 because their client had as many under way as it may.",
            ("client",),
            {(client,): count for client, count in self._limited.items()},
        )
        waiting = sum(self._gates.waiting.values()) if self._gates is not None else 0
        yield GaugeMetricFamily(
            "largeforge_router_in_flight", "Requests under way at engines.", value=self.in_flight - waiting
        )

    def _of_engines(self) -> Iterator[Metric]:
        yield _counter(
            "largeforge_router_upstream_errors",
            "What engines did wrong: connect, lost, silent, status (5xx), refused (401, 403, redirect), unknown_model.",
            ("expert", "kind"),
            self._faults,
        )
        yield CounterMetricFamily(
            "largeforge_router_retries", "Second attempts, on another pod or connection.", value=self.retries
        )
        queue = GaugeMetricFamily(
            "largeforge_router_queue_length", "Requests that wait for a place of an Expert.", labels=("expert",)
        )
        for name, count in sorted(self._gates.waiting.items()) if self._gates is not None else ():
            queue.add_metric((name,), count)
        yield queue
        in_flight = GaugeMetricFamily(
            "largeforge_router_engine_in_flight", "Requests of this router under way at a pod.", labels=("engine",)
        )
        broken = GaugeMetricFamily(
            "largeforge_router_engine_breaker_open", "1 while a pod is left alone after failures.", labels=("engine",)
        )
        # Not `pod`: Prometheus gives that label to the router's own.
        for peer in self._pool.peers if self._pool is not None else ():
            engine = f"{peer.pod.host}:{peer.pod.port}"
            in_flight.add_metric((engine,), peer.in_flight)
            broken.add_metric((engine,), peer.breaker.shut)
        yield in_flight
        yield broken

    def _histogram(self, name: str, text: str, of: Callable[[_OfExpert], Histogram]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=("expert",))
        for expert, found in sorted(self._experts.items()):
            histogram = of(found)
            family.add_metric((expert,), histogram.buckets(), histogram.sum)
        return family

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    """The *counts* by the tuple of their *labels*."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(counts.items()):
        family.add_metric(key, value)
    return family
