"""Why a question goes where it goes: the router's own account, without an answer."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from largeforge.cli import table
from largeforge.cli.router import Router
from largeforge.cli.session import CliError


async def explained(router: Router, question: str, *, model: str) -> dict[str, Any]:
    """What `POST /v1/route` says of *question*."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    async with router.post("/v1/route", body) as response:
        try:
            answer = json.loads(await response.read())
        except ValueError as exc:
            raise CliError(f"{router.url} answers no JSON; give a LargeForge router's address with --router") from exc
    if not isinstance(answer, dict) or answer.get("object") != "largeforge.route":
        raise CliError(f"{router.url} is no LargeForge router; give one's address with --router")
    return answer


def told(answer: dict[str, Any]) -> list[Text]:
    """*answer* for people: the choice, the scores by their parts, and what did not count."""
    runner_up = f"; next: {answer['runner_up']}" if answer.get("runner_up") else ""
    first = Text.assemble((answer["expert"], "bold"), f" ({answer['reason']}, {answer['score']:.2f}){runner_up}")
    said = [first, Text(f"embedding: {answer['embedding']}; fallback: {answer.get('fallback') or 'none'}")]
    scores = answer["scores"]
    if scores:
        parts = list(scores[0]["parts"])
        header = ["EXPERT", "SCORE", "THRESHOLD", *(part.upper() for part in parts)]
        rows = [
            [s["expert"], f"{s['score']:.2f}", _figure(s["threshold"]), *(_figure(s["parts"][p]) for p in parts)]
            for s in scores
        ]
        said += [Text(), *table.lines(header, rows)]
    return said + [Text(f"ignored {_what(each)}: {each['why']}", style="dim") for each in answer["ignored"]]


def _what(ignored: dict[str, str]) -> str:
    return ignored.get("expert") or ignored.get("part") or "?"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
