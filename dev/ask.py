"""Questions through the router with the official client, shown as they stream."""

from __future__ import annotations

from dataclasses import dataclass

from openai import OpenAI

ANSWER_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and what the router said of its choice."""

    expert: str
    reason: str
    score: str
    text: str


def ask(client: OpenAI, question: str, *, model: str = "auto", show: bool = True) -> Answer:
    """Stream the answer to *question*; printed while it comes where *show*."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=ANSWER_TOKENS,
        temperature=0,
        stream=True,
    )
    headers = {name: raw.headers.get(f"x-largeforge-{name}", "") for name in ("expert", "reason", "score")}
    if show:
        print(
            f"    -> {headers['expert']} (reason {headers['reason']}, score {headers['score']}): ", end="", flush=True
        )
    parts: list[str] = []
    with raw.parse() as stream:
        for chunk in stream:
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                parts.append(text)
                if show:
                    print(text.replace("\n", "\n       "), end="", flush=True)
    if show:
        print(flush=True)
    return Answer(headers["expert"], headers["reason"], headers["score"], "".join(parts))
