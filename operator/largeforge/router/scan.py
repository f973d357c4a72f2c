"""One validating look at a request body: `model`, `stream`, and the exact bytes to replace.

msgspec validates the whole JSON text without building it. Where the model's value lies, and that no key comes twice,
is then seen from the bytes: by searching for `"model"` where that is unambiguous (nearly always), else by walking the
members of the top object.
"""

from __future__ import annotations

import re

import msgspec

from largeforge.router.openai import ApiError

MAX_DEPTH = 64

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = rb"[ \t\r\n]*+"


def _nested(levels: int) -> bytes:
    """What may stand inside brackets that hold at most *levels* of brackets more. Possessive, so it is linear."""
    inside = rb'(?:[^\[\]{}"]++|' + _STRING + rb")*+"
    for _ in range(levels):
        inside = rb'(?:[^\[\]{}"]++|' + _STRING + rb"|[\[{]" + inside + rb"[\]}])*+"
    return inside


_MEMBER = re.compile(
    _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE
    # The top object is one level, the value's own brackets are the next.
    + rb"(" + _STRING + rb"|[\[{]" + _nested(MAX_DEPTH - 2) + rb'[\]}]|[^\[\]{}",\s]++)' + _SPACE + rb"[,}]",
    re.DOTALL,
)  # fmt: skip
_VALUE = re.compile(_SPACE + rb":" + _SPACE + rb"(" + _STRING + rb")", re.DOTALL)
_MODEL_KEY = b'"model"'
_STREAM_KEY = b'"stream"'
_ESCAPED_ASCII = b"\\u00"
"""Only with this can a key be `model` without being spelled so."""


class _Envelope(msgspec.Struct):
    """The members that the router looks at; all others are validated as JSON and skipped."""

    model: str
    stream: bool | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")
    prompt: msgspec.Raw = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_messages = msgspec.json.Decoder(list[_Message])
_content = msgspec.json.Decoder(str | list[_Part] | None)
_prompt = msgspec.json.Decoder(str | list[msgspec.Raw] | None)


class Call:
    """A request body that was found to be valid."""

    __slots__ = ("_envelope", "body", "end", "model", "start", "stream")

    def __init__(self, body: bytes, envelope: _Envelope, span: tuple[int, int]) -> None:
        self.body = body
        self.model = envelope.model
        self.stream = envelope.stream is True
        self.start, self.end = span
        self._envelope = envelope

    def with_model(self, value: bytes) -> tuple[bytes | memoryview, ...]:
        """The original bytes, with *value* (JSON) in the model's place; without copying the long ones."""
        view = memoryview(self.body)
        return view[: self.start], value, view[self.end :]

    def length_with_model(self, value: bytes) -> int:
        """The length of `with_model`."""
        return len(self.body) - (self.end - self.start) + len(value)

    def user_text(self) -> str:
        """The text of the last user message, or the prompt; empty where there is none, or only token ids."""
        try:
            messages = _messages.decode(self._envelope.messages)
        except msgspec.ValidationError:
            return self._prompt_text()
        for message in reversed(messages):
            if message.role == "user":
                return _text(message.content)
        return ""

    def _prompt_text(self) -> str:
        try:
            prompt = _prompt.decode(self._envelope.prompt)
            if isinstance(prompt, list):
                prompt = "\n".join(msgspec.json.decode(part, type=str) for part in prompt)
        except msgspec.ValidationError:
            return ""
        return prompt or ""


def _text(content: msgspec.Raw) -> str:
    try:
        decoded = _content.decode(content)
    except msgspec.ValidationError:
        return ""  # not OpenAI's shape: the engine says so better than we could
    if isinstance(decoded, list):
        return "\n".join(part.text for part in decoded if part.text is not None)
    return decoded or ""


def scan(body: bytes) -> Call:
    """The call that *body* is, or an `ApiError` 400 that says what is wrong with it."""
    try:
        if not body.isascii():
            body.decode()
        envelope = _envelope.decode(body)
    except UnicodeDecodeError as error:
        raise _invalid(f"the request body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.ValidationError as error:
        raise _wrong_member(str(error)) from error
    except msgspec.DecodeError as error:
        raise _invalid(f"the request body is not valid JSON: {error}") from error
    shallow = body.count(b"{") + body.count(b"[") <= MAX_DEPTH
    span = _unambiguous_span(body) if shallow and _ESCAPED_ASCII not in body else None
    return Call(body, envelope, span or _walk(body))


def _unambiguous_span(body: bytes) -> tuple[int, int] | None:
    """Where the model's value lies, if `"model"` and `"stream"` stand in the text so rarely that nothing can be double.

    The text is valid JSON with a key `model` at its top that is not written with escapes. A `"` without a backslash
    before it begins a string here, since after one that ends a string no `m` may follow. So a single hit is that key.
    """
    at = body.find(_MODEL_KEY)
    if body[at - 1] == 0x5C or body.find(_MODEL_KEY, at + 1) >= 0:
        return None
    stream = body.find(_STREAM_KEY)
    if stream >= 0 and body.find(_STREAM_KEY, stream + 1) >= 0:
        return None
    found = _VALUE.match(body, at + len(_MODEL_KEY))
    return found.span(1) if found else None


def _walk(body: bytes) -> tuple[int, int]:
    """Where the model's value lies, member by member; refuses double keys and deep nesting."""
    spans: dict[str, tuple[int, int]] = {}
    at = body.index(b"{") + 1
    while True:
        member = _MEMBER.match(body, at)
        if member is None:  # it is valid JSON, so only the depth can be wrong
            raise _too_deep()
        key = msgspec.json.decode(member.group(1), type=str)
        if key in ("model", "stream"):
            if key in spans:
                raise _invalid(f"the request body has '{key}' twice; send it once", param=key)
            spans[key] = member.span(2)
        at = member.end()
        if body[at - 1] == 0x7D:
            return spans["model"]


def _invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def _too_deep() -> ApiError:
    return _invalid(f"the request body is nested deeper than {MAX_DEPTH} levels")


def _wrong_member(message: str) -> ApiError:
    if "missing required field" in message:
        return _invalid(
            "you must provide a model: set \"model\" to 'auto' or to a name of GET /v1/models",
            param="model",
            code="missing_required_parameter",
        )
    param = next((name for name in ("model", "stream") if f"$.{name}" in message), None)
    # msgspec names the expected and the found type, and never quotes the text.
    return _invalid(f"the request body is not as expected: {message}", param=param, code="invalid_type")
