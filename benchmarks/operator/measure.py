"""The operator at a real API server, beside an operator of ten lines: the table of docs/performance.md in one run.

    .venv/bin/python benchmarks/operator/measure.py --out FOLDER

The API server is one of its own, without controllers and without a kubelet. The result is JSON and a picture;
benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import life  # noqa: E402 - the repository comes first: its folders are no packages of the environment
from picture import draw  # noqa: E402
from server import Server, install, together, until  # noqa: E402
from subject import Operator, Subject, yardstick  # noqa: E402

from dev.cluster.apiserver import api_server  # noqa: E402
from largeforge.kube.cluster import FINETUNEJOBS, JOBS, Manifest  # noqa: E402
from largeforge.kube.transport import open_transport  # noqa: E402

NAMESPACES = ("yard", "ours", "burst", "yard-burst", "life", "many", "foreign")
RESYNC_SECONDS = 40.0
"""Of the operator that is idle, so that a resync is seen; what one costs is then counted as in 300 s."""
SHIPPED_RESYNC_SECONDS = 300.0
WRITES = ("create", "patch", "update", "delete")
CHATTER = ("events", "leases")
QUIET_SECONDS = 15.0

Figures = dict[str, float]


async def latencies(server: Server, namespace: str, count: int) -> Figures:
    """One FineTuneJob at a time: from the answer to its creation until its Job is there."""
    found = []
    for number in range(count):
        name = f"one-{number}"
        before = await server.count(JOBS, namespace)
        await server.finetunejob(namespace, name)
        began = time.perf_counter()

        async def there(before: int = before) -> bool:
            return await server.count(JOBS, namespace) > before

        await until(there, f"the Job of {name}", every=0.002)
        found.append((time.perf_counter() - began) * 1e3)
    found.sort()
    return {
        "child_p50_ms": statistics.median(found),
        "child_p99_ms": found[min(len(found) - 1, int(0.99 * len(found)))],
    }


async def burst(server: Server, namespace: str, count: int) -> Figures:
    """*count* FineTuneJobs at once: how many Jobs a second come of them."""
    began = time.perf_counter()
    await together([lambda number=number: server.finetunejob(namespace, f"burst-{number}") for number in range(count)])
    created = time.perf_counter() - began

    async def there() -> bool:
        return await server.count(JOBS, namespace) >= count

    await until(there, f"{count} Jobs", seconds=600, every=0.2)
    return {
        "burst_created_per_second": count / created,
        "burst_children_per_second": count / (time.perf_counter() - began),
    }


async def settled(operator: Operator) -> None:
    """Wait until it has asked nothing for three seconds."""
    before, since = operator.requests(without=("leases",)), time.monotonic()

    async def holds() -> bool:
        nonlocal before, since
        now = operator.requests(without=("leases",))
        if now != before:
            before, since = now, time.monotonic()
        return time.monotonic() - since > 3.0

    await until(holds, "a pause of the operator", seconds=600, every=0.5)


async def idle(operator: Operator, objects: int) -> Figures:
    """With *objects* that rest: requests and CPU between two resyncs, and what a resync adds."""
    await until_resync(operator)
    await settled(operator)
    quiet_from, cpu_from, since = operator.requests(without=("leases",)), operator.cpu_seconds(), time.monotonic()
    await asyncio.sleep(QUIET_SECONDS)
    seconds = time.monotonic() - since
    quiet = (operator.requests(without=("leases",)) - quiet_from) / seconds
    cpu = (operator.cpu_seconds() - cpu_from) / seconds
    requests, writes, cpu_before = operator.requests(), operator.requests(*WRITES), operator.cpu_seconds()
    looks = operator.total("reconcile_seconds_count")
    await until_resync(operator)
    await settled(operator)
    resync = operator.requests() - requests
    resync_cpu = operator.cpu_seconds() - cpu_before
    return {
        "objects": objects,
        "resync_requests": resync,
        "resync_writes": operator.requests(*WRITES, without=CHATTER) - writes,
        "resync_looks": operator.total("reconcile_seconds_count") - looks,
        "resync_cpu_seconds": resync_cpu,
        "idle_requests_per_second": quiet + resync / SHIPPED_RESYNC_SECONDS,
        "idle_cpu_percent": 100 * (cpu + resync_cpu / SHIPPED_RESYNC_SECONDS),
    }


async def until_resync(operator: Operator) -> None:
    """Wait for the list with which a resync begins."""
    before = operator.total("api_requests_total", verb="list")

    async def listed() -> bool:
        return operator.total("api_requests_total", verb="list") > before

    await until(listed, "a resync", seconds=4 * RESYNC_SECONDS, every=0.2)


async def ready(operator: Operator) -> float:
    """Seconds from its start until it is ready."""

    async def holds() -> bool:
        return operator.ready()

    await until(holds, "an operator that is ready")
    return time.monotonic() - operator.began


@dataclass
class Bench:
    """One run: its server, its sizes, what runs at the moment and what was found."""

    server: Server
    kubeconfig: Path
    folder: Path
    options: argparse.Namespace
    running: list[Subject] = field(default_factory=list)
    found: dict[str, Figures] = field(default_factory=lambda: {"largeforge": {}, "yardstick": {}})

    def add(self, name: str, figures: Figures) -> None:
        """Keep figures, and say them at once: a run may be cut off."""
        self.found[name] |= {key: round(value, 3) for key, value in figures.items()}
        print(name, json.dumps(self.found[name]), file=sys.stderr, flush=True)

    def operator(self, name: str, namespaces: Sequence[str], resync_seconds: float) -> Operator:
        """Start ours."""
        started = Operator(self.kubeconfig, self.folder / name, namespaces, resync_seconds)
        self.running.append(started)
        return started

    async def measure_yardstick(self) -> None:
        """The ten lines: latency, and the burst."""
        for namespace in ("yard", "yard-burst"):
            subject = yardstick(self.kubeconfig, self.folder / namespace, namespace)
            self.running.append(subject)

            async def watching(subject: Subject = subject) -> bool:
                return subject.says("Starting the watch-stream for finetunejobs")

            await until(watching, "the yardstick")
            await asyncio.sleep(1.0)  # its first list
            if namespace == "yard":
                self.add("yardstick", await latencies(self.server, namespace, self.options.latencies))
            else:
                self.add("yardstick", await burst(self.server, namespace, self.options.burst))
            subject.stop()

    async def measure_few(self) -> tuple[Manifest, list[Manifest]]:
        """Ours without objects, one at a time, a life, a burst; what the life left."""
        operator = self.operator("few", ("ours", "burst", "life"), SHIPPED_RESYNC_SECONDS)
        start = await ready(operator)
        await settled(operator)
        self.add("largeforge", {"start_empty_seconds": start, "memory_empty_mb": operator.resident_mb()})
        self.add("largeforge", await latencies(self.server, "ours", self.options.latencies))
        model, jobs, figures = await life.live(self.server, operator, "life", WRITES, CHATTER)
        self.add("largeforge", figures)
        figures = await burst(self.server, "burst", self.options.burst)
        self.add("largeforge", figures | {"burst_429": operator.total("api_requests_total", code="429")})
        operator.stop()
        return model, jobs

    async def measure_many(self, model: Manifest, jobs: Sequence[Manifest]) -> None:
        """Ours with many that rest, then with many objects of others too."""
        await self.server.copies("many", model, jobs, self.options.objects)
        for part in ("", "_and_foreign"):
            if part:
                await self.server.foreign("foreign", self.options.foreign)
            operator = self.operator(f"many{part}", ("many", "foreign"), RESYNC_SECONDS)
            start = await ready(operator)
            await settled(operator)
            self.add("largeforge", {f"start{part}_seconds": start, f"memory{part}_mb": operator.resident_mb()})
            if not part:
                self.add("largeforge", await idle(operator, await self.server.count(FINETUNEJOBS, "many")))
                self.add("largeforge", {"memory_after_resync_mb": operator.resident_mb()})
            operator.stop()


async def run(options: argparse.Namespace, kubeconfig: Path, folder: Path) -> dict[str, Figures]:
    """All parts, one after the other."""
    os.environ["KUBECONFIG"] = str(kubeconfig)
    install(kubeconfig, NAMESPACES)
    async with open_transport(user_agent="largeforge-benchmark") as transport:
        bench = Bench(Server(transport), kubeconfig, folder, options)
        try:
            for namespace in ("ours", "burst", "life", "many"):
                await bench.server.claims(namespace)
            await bench.measure_yardstick()
            await bench.measure_many(*await bench.measure_few())
        finally:
            for subject in bench.running:
                subject.stop()
    return bench.found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark-operator"), help="for result.json and result.svg")
    parser.add_argument("--latencies", type=int, default=100, help="FineTuneJobs that are made one at a time")
    parser.add_argument("--burst", type=int, default=500, help="FineTuneJobs of the burst")
    parser.add_argument("--objects", type=int, default=1000, help="FineTuneJobs that rest, with two Jobs each")
    parser.add_argument("--foreign", type=int, default=8000, help="pods of others")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, and write what came out."""
    options, began, load = parse(), time.monotonic(), os.getloadavg()
    with api_server() as kubeconfig, tempfile.TemporaryDirectory(prefix="largeforge-bench-") as folder:
        subjects = asyncio.run(run(options, kubeconfig, Path(folder)))
    machine = {"processors": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()}
    result = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "machine": machine,
        "sizes": {name: getattr(options, name) for name in ("latencies", "burst", "objects", "foreign")},
        "subjects": subjects,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "result.svg").write_text(draw(subjects))
    print(json.dumps(subjects, indent=2))


if __name__ == "__main__":
    main()
