"""The router beside its peers: what each adds to an engine that costs nothing, in one run and in turns.

    python benchmarks/router/install.py
    .venv/bin/python benchmarks/router/measure.py --out FOLDER

The client and the engine are this process, on one core; the router that is measured is on the other. Every round asks
each router in turn, so that what else the machine does falls on all alike. The result is JSON and a picture;
benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from engine import NEVER_MS, Engine
from load import LoadError, quantile, request, together
from peers import CLIENT_CORE, Peer, Process, StartError, peers
from picture import draw

STREAMS, PIECES, EVERY_MS = 64, 100, 20
APART_SECONDS = 0.003
"""Between the starts of streams: else the first token waits for the other 63 requests."""
MANY = 1000
LEAVERS = 25
"""Clients that leave, in each phase and round."""
NEVER_SECONDS = 5.0
PHASES = ("uploading", "before headers", "between chunks", "not streaming")
_marks = itertools.count(1)

Figures = dict[str, float | str | None]


@dataclass
class Subject:
    """One that is measured: a router that runs, or the engine itself."""

    name: str
    peer: Peer
    port: int
    process: Process | None
    samples: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def ask(self, **options: int | bool | None) -> bytes:
        """A request as it wants it."""
        return request(self.peer.headers, self.peer.model, **options)  # type: ignore[arg-type]

    def cpu(self) -> float:
        """Of the router's processes."""
        return self.process.cpu_seconds() if self.process is not None else 0.0

    def add(self, name: str, value: float) -> None:
        """Keep one figure of one round."""
        self.samples.setdefault(name, []).append(value)


Part = Callable[[Subject, float], Awaitable[None]]


async def throughput(subject: Subject, seconds: float) -> None:
    """16 clients, 1 KB, no stream."""
    before = subject.cpu()
    result = await together(subject.port, subject.ask(), clients=16, seconds=seconds)
    count = len(result.seconds)
    subject.add("requests_per_second", count / result.elapsed)
    subject.add("cpu_us_per_request", (subject.cpu() - before) / count * 1e6)


async def latency(subject: Subject, seconds: float) -> None:
    """One client."""
    result = await together(subject.port, subject.ask(), clients=1, seconds=seconds)
    subject.add("latency_p50_ms", quantile(result.seconds, 0.5) * 1e3)
    subject.add("latency_p99_ms", quantile(result.seconds, 0.99) * 1e3)


async def streams(subject: Subject, seconds: float) -> None:
    """64 at once, 50 pieces a second each."""
    pieces = max(1, int(PIECES * seconds))
    data = subject.ask(stream=True, pieces=pieces, every_ms=EVERY_MS)
    before = subject.cpu()
    result = await together(subject.port, data, clients=STREAMS, count=1, apart=APART_SECONDS)
    if result.pieces < STREAMS * pieces:
        raise LoadError(f"{result.pieces} of {STREAMS * pieces} pieces came")
    subject.add("cpu_us_per_chunk", (subject.cpu() - before) / result.pieces * 1e6)
    subject.add("ttft_p50_ms", quantile(result.firsts, 0.5) * 1e3)
    subject.add("ttft_p99_ms", quantile(result.firsts, 0.99) * 1e3)
    subject.add("gap_p99_ms", quantile(result.gaps, 0.99) * 1e3)


async def prompts(subject: Subject, seconds: float) -> None:
    """220 KB, streamed, 32 at once."""
    data = subject.ask(size=220 * 1024, stream=True, pieces=2)
    before = subject.cpu()
    result = await together(subject.port, data, clients=32, seconds=seconds)
    subject.add("prompts_per_second", len(result.seconds) / result.elapsed)
    subject.add("cpu_us_per_prompt", (subject.cpu() - before) / len(result.seconds) * 1e6)


async def memory(subject: Subject, seconds: float) -> None:
    """1,000 streams that are open at once."""
    del seconds
    if subject.process is None:
        return
    before = subject.process.memory_bytes()
    data = subject.ask(stream=True, pieces=1000, every_ms=500)
    writers = []
    try:
        async with asyncio.timeout(40):
            for _ in range(MANY // 50):
                opened = await asyncio.gather(*(_first_piece(subject.port, data) for _ in range(50)))
                writers += opened
        subject.add("kib_per_stream", (subject.process.memory_bytes() - before) / MANY / 1024)
    finally:
        for writer in writers:
            writer.transport.abort()
    await asyncio.sleep(0.5)


async def _first_piece(port: int, data: bytes) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await reader.readuntil(b"data: {")
    return writer


async def leaving(subject: Subject, seconds: float) -> None:
    """Clients that go away, in each of four phases: how long until the engine's connection is closed."""
    del seconds
    for phase in PHASES:
        found = await asyncio.gather(*(_leave(subject, phase) for _ in range(LEAVERS)))
        for value in found:
            subject.add(f"closed_ms: {phase}", value * 1e3)


async def _leave(subject: Subject, phase: str) -> float:
    mark = next(_marks)
    every = 50 if phase == "between chunks" else NEVER_MS
    data = subject.ask(stream=phase not in ("not streaming", "uploading"), pieces=1000, every_ms=every, mark=mark)
    reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
    if phase == "uploading":
        writer.write(data[:-100])
        await asyncio.sleep(0.05)
        if mark not in Engine.seen:  # it waits for the whole body, so nothing is there to close
            writer.transport.abort()
            return 0.0
    else:
        writer.write(data)
        if phase == "between chunks":
            await reader.readuntil(b"data: {")
        deadline = time.perf_counter() + NEVER_SECONDS
        while mark not in Engine.seen and time.perf_counter() < deadline:  # noqa: ASYNC110 - it costs the engine nothing
            await asyncio.sleep(0.001)
    left = time.perf_counter()
    writer.transport.abort()
    while mark not in Engine.closed and time.perf_counter() - left < NEVER_SECONDS:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    return max(0.0, Engine.closed.get(mark, left + NEVER_SECONDS) - left)  # some are done with the engine before


PARTS: dict[str, tuple[Part, int]] = {
    "throughput": (throughput, 5),
    "latency": (latency, 5),
    "streams": (streams, 3),
    "prompts": (prompts, 3),
    "leaving": (leaving, 1),
    "memory": (memory, 1),
}
"""Each with its rounds."""


async def start(wanted: Sequence[str], folder: Path) -> list[Subject]:
    """The engine itself, and each router that can be started, ready to answer."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0, backlog=2048)
    engine_port = server.sockets[0].getsockname()[1]
    known = peers(engine_port)
    subjects = [Subject("direct", Peer("direct", lambda *_: []), engine_port, None)]
    for name in wanted:
        peer = known[name]
        if not peer.installed:
            _say(f"{name}: not installed; run benchmarks/router/install.py {name}")
            continue
        try:
            process = await asyncio.to_thread(Process, peer, folder / name, engine_port)
        except StartError as error:
            _say(str(error))
            continue
        subject = Subject(name, peer, process.port, process)
        subjects.append(subject)
        await _warm(subject)
    return subjects


async def _warm(subject: Subject) -> None:
    """Ask until it answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            await together(subject.port, subject.ask(), clients=4, seconds=0.2)
        except (LoadError, OSError) as error:
            if time.monotonic() > deadline:
                raise StartError(f"{subject.name} does not answer: {error}") from error
            await asyncio.sleep(0.3)
        else:
            _say(f"{subject.name}: ready")
            return


async def run(options: argparse.Namespace) -> dict[str, object]:
    """All parts, in rounds."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="largeforge-bench-") as folder:
        subjects: list[Subject] = []
        try:
            subjects = await start(options.peers, Path(folder))
            for name in options.only:
                part, rounds = PARTS[name]
                for number in range(1 if options.quick else rounds):
                    for subject in subjects:
                        if time.monotonic() - began > options.minutes * 60:
                            _say(f"{name}: the time is over; what follows is missing")
                            return report(subjects, options, began)
                        await _measure(subject, name, part, 0.3 if options.quick else 1.0)
                    _say(f"{name}: round {number + 1} done after {time.monotonic() - began:.0f} s")
        finally:
            for subject in subjects:
                if subject.process is not None:
                    await asyncio.to_thread(subject.process.stop)
    return report(subjects, options, began)


async def _measure(subject: Subject, name: str, part: Part, seconds: float) -> None:
    try:
        await part(subject, seconds)
    except (LoadError, OSError, asyncio.IncompleteReadError) as error:
        subject.problems.append(f"{name}: {type(error).__name__} {error}"[:200])
        _say(f"{subject.name}: {name}: {type(error).__name__} {str(error)[:150]}")


def report(subjects: Sequence[Subject], options: argparse.Namespace, began: float) -> dict[str, object]:
    """The table of docs/performance.md, and what it is made from."""
    direct = subjects[0]
    return {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "machine": {"processors": os.cpu_count(), "load": os.getloadavg(), "quick": options.quick},
        "routers": {subject.name: figures(subject, direct) for subject in subjects},
        "samples": {subject.name: subject.samples for subject in subjects},
        "problems": {subject.name: subject.problems for subject in subjects if subject.problems},
    }


def figures(subject: Subject, direct: Subject) -> Figures:
    """The medians of the rounds; of latencies what comes on top of the engine's own in the same round."""
    found: Figures = {"version": subject.peer.version}
    for name, values in subject.samples.items():
        if name.startswith("closed_ms"):
            slowest = quantile(values, 0.99)
            found[f"{name} p99"] = "never" if slowest >= NEVER_SECONDS * 1e3 else round(slowest, 2)
        elif name.endswith("_ms"):
            base = direct.samples[name]
            added = [value - before for value, before in zip(values, base, strict=False)]
            found[f"added_{name}"] = round(statistics.median(added), 3)
        else:
            found[name] = round(statistics.median(values), 2)
    if "requests_per_second" in subject.samples:
        pairs = zip(subject.samples["requests_per_second"], direct.samples["requests_per_second"], strict=False)
        found["share_of_no_hop"] = round(statistics.median(mine / none for mine, none in pairs), 3)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = list(peers(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark-router"), help="folder for result.json, result.svg")
    parser.add_argument("--peers", nargs="+", choices=known, default=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="one short round of each: shows that it works")
    parser.add_argument("--minutes", type=float, default=10, help="stop after so long, with what there is (default 10)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, and write what came out."""
    options = parse()
    result = uvloop.run(run(options))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "result.svg").write_text(draw(result["routers"]))  # type: ignore[arg-type]
    print(json.dumps(result["routers"], indent=2))


if __name__ == "__main__":
    main()
