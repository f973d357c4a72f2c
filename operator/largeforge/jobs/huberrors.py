"""What the hub's refusals mean, and what to do about each."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from largeforge.api.names import ExitCode, Reason
from largeforge.jobs.errors import RunError


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for."""

    uri: str
    field: str
    owner: str
    """The object of the spec that holds revision, config, split and secretRef."""
    revision: str
    has_token: bool


class HubUnauthorizedError(RunError):
    """401: no token, or one that the hub does not know."""

    reason = Reason.HUB_UNAUTHORIZED
    exit_code = ExitCode.INVALID_CONFIG


class HubForbiddenError(RunError):
    """403: the token may not, or a licence is to be accepted."""

    reason = Reason.HUB_FORBIDDEN
    exit_code = ExitCode.INVALID_CONFIG


class HubNotFoundError(RunError):
    """404: there is no such repository, revision or file."""

    reason = Reason.HUB_NOT_FOUND
    exit_code = ExitCode.INVALID_CONFIG


class PassingError(RunError):
    """Trouble that time may cure."""

    def __init__(self, message: str, *, field: str | None = None, wait_seconds: float | None = None) -> None:
        super().__init__(message, field=field)
        self.wait_seconds = wait_seconds


class HubRateLimitedError(PassingError):
    """429."""

    reason = Reason.HUB_RATE_LIMITED


class HubUnreachableError(PassingError):
    """No answer, or one of 5xx."""

    reason = Reason.HUB_UNREACHABLE


class CacheFullError(RunError):
    """There is no room for what is to be downloaded."""

    reason = Reason.DISK_FULL


def told_apart(error: BaseException, asked: Asked) -> RunError | None:
    """*error* of huggingface_hub as one of ours, or None for what it is not known for."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    if response is not None:
        return _of_status(response.status_code, response.headers, error, asked)
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return told_apart(error.__cause__, asked)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachableError(f"{asked.uri}: HF_HUB_OFFLINE is set in this pod; remove it", field=asked.field)
    if isinstance(error, (*_transport_errors(), errors.LocalEntryNotFoundError, errors.FileMetadataError)):
        return HubUnreachableError(
            f"{asked.uri}: the hub cannot be reached ({type(error).__name__}); see hub.endpoint of the chart, and the"
            " network policy of the pod",
            field=asked.field,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheFullError(
            f"{asked.uri}: the disk filled up during the download; see spec.cache.uri", field=asked.field
        )
    return None


def _of_status(status: int, headers: Mapping[str, str], error: BaseException, asked: Asked) -> RunError | None:
    code = headers.get("X-Error-Code", "")
    secret = f"{asked.owner}.secretRef"
    if status == 429:
        wait = _seconds(headers)
        after = f" for {wait:.0f} s" if wait is not None else ""
        return HubRateLimitedError(
            f"{asked.uri}: the hub asks to wait{after} (429); use a token ({secret}), or a mirror (hub.endpoint)",
            field=asked.field,
            wait_seconds=wait,
        )
    if status >= 500:
        return HubUnreachableError(f"{asked.uri}: the hub answers {status}; it is tried again", field=asked.field)
    if status == 403 or code == "GatedRepo":
        return _forbidden(code, secret, asked)
    if status == 401:
        return _unauthorized(secret, asked)
    if status == 404:
        return _not_found(code, error, asked)
    return HubUnreachableError(f"{asked.uri}: the hub answers {status}; see hub.endpoint", field=asked.field)


def _forbidden(code: str, secret: str, asked: Asked) -> RunError:
    if code == "GatedRepo" and not asked.has_token:
        remedy = f"accept its licence on the hub and name the Secret with your token in {secret}"
    elif code == "GatedRepo":
        remedy = f"accept its licence on the hub with the account whose token {secret} holds"
    else:
        remedy = f"give the token in {secret} the right to read it"
    what = "is gated" if code == "GatedRepo" else "may not be read with this token"
    return HubForbiddenError(f"{asked.uri}: {what} (403); {remedy}", field=secret)


def _unauthorized(secret: str, asked: Asked) -> RunError:
    if asked.has_token:
        text = f"the hub does not take the token of {secret}; put a valid one into the Secret"
    else:
        text = f"does not exist, or is private; correct the uri, or name the Secret with the hub's token in {secret}"
    return HubUnauthorizedError(f"{asked.uri}: {text} (401)", field=secret)


def _not_found(code: str, error: BaseException, asked: Asked) -> RunError:
    kind = type(error).__name__
    if code == "RevisionNotFound" or kind == "RevisionNotFoundError":
        return HubNotFoundError(
            f"{asked.uri}: has no revision {asked.revision[:64]!r} (404); correct it or leave it out",
            field=f"{asked.owner}.revision",
        )
    if code == "EntryNotFound" or kind == "RemoteEntryNotFoundError":
        return HubNotFoundError(
            f"{asked.uri}: a file of it is not there (404); choose another revision", field=asked.field
        )
    return HubNotFoundError(f"{asked.uri}: there is no such repository (404); correct the uri", field=asked.field)


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the client's transport raises: httpx2 under huggingface_hub 2, httpx under 1, which the quantizer has."""
    found = (importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name))
    return tuple(module.TransportError for module in found)
