"""One validating look at a request body: `model`, `stream`, what Experts' defaults touch, and where to replace bytes.

msgspec validates the whole JSON text without building it. Where the model's value lies, and that no key comes twice,
is then seen from the bytes: by searching for `"model"` where that is unambiguous (nearly always), else by walking the
members of the top object. Of a long body the prompt is left out of that, so that it costs what the rest is long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec

from largeforge.router.excerpt import text_of
from largeforge.router.members import MAX_DEPTH, SPACE, STRING, invalid, is_shallow, members, too_deep
from largeforge.router.openai import ApiError

_VALUE = re.compile(SPACE + rb":" + SPACE + rb"(" + STRING + rb")", re.DOTALL)
_MODEL_KEY = b'"model"'
_STREAM_KEY = b'"stream"'
_MESSAGES_KEY = b'"messages"'
_PROMPT_KEY = b'"prompt"'
_INPUT_KEY = b'"input"'
_COLON = re.compile(SPACE + rb":" + SPACE)
_ARRAY = re.compile(rb"\[" + SPACE)
LONG_BYTES = 4096
"""From here on it pays to leave the prompt out of a search."""
_SYSTEM = frozenset(("system", "developer"))
_ESCAPED_ASCII = b"\\u00"
"""Only with this can a key be `model` without being spelled so."""


TEMPERATURE, TOP_P, TOP_K, MAX_TOKENS, INSTRUCTIONS = (1 << n for n in range(5))
"""Members that a request may have at its top, as bits of `Call.present`."""


_Never = Annotated[str, msgspec.Meta(min_length=1, max_length=0)]
"""What no value is. So a member that must not be there costs nothing where it is not."""


class _Authority(msgspec.Struct):
    """Members by which other gateways and vLLM's connectors are told where a request goes, or with whose rights."""

    api_base: _Never = ""
    api_key: _Never = ""
    api_type: _Never = ""
    api_version: _Never = ""
    base_url: _Never = ""
    custom_llm_provider: _Never = ""
    extra_headers: _Never = ""
    aws_access_key_id: _Never = ""
    aws_secret_access_key: _Never = ""
    aws_session_token: _Never = ""
    vertex_credentials: _Never = ""
    kv_transfer_params: _Never = ""
    ec_transfer_params: _Never = ""


AUTHORITY = _Authority.__struct_fields__


class _Envelope(_Authority, kw_only=True):
    """The members that the router looks at; all others are validated as JSON and skipped."""

    model: str
    stream: bool | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")
    # Whether they are there is all that matters of these.
    temperature: msgspec.Raw = msgspec.Raw()
    top_p: msgspec.Raw = msgspec.Raw()
    top_k: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: msgspec.Raw = msgspec.Raw()
    max_output_tokens: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()


class Message(msgspec.Struct):
    """A message of a chat."""

    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct):
    type: str = ""
    text: msgspec.Raw = msgspec.Raw(b"null")


_envelope = msgspec.json.Decoder(_Envelope)
_messages = msgspec.json.Decoder(list[Message])
_parts = msgspec.json.Decoder(list[_Part])
_texts = msgspec.json.Decoder(list[msgspec.Raw])


class Call:
    """A request body that was found to be valid."""

    __slots__ = ("_decoded", "_envelope", "_frame", "body", "end", "model", "start", "stream")

    def __init__(self, body: bytes, envelope: _Envelope, frame: _Frame, span: tuple[int, int]) -> None:
        self.body = body
        self.model = envelope.model
        self.stream = envelope.stream is True
        self.start, self.end = span
        self._envelope = envelope
        self._frame = frame
        self._decoded: list[Message] | None = None

    def with_model(self, value: bytes) -> tuple[bytes | memoryview, ...]:
        """The original bytes, with *value* (JSON) in the model's place; without copying the long ones."""
        view = memoryview(self.body)
        return view[: self.start], value, view[self.end :]

    def length_with_model(self, value: bytes) -> int:
        """The length of `with_model`."""
        return len(self.body) - (self.end - self.start) + len(value)

    @property
    def present(self) -> int:
        """Which of the members above stand at the top; one that is null does."""
        envelope = self._envelope
        longest = envelope.max_tokens or envelope.max_completion_tokens or envelope.max_output_tokens
        return (
            (TEMPERATURE if envelope.temperature else 0)
            | (TOP_P if envelope.top_p else 0)
            | (TOP_K if envelope.top_k else 0)
            | (MAX_TOKENS if longest else 0)
            | (INSTRUCTIONS if envelope.instructions else 0)
        )

    @property
    def follows_response(self) -> bool:
        """Whether it goes on from a previous response."""
        previous = self._envelope.previous_response_id
        return bool(previous) and bytes(previous) != b"null"

    @property
    def members_at(self) -> int:
        """Where the first member of the top object may stand; another follows, since there is a model."""
        return self.body.index(b"{") + 1

    @property
    def messages(self) -> list[Message]:
        """The messages of a chat; none where they do not have OpenAI's shape."""
        if self._decoded is None:
            try:
                self._decoded = _messages.decode(self._envelope.messages)
            except msgspec.ValidationError:
                self._decoded = []
        return self._decoded

    @property
    def has_system(self) -> bool:
        """Whether a message is the system's or the developer's."""
        return any(message.role in _SYSTEM for message in self.messages)

    @property
    def messages_at(self) -> int | None:
        """Where the first message stands; None where there is none."""
        if not self.messages:
            return None
        frame = self._frame
        text = frame.text
        at = text.find(_MESSAGES_KEY)
        if at < 0 or text[at - 1] == 0x5C or text.find(_MESSAGES_KEY, at + 1) >= 0 or _ESCAPED_ASCII in text:
            at = members(text)["messages"][0]
        else:
            at = _after(_COLON, text, at + len(_MESSAGES_KEY))
        return _after(_ARRAY, self.body, frame.place(at))

    def user_texts(self, most: int) -> list[str]:
        """The texts of the last user messages, the oldest first; of the prompt or the input where there are none.

        None where there is no text, or only token ids.
        """
        if not self.messages:
            text = self._prompt_text()
            return [text] if text else self._input_texts(most)
        return _user_texts(self.messages, most)

    def _prompt_text(self) -> str:
        prompt = self._envelope.prompt
        try:
            return text_of(prompt)
        except msgspec.ValidationError:
            return _text_of_prompts(prompt)

    def _input_texts(self, most: int) -> list[str]:
        """Of `/v1/responses`: a text, or items of which some are messages."""
        try:
            items = _messages.decode(self._envelope.input)
        except msgspec.ValidationError:
            text = _text(self._envelope.input)
            return [text] if text else []
        return _user_texts(items, most)


def _after(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    """Where *pattern* ends, which is known to be at *at*."""
    found = pattern.match(body, at)
    if found is None:
        raise AssertionError("the body was found to be valid")
    return found.end()


def _user_texts(messages: Sequence[Message], most: int) -> list[str]:
    found: list[str] = []
    for message in reversed(messages):
        if message.role == "user":
            found.append(_text(message.content))
            if len(found) == most:
                break
    return found[::-1]


def _text(content: msgspec.Raw) -> str:
    try:
        return text_of(content)
    except msgspec.ValidationError:  # it has parts, or is none
        return _text_of_parts(content)


def _text_of_prompts(prompt: msgspec.Raw) -> str:
    try:
        return _joined(_texts.decode(prompt))
    except msgspec.ValidationError:
        return ""  # token ids


def _text_of_parts(content: msgspec.Raw) -> str:
    try:
        return _joined(part.text for part in _parts.decode(content))
    except msgspec.ValidationError:
        return ""  # not OpenAI's shape: the engine says so better than we could


def _joined(texts: Iterable[msgspec.Raw]) -> str:
    """One text a line, without those that are null; long ones cut (`text_of`)."""
    return "\n".join(text_of(text) for text in texts if bytes(text) != b"null")


def scan(body: bytes) -> Call:
    """The call that *body* is, or an `ApiError` 400 that says what is wrong with it."""
    try:
        if not body.isascii():
            body.decode()
        envelope = _envelope.decode(body)
    except UnicodeDecodeError as error:
        raise invalid(f"the request body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise too_deep() from error
    except msgspec.ValidationError as error:
        raise _wrong_member(str(error)) from error
    except msgspec.DecodeError as error:
        raise invalid(f"the request body is not valid JSON: {error}") from error
    frame = _frame(body, envelope)
    text = frame.text
    shallow = text.count(b"{") + text.count(b"[") <= MAX_DEPTH
    span = _unambiguous_span(text) if shallow and _ESCAPED_ASCII not in text else None
    start, end = span or members(text)["model"]
    return Call(body, envelope, frame, (frame.place(start), frame.place(end)))


class _Frame(NamedTuple):
    """A valid body, in which one long value may be replaced by a digit."""

    text: bytes
    at: int = 0
    """Where that value begins."""
    more: int = 0
    """How much longer it is."""

    def place(self, index: int) -> int:
        """Where in the body is what stands at *index* in the text; not for what is in the value."""
        return index if index <= self.at else index + self.more


def _frame(body: bytes, envelope: _Envelope) -> _Frame:
    """*body* without what it has of a prompt, if it is long; an `ApiError` 400 where that is too deep.

    A `"messages"` with a colon behind it is a key, whichever object's (see `_unambiguous_span`). Where the same bytes
    follow as the value has, they are a whole value, in which no member of the top object can be.
    """
    if len(body) < LONG_BYTES:
        return _Frame(body)
    key, value = max(
        (_MESSAGES_KEY, envelope.messages),
        (_PROMPT_KEY, envelope.prompt),
        (_INPUT_KEY, envelope.input),
        key=lambda found: len(memoryview(found[1])),
    )
    at = body.find(key)
    found = _COLON.match(body, at + len(key)) if at > 0 and body[at - 1] != 0x5C else None
    if found is None or not body.startswith(memoryview(value), found.end()):
        return _Frame(body)
    start, end = found.end(), found.end() + len(memoryview(value))
    if body[start] in b"[{" and not is_shallow(body, start, end):
        raise too_deep()
    return _Frame(body[:start] + b"0" + body[end:], start, end - start - 1)


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


def _wrong_member(message: str) -> ApiError:
    name = message.rpartition("`$.")[2].rstrip("`")
    if name in AUTHORITY:
        return invalid(
            f"the request body has '{name}', which is not a client's to say here; leave it out",
            param=name,
            code="forbidden_member",
        )
    if "missing required field" in message:
        return invalid(
            "you must provide a model: set \"model\" to 'auto' or to a name of GET /v1/models",
            param="model",
            code="missing_required_parameter",
        )
    param = next((name for name in ("model", "stream") if f"$.{name}" in message), None)
    # msgspec names the expected and the found type, and never quotes the text.
    return invalid(f"the request body is not as expected: {message}", param=param, code="invalid_type")
