"""Questions to the engine beside us: is it there, and how likely is each token of a window. Needs no torch."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from largeforge.api.names import Reason
from largeforge.api.redact import redact
from largeforge.jobs.quantizeerrors import EvaluationError, EvaluationRefusedError

WAIT_SECONDS = 300.0
"""How long an engine that was there may be silent; the kubelet has seen it answer before this container began."""
ANSWER_SECONDS = 600.0
"""How long one window may take: 512 tokens of a large model on a few busy cores."""
TRIES = 3
"""The engine's container may be started again in the middle; each try waits for it."""
_POLL_SECONDS = 1.0
_SAID = 300
"""Characters of the engine's own words."""


class EngineSilentError(EvaluationError):
    """The engine does not answer."""

    reason = Reason.ENGINE_SILENT


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine of OpenAI's API, without LoRA: one with LoRA dies of the question for log-probabilities."""

    url: str
    model: str
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self, seconds: float = WAIT_SECONDS) -> None:
        """Return when the engine answers; raise when it has not for *seconds*."""
        until = self.now() + seconds
        while True:
            try:
                status, _ = self._ask("GET", "/health", None, timeout=10)
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
            else:
                if status == 200:
                    return
                why = f"it answers {status}"
            if self.now() >= until:
                raise EngineSilentError(
                    f"the engine has not answered for {seconds:.0f} s ({why}); see the log of the container engine"
                )
            self.sleep(_POLL_SECONDS)

    def score(self, window: Sequence[int]) -> list[float]:
        """The log-probability of each token of *window* but the first."""
        body = {
            "model": self.model,
            "prompt": list(window),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }
        for left in reversed(range(TRIES)):
            try:
                status, text = self._ask("POST", "/v1/completions", json.dumps(body), timeout=ANSWER_SECONDS)
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    raise EngineSilentError(
                        f"the engine ended in the middle of a window ({type(error).__name__}), {TRIES} times; see the"
                        " log of the container engine"
                    ) from None
                self.wait()
                continue
            if status != 200:
                kind = EvaluationRefusedError if 400 <= status < 500 else EvaluationError
                raise kind(f"the engine answered {status}: {_said(text)}")
            return _logprobs(text, window)
        raise AssertionError("unreachable")

    def _ask(self, method: str, path: str, body: str | None, *, timeout: float) -> tuple[int, bytes]:
        target = urlsplit(self.url)
        # Not urllib: a proxy of the environment is not asked for an address of this pod.
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _logprobs(text: bytes, window: Sequence[int]) -> list[float]:
    """What the engine says of each token: a list of `{token id: {logprob}}`, null for the first."""
    try:
        (choice,) = json.loads(text)["choices"]
        entries: list[dict[str, Any] | None] = choice["prompt_logprobs"]
        return [float(_of(entry, token)) for entry, token in zip(entries[1:], window[1:], strict=True)]
    except (ValueError, KeyError, TypeError, IndexError):
        raise EvaluationRefusedError(
            "the engine's answer has no prompt_logprobs for each token; its version is not one that was tested"
        ) from None


def _of(entry: dict[str, Any] | None, token: int) -> float:
    if entry is None:
        raise ValueError("a token without a log-probability")
    found: float = entry[str(token)]["logprob"]
    return found


def _said(text: bytes) -> str:
    """The engine's own words."""
    try:
        return redact(str(json.loads(text)["error"]["message"]), limit=_SAID)
    except (ValueError, KeyError, TypeError):
        return redact(text.decode(errors="replace"), limit=_SAID)
