"""`docs/router-api.md`: the router's paths, headers and errors, from its code; `make generate` writes it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dev.paths import REPO
from largeforge.router import classifier, dispatch, http1, page, scan
from largeforge.router.defaults import Operation

PAGE = REPO / "docs" / "router-api.md"
_ROUTER = REPO / "operator" / "largeforge" / "router"

_HEAD = """\
<!-- Generated from operator/largeforge/router by `make generate`. -->
# The router's API

Port 8080, or that of its Service. [The router](router.md) says what each part is for; a request or an answer that
is not named here is OpenAI's, as the engine speaks it.

## Paths

Every path but those of the page needs `Authorization: Bearer <key>`. All others are 404, another method is 405.

| request | answer |
| --- | --- |
"""
_ANSWERS = {
    Operation.CHAT: "the engine's, streamed or not",
    Operation.COMPLETIONS: "the engine's, streamed or not",
    Operation.RESPONSES: "the engine's, streamed or not; with `previous_response_id` an Expert must be named",
    Operation.EMBEDDINGS: "the engine's; an Expert or InferenceService must be named",
}
_REASONS = {
    "pinned": "the Expert was named",
    "base": "the InferenceService was named",
    classifier.KEYWORD: "its keywords and domains fit",
    classifier.EXAMPLES: "what was learnt of its examples fits",
    classifier.HYBRID: "both, or only both together",
    classifier.CONVERSATION: "the conversation stays with its Expert",
    classifier.FALLBACK: "nobody fits",
}
_HEADERS = """
## Headers of a routed answer

| header | value |
| --- | --- |
| `x-largeforge-expert` | the Expert, or InferenceService, that answered |
| `x-largeforge-reason` | why it was chosen, below |
| `x-largeforge-score` | 0.00 to 1.00; 1.00 where it was named |

| reason | |
| --- | --- |
"""
_ERRORS = """
## Errors of the router's own

Their body is OpenAI's: `{"error": {"message", "type", "param", "code"}}`. An engine's own are handed on as they
came, but for those that [the router](router.md#what-happens-when-something-breaks) names. «…» stands for a name, a
number or a cause.

| status | code | type | message | headers |
| --- | --- | --- | --- | --- |
"""
_MAKERS = {
    "unavailable": (503, "server_error", None, ("retry-after",)),
    "too_many": (429, "rate_limit_error", "rate_limit_exceeded", ("retry-after",)),
    "invalid": (400, "invalid_request_error", None, ()),
}
"""Functions that make an error of a message: status, type, code and headers of it."""
_TYPES = {"SERVER": "server_error", "INVALID": "invalid_request_error", "RATE_LIMITED": "rate_limit_error"}


@dataclass(frozen=True, order=True)
class Error:
    """One row of the table."""

    status: int
    code: str
    kind: str
    message: str
    headers: tuple[str, ...] = ()


def errors() -> set[Error]:
    """Each error that the router's code makes; without its words only where no other has its status and code."""
    found = {
        error
        for path in sorted(_ROUTER.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (error := _error(node, node.func.id))
    }
    worded = {(error.status, error.code) for error in found if error.message != "…"}
    return {error for error in found if error.message != "…" or (error.status, error.code) not in worded}


def _error(call: ast.Call, maker: str) -> Error | None:
    """What *call* makes; None where it is no error, or a maker that hands on what its caller says."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if maker == "ApiError":
        status, message = call.args[0], _words(call.args[1])
        number = status.value if isinstance(status, ast.Constant) else None
        kind, code, headers = _TYPES["INVALID"], None, _keys(given.get("headers"))
    elif maker in _MAKERS:
        number, kind, code, headers = _MAKERS[maker]
        message = _words(call.args[0])
    else:
        return None
    match given.get("kind"):
        case ast.Name(id=name):
            kind = _TYPES[name]
    match given.get("code"):
        case ast.Constant(value=str(text)):
            code = text
        case None:
            pass
        case _:
            return None
    if not isinstance(number, int) or (code is None and message == "…"):
        return None
    return Error(number, code or "", kind, message, headers)


def _words(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return "…"


def _keys(node: ast.expr | None) -> tuple[str, ...]:
    match node:
        case ast.Dict(keys=keys):
            return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
    return ()


def _paths() -> Iterator[str]:
    for operation in Operation:
        yield f"| `POST {operation.value.decode()}` | {_ANSWERS[operation]} |"
    yield f"| `POST {dispatch.ROUTE.decode()}` | which Expert a chat would get, and why; nothing is generated |"
    yield f"| `GET {dispatch.MODELS.decode()}` | `auto` and every name that the client may ask for |"
    yield f"| `GET {dispatch.MODEL.decode()}{{id}}` | one of them |"
    files = ", ".join(f"`{path.decode()}`" for path in page.FILES)
    yield f"| `GET` {files} | the page to try it with |"


def _names(names: Iterable[bytes]) -> str:
    return ", ".join(f"`{name.decode()}`" for name in sorted(names))


def _travelling() -> Iterator[str]:
    yield "\n## What of a request reaches an engine\n"
    yield "The body's bytes, with the name of the model replaced; the client's headers, but for:\n"
    yield f"- {_names(http1.NOT_UPSTREAM)};"
    yield f"- all that begin with {_names(http1.ROUTING)};"
    yield "- those that `Connection` names.\n"
    yield f"A server outside of the cluster gets {_names(http1.OUTSIDE)} of them and no others.\n"
    yield f"Of an engine's answer {_names(http1.NOT_DOWNSTREAM)} and `x-largeforge-*` are dropped.\n"
    members = ", ".join(f"`{name}`" for name in scan.AUTHORITY)
    yield f"Members of a body that are refused (`forbidden_member`): {members}."


def render() -> str:
    """The whole page."""
    reasons = "\n".join(f"| `{reason}` | {text} |" for reason, text in _REASONS.items())
    rows = "\n".join(
        f"| {e.status} | {f'`{e.code}`' if e.code else ''} | {e.kind} | {e.message.replace('|', chr(92) + '|')} "
        f"| {', '.join(f'`{h}`' for h in e.headers)} |"
        for e in sorted(errors())
    )
    return "\n".join([_HEAD + "\n".join(_paths()), _HEADERS + reasons, _ERRORS + rows, *_travelling(), ""])


def main() -> None:
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
