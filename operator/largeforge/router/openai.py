"""OpenAI's wire format, as far as the router speaks it itself: errors and the list of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

AUTO = "auto"
"""The model name that asks the router to choose."""

INVALID = "invalid_request_error"
SERVER = "server_error"
RATE_LIMITED = "rate_limit_error"

_ECHO_CHARACTERS = 64


class ApiError(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(  # noqa: PLR0913 - the four members of OpenAI's shape, status and headers
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The error as JSON."""
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
        )


def shown(text: str) -> str:
    """What of a client's *text* may stand in an error: at most 64 printable characters."""
    clean = "".join(c if c.isprintable() else "?" for c in text[: _ECHO_CHARACTERS + 1])
    return clean if len(clean) <= _ECHO_CHARACTERS else clean[: _ECHO_CHARACTERS - 1] + "…"


def unavailable(message: str, *, code: str, retry_after_seconds: int) -> ApiError:
    """503: what time may cure."""
    return ApiError(
        503, message, kind=SERVER, code=code, param="model", headers={"retry-after": str(retry_after_seconds)}
    )


def too_many(message: str, *, retry_after_seconds: int) -> ApiError:
    """429: the client, or an expert, has as many requests under way as it may."""
    return ApiError(
        429,
        message,
        kind=RATE_LIMITED,
        code="rate_limit_exceeded",
        headers={"retry-after": str(retry_after_seconds)},
    )


def unknown_model(name: str) -> ApiError:
    """404: no object has this name."""
    return ApiError(
        404, f"no ready expert named '{shown(name)}'; see GET /v1/models", code="model_not_found", param="model"
    )


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What LargeForge says of a name beside OpenAI's members."""

    kind: str
    domains: tuple[str, ...] = ()
    version: str | None = None
    fallback: bool = False


class Unready(msgspec.Struct, frozen=True, omit_defaults=True):
    """An Expert that is there and cannot answer."""

    id: str
    message: str
    domains: tuple[str, ...] = ()
    version: str | None = None


class ModelCard(msgspec.Struct, frozen=True):
    """One entry of `GET /v1/models`."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "largeforge"
    largeforge: About | msgspec.UnsetType = msgspec.UNSET


def model_list(cards: Iterable[ModelCard], unready: Iterable[Unready] = ()) -> bytes:
    """The answer to `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": list(cards), "largeforge": {"unready": list(unready)}})


def model_card(card: ModelCard) -> bytes:
    """The answer to `GET /v1/models/{id}`."""
    return msgspec.json.encode(card)
