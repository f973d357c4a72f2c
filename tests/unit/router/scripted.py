"""An engine that answers as vLLM would, from what it is asked; the text of an answer says what the engine got."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.router.lab import ENGINE_KEY, LAST, STREAM, Received, chunk, whole

ECHOED = ("model", "stop", "seed", "response_format", "temperature", "tools", "tool_choice", "logprobs", "n")
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Köln"}'}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}


def asked(body: dict[str, Any]) -> str:
    """What the engine got, as the text of its answer."""
    return json.dumps({name: body[name] for name in ECHOED if name in body}, sort_keys=True)


async def engine(received: Received) -> None:
    """Answer by the path."""
    assert received.headers["authorization"] == f"Bearer {ENGINE_KEY}"
    path = received.head.split(b" ", 2)[1].decode()
    body = json.loads(received.body)
    if path == "/v1/embeddings":
        found: dict[str, Any] = {
            "object": "list",
            "model": body["model"],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }
        found["data"] = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
        await received.send(whole(json.dumps(found).encode()))
    elif path == "/v1/responses":
        await _responses(received, body)
    elif path == "/v1/completions":
        choice = {"index": 0, "text": body["prompt"].upper(), "finish_reason": "stop", "logprobs": None}
        found = {"id": "c", "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice]}
        await received.send(whole(json.dumps(found).encode()))
    elif body.get("stream"):
        await _stream(received, body)
    else:
        await received.send(whole(json.dumps(_completion(body)).encode()))


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": asked(body)}
    if body.get("tools"):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": LOGPROBS if body.get("logprobs") else None,
            "finish_reason": "tool_calls" if body.get("tools") else "stop",
        }
        for index in range(body.get("n") or 1)
    ]
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": choices,
        "usage": USAGE,
    }


async def _stream(received: Received, body: dict[str, Any]) -> None:
    """Pieces of what the user said, cut where a character may be in two."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if body.get("tools"):
        half = len(CALL["function"]["arguments"]) // 2
        first, rest = CALL["function"]["arguments"][:half], CALL["function"]["arguments"][half:]
        deltas += [
            {"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": first}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": rest}}]},
        ]
    else:
        deltas += [{"content": word} for word in body["messages"][-1]["content"].split(" ")]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    events = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(head | {"choices": [], "usage": USAGE})
    data = b"".join(b"data: %b\n\n" % json.dumps(e, ensure_ascii=False).encode() for e in events) + b"data: [DONE]\n\n"
    await received.send(STREAM)
    for at in range(0, len(data), 37):
        await received.send(chunk(data[at : at + 37]))
    await received.send(LAST)


async def _responses(received: Received, body: dict[str, Any]) -> None:
    text = f"{body.get('instructions')}: {body['input']}"
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    item["content"] = [{"type": "output_text", "text": text, "annotations": []}]
    found = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": body["model"]}
    found |= {"output": [item], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    found |= {"usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
    if not body.get("stream"):
        await received.send(whole(json.dumps(found).encode()))
        return
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "sequence_number": n, "delta": word, "logprobs": []} | place
        for n, word in enumerate(text.split(" "))
    ]
    events.append({"type": "response.completed", "sequence_number": len(events), "response": found})
    await received.send(STREAM)
    for event in events:
        await received.send(chunk(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())))
    await received.send(LAST)
