"""Debian's Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from dev.chromium import ensure_chromium

DEADLINE = 60.0
"""Of every wait: the browser's start, a reload, a text that must come. A busy machine needs some of it."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers; only our own page is opened
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # it talks to this machine only
    "--remote-debugging-port=0",
)


class PageError(Exception):
    """What the page threw, or refused."""


class Tab:
    """One page, and all that it asked for and complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.requests: list[str] = []
        """The addresses of what it fetched."""
        self.complaints: list[str] = []
        """Errors of scripts, and what its policy forbade."""

    async def read(self) -> None:
        """Take what the browser says, for ever."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                waiting = self._waiting.pop(said["id"])
                if not waiting.done():
                    waiting.set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["source"] == "security":
                self.complaints.append(said["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(DEADLINE):
            said = await self._waiting[number]
        if "error" in said:
            raise PageError(f"{method}: {said['error']}")
        return said["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise PageError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && document.getElementById('notice').textContent")

    async def until(self, condition: str) -> Any:
        """Wait until an expression is true; its value. A page that is being loaded has no answer, or an error."""
        found: Any = None
        try:
            async with asyncio.timeout(DEADLINE):
                while not found or isinstance(found, PageError):
                    try:
                        found = await self.run(condition)
                    except PageError as error:
                        found = error
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.run("document.body.innerText")
            raise AssertionError(f"not true in {DEADLINE:.0f} s but {found}: {condition}\n{text}") from None
        return found

    async def text(self, selector: str) -> str:
        found: str = await self.run(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    async def type(self, selector: str, text: str) -> None:
        """Put the cursor there, and type as a keyboard does."""
        await self.run(f"document.querySelector({json.dumps(selector)}).select()")
        await self.call("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def choose(self, selector: str, value: str) -> None:
        where, what = json.dumps(selector), json.dumps(value)
        await self.run(f"document.querySelector({where}).value = {what}")
        assert await self.run(f"document.querySelector({where}).value") == value, f"{selector} has no {value}"

    async def look(self, *, width: int, height: int, dark: bool) -> None:
        """Be a screen of that size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        return b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with its profile in *folder*."""
    argv = (ensure_chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield Browser(_port(folder / "DevToolsActivePort", process))
    finally:
        # By the signal that lets it end its own processes first: they write to the folder.
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """A running Chromium."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/json"

    @contextlib.asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """A new page, closed at the end."""
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{self._base}/new?about:blank") as answer:
                target = await answer.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                reading = asyncio.ensure_future(tab.read())
                try:
                    yield tab
                finally:
                    reading.cancel()
                    async with session.get(f"{self._base}/close/{target['id']}") as answer:
                        await answer.read()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that it has chosen, once it says so."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= 2:
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError(f"Chromium has not begun to listen in {DEADLINE:.0f} s")
