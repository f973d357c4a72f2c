"""What each feature of the router costs: CPU of a request with all of them, and with each left out, in turns.

.venv/bin/python benchmarks/router/features.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop
from engine import Engine
from load import request, together
from peers import CLIENT_CORE, LIMITS, Peer, Process, documents, peers, router

DEFAULTS = {"systemPrompt": "Answer in one sentence.", "topP": 0.9, "topK": 20}


def variants(engine_port: int) -> dict[str, Peer]:
    """The router as `measure.py` has it, and with one thing changed."""
    whole = peers(engine_port)["largeforge"]

    def table(**options: object) -> Callable[[Path, int, int], list[str]]:
        made = documents(engine_port, **{"limits": LIMITS, **options})  # type: ignore[arg-type]
        return lambda folder, port, _: router(folder, port, made)

    def unlocked(folder: Path, port: int, engine: int) -> list[str]:
        argv = whole.argv(folder, port, engine)
        (folder / "clients" / "team").unlink()
        return argv

    def plain(folder: Path, port: int, _: int) -> list[str]:
        return router(folder, port, documents(engine_port, limits=LIMITS), compiled=False)

    nobody = {**whole.environment, "LARGEFORGE_ALLOW_UNAUTHENTICATED": "true"}
    return {
        "all": whole,
        "the Expert named, no keywords looked for": replace(whole, model="expert-7"),
        "auto, but no Expert has a pattern": replace(whole, argv=table(patterns=False)),
        "no keys": replace(whole, argv=unlocked, environment=nobody),
        "no limits": replace(whole, argv=table(limits={})),
        "not compiled": replace(whole, argv=plain),
        "an Expert's defaults besides": replace(whole, argv=table(defaults=DEFAULTS)),
    }


async def run(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The median of the rounds, for each variant."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0, backlog=2048)
    engine_port = server.sockets[0].getsockname()[1]
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="largeforge-bench-") as folder:
        running: list[tuple[str, Process, bytes]] = []
        try:
            for number, (name, peer) in enumerate(variants(engine_port).items()):
                process = await asyncio.to_thread(Process, peer, Path(folder) / str(number), engine_port)
                running.append((name, process, request(peer.headers, peer.model)))
            for number in range(rounds + 1):
                for name, process, data in running:
                    before = process.cpu_seconds()
                    result = await together(process.port, data, clients=16, seconds=seconds)
                    if number:  # the first one warms up
                        spent = (process.cpu_seconds() - before) / len(result.seconds)
                        samples.setdefault(name, []).append(spent * 1e6)
                print(f"round {number} of {rounds} done", file=sys.stderr, flush=True)
        finally:
            for _, process, _ in running:
                await asyncio.to_thread(process.stop)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        name: {"cpuUs": round(value, 1), "beside all": round(value - medians["all"], 1)}
        for name, value in medians.items()
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(run(options.rounds, options.seconds)), indent=2))


if __name__ == "__main__":
    main()
