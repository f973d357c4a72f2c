"""An engine that speaks vLLM's own API for adapters, below the end-to-end tests only: it computes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

BASE_TOKENS = {1: -0.5, 2: -1.5, 3: -3.0, 4: -4.0, 5: -5.0}
ADAPTER_TOKENS = {1: -2.0, 2: -0.1, 3: -3.0, 4: -4.0, 5: -5.0}
TOKENS = [1, 2, 3]


@dataclass
class Stub:
    """What it serves, and what it was asked."""

    base: str
    key: str = ""
    adapters: dict[str, str] = field(default_factory=dict)
    """Where each lies, by name."""
    asked: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.key = request.headers.get("Authorization", "")
        answers = {
            "/v1/models": self._models,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/tokenize": self._tokenize,
            "/v1/chat/completions": self._complete,
        }
        answer = answers.get(request.path)
        if answer is None:
            return _error(404, "Not Found")
        if request.path != "/v1/models":
            self.asked.append(f"{request.path} {body.get('lora_name') or body.get('model')}")
        return answer(body)

    def _models(self, _: Any) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in (self.base, *self.adapters)]})

    def _load(self, body: Any) -> web.Response:
        name = body["lora_name"]
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        self.adapters[name] = body["lora_path"]
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: Any) -> web.Response:
        if self.adapters.pop(body["lora_name"], None) is None:
            return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return web.Response(text="Success")

    def _tokenize(self, _: Any) -> web.Response:
        return web.json_response({"count": len(TOKENS), "tokens": TOKENS})

    def _complete(self, body: Any) -> web.Response:
        name = body["model"]
        if name != self.base and name not in self.adapters:
            return _error(404, f"The model `{name}` does not exist.")
        likeliest = ADAPTER_TOKENS if name in self.adapters else BASE_TOKENS
        top = [{"token": f"token_id:{token}", "logprob": value} for token, value in likeliest.items()]
        choice = {"message": {"content": "Hi"}, "logprobs": {"content": [{"top_logprobs": top}]}}
        return web.json_response({"choices": [choice]})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


@asynccontextmanager
async def serving(stub: Stub) -> AsyncIterator[int]:
    """The stub on a port of 127.0.0.1."""
    runner = web.ServerRunner(web.Server(stub), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
