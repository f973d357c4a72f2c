"""The pictures of the page in docs/: `.venv/bin/python -m tests.unit.router.screenshot`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import uvloop

from dev.paths import REPO
from tests.unit.router.browser import Browser, browser
from tests.unit.router.lab import KEY, LAST, STREAM, Lab, Received, chunk, event, table_of

EXPERTS = """
- kind: Expert
  metadata: {name: sql}
  spec:
    type: Adapter
    sourceRef: {kind: FineTuneJob, name: sql}
    inferenceServiceRef: {name: smol}
    version: 1.2.0
    routing: {keywords: [{pattern: join}, {pattern: query}], domains: [sql, databases]}
- kind: Expert
  metadata: {name: python}
  spec:
    type: Adapter
    sourceRef: {kind: FineTuneJob, name: python}
    inferenceServiceRef: {name: smol}
    version: 0.4.1
    routing: {keywords: [{pattern: traceback}], domains: [python, query]}
- kind: Expert
  metadata: {name: general}
  spec:
    type: Model
    artifact: {uri: "pvc://models/smol"}
    inferenceServiceRef: {name: smol}
    routing: {fallback: true}
"""
PROMPT = "Write a query that counts the orders of each customer, those without any too."
ANSWER = """SELECT c.id, count(o.id) AS orders
FROM customers c
LEFT JOIN orders o ON o.customer_id = c.id
GROUP BY c.id;"""
SCREENS = {
    "router-page.png": {"width": 1100, "height": 840, "dark": False},
    "router-page-phone.png": {"width": 390, "height": 844, "dark": True},
}


async def answer(received: Received) -> None:
    """What the engine says."""
    await received.send(STREAM + b"".join(chunk(event(line)) for line in [ANSWER.replace("\n", "\\n")]))
    await received.send(chunk(b"data: [DONE]\n\n") + LAST)


async def take(chromium: Browser, folder: Path) -> None:
    """Use the page once for each screen."""
    async with contextlib.AsyncExitStack() as stack:
        lab = Lab(stack)
        engine = await lab.engine(answer)
        router = await lab.router(engine)
        router.dispatcher.replace_table(table_of(engine.port, experts=EXPERTS))
        for name, screen in SCREENS.items():
            async with chromium.tab() as tab:
                await tab.look(**screen)  # type: ignore[arg-type]
                await tab.open(f"http://127.0.0.1:{router.port}/")
                await tab.type("#key", KEY)
                await tab.click("#login button")
                await tab.until("document.querySelectorAll('#experts tr').length === 4")
                await tab.type("#prompt", PROMPT)
                await tab.click("#send")
                await tab.until("!!document.querySelector('#scores .won') && document.getElementById('stop').disabled")
                (folder / name).write_bytes(await tab.picture())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as found:
        uvloop.run(take(found, REPO / "docs"))
