"""What the router's learning does to streams: the time between their pieces, while it learns and while it does not.

    .venv/bin/python benchmarks/router/disturbance.py

The router is a process of its own, as a checkout has it. It shares one processor with what it starts to learn, so that
the two are in each other's way as much as can be. Its table changes on a signal, as it would with the cluster's. The
embeddings of the examples are kept beside the peers from one run to the next, so the first run takes longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop
from engine import Engine
from install import ROOT
from load import Client, quantile, request
from peers import CLIENT_CORE, KEY, Peer, Process, documents, free_port

sys.path.append(str(Path(__file__).resolve().parents[1] / "classifier"))
sys.path.append(str(Path(__file__).resolve().parents[2]))

from costs import many

from dev import embedding

STREAMS, PIECES, EVERY_MS = 64, 100, 20
APART = 0.003
LEARNT = b"learnt from"
"""The log has a line with it for each learning."""
LONGEST_SECONDS = 150.0


class Timed(Client):
    """One that notes when each gap ended, and can be ended in the midst of a stream."""

    found: list[tuple[float, float]] = []
    """Of all streams: when, and how long the gap was."""

    def _piece(self, count: int) -> None:
        before = len(self.gaps)
        super()._piece(count)
        self.found += [(self._last_at, gap) for gap in self.gaps[before:]]

    def close(self) -> None:
        """Read no more."""
        self.done.cancel()
        self._transport.abort()


def tables(engine_port: int) -> list[list[object]]:
    """One with 50 experts x 200 examples, and the same with the examples in another order: all is learnt anew."""
    experts = many()

    def table(step: int) -> list[object]:
        plain, *_, endpoints = documents(engine_port)
        found: list[object] = []
        for expert in experts:
            document: dict[str, Any] = json.loads(json.dumps(plain))
            document["metadata"]["name"] = expert.name
            document["spec"]["routing"] = {"examples": [*expert.examples][::step], "fallback": not found}
            found.append(document)
        return [*found, endpoints]

    return [table(1), table(-1)]


def serve(folder: Path, port: int) -> None:
    """The router, with a table that is the next one after each SIGUSR1."""
    import logging

    from largeforge.router import server, source, table_file
    from largeforge.router.settings import Settings

    async def from_files(path: Path, settings: Settings, publish: source.Publish) -> source.Source:
        del settings
        # As JSON: YAML of 10,000 examples takes half a minute to read.
        turns = cycle([table_file.table(json.loads((path / f"table-{n}.json").read_bytes())) for n in range(2)])
        publish(next(turns))
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: publish(next(turns)))
        return source.Source()

    source.from_file = from_files
    logging.basicConfig(level=logging.INFO)
    options = server.Options("127.0.0.1", port, free_port(), folder)
    uvloop.run(server.run(Settings.from_environment(os.environ), options))


def router(folder: Path, port: int, engine_port: int) -> list[str]:
    """The command that runs `serve`."""
    (folder / "clients").mkdir()
    (folder / "clients" / "team").write_text(KEY + "\n")
    for number, table in enumerate(tables(engine_port)):
        (folder / f"table-{number}.json").write_text(json.dumps(table))
    return [sys.executable, __file__, "--serve", str(folder), str(port)]


async def until_learnt(log: Path, times: int) -> float:
    """When the log has said so that many times."""
    deadline = time.perf_counter() + LONGEST_SECONDS
    while log.read_bytes().count(LEARNT) < times:  # noqa: ASYNC240 - another process writes it; a few lines
        if time.perf_counter() > deadline:
            raise SystemExit(f"nothing was learnt: {log.read_text(errors='replace')[-1000:]}")  # noqa: ASYNC240 - the end
        await asyncio.sleep(0.05)
    return time.perf_counter()


async def run(turns: int, seconds: float) -> dict[str, Any]:
    """Streams without learning and while the router learns, in turns."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    loop = asyncio.get_running_loop()
    engine = await loop.create_server(Engine, "127.0.0.1", 0, backlog=2048)
    kept = ROOT / "learning"
    kept.mkdir(parents=True, exist_ok=True)
    environment = {
        "LARGEFORGE_CLIENTS_DIR": "clients",
        "LARGEFORGE_EMBEDDING_MODEL": str(embedding.model()),
        "LARGEFORGE_LEARNING_DIR": str(kept),
    }
    peer = Peer("largeforge", router, environment=environment)
    quiet: list[tuple[float, float]] = []
    learning: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="largeforge-bench-") as name:
        folder = Path(name) / "router"
        process = await asyncio.to_thread(Process, peer, folder, engine.sockets[0].getsockname()[1])
        try:
            await until_learnt(folder / "log", 1)
            clients = await streams(
                process.port, request(peer.headers, "auto", stream=True, pieces=PIECES, every_ms=EVERY_MS)
            )
            for number in range(turns):
                began = time.perf_counter()
                await asyncio.sleep(seconds)
                changed = time.perf_counter()
                process.signal(signal.SIGUSR1)
                learning.append((changed, await until_learnt(folder / "log", number + 2)))
                quiet.append((began, changed))
                print(f"turn {number + 1} of {turns} done", file=sys.stderr, flush=True)
            for client in clients:
                if client.done.done():
                    client.done.result()  # a stream that failed
                client.close()
        finally:
            await asyncio.to_thread(process.stop)
    return {"without learning": figures(quiet), "while it learns": figures(learning), "load": os.getloadavg()[0]}


async def streams(port: int, data: bytes) -> list[Timed]:
    """Clients that read one stream after the other."""
    found: list[Timed] = []
    for _ in range(STREAMS):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Timed(data, until=float("inf")), "127.0.0.1", port
        )
        found.append(client)
        await asyncio.sleep(APART)
    await asyncio.sleep(1)
    return found


def figures(spans: list[tuple[float, float]]) -> dict[str, float]:
    """Of the gaps that ended in one of *spans*."""
    gaps = [gap * 1000 for at, gap in Timed.found if any(begin <= at < end for begin, end in spans)]
    return {
        "seconds": round(sum(end - begin for begin, end in spans), 1),
        "gaps": len(gaps),
        **{f"gap p{100 * share:g} ms": round(quantile(gaps, share), 2) for share in (0.5, 0.99, 0.999)},
        "longest gap ms": round(max(gaps), 2),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn without learning")
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"), help="be the router that is measured")
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
    else:
        print(json.dumps(uvloop.run(run(options.turns, options.seconds)), indent=1))


if __name__ == "__main__":
    main()
