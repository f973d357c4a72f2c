"""What a client is told when an engine, or the way to it, fails."""

from __future__ import annotations

from largeforge.router.openai import SERVER, ApiError, too_many, unavailable
from largeforge.router.settings import Settings
from largeforge.router.table import Route


def no_pod(route: Route, settings: Settings, why: str) -> ApiError:
    """503: no pod can answer at the moment."""
    return unavailable(
        f"'{route.name}' cannot answer: {why}; try again",
        code="engine_unavailable",
        retry_after_seconds=settings.retry_after_seconds,
    )


def bad_gateway(why: str) -> ApiError:
    """502: an engine's answer is none that can be handed on."""
    return ApiError(502, why, kind=SERVER, code="engine_error")


def silent(settings: Settings) -> ApiError:
    """504: the engine took the request and said nothing."""
    seconds = settings.first_byte_seconds
    return ApiError(504, f"the engine sent nothing for {seconds:g} s", kind=SERVER, code="engine_timeout")


def too_slow(route: Route) -> ApiError:
    """504: the Expert's own time is over."""
    return ApiError(
        504,
        f"'{route.name}' has not begun to answer within {route.timeout_seconds:g} s, its spec.limits.timeoutSeconds",
        kind=SERVER,
        code="request_timeout",
    )


def no_place(route: Route, settings: Settings) -> ApiError:
    """429: the Expert had as many requests under way as it may, for as long as one may wait."""
    return too_many(
        f"expert '{route.name}' had no place for the request within {settings.queue_seconds:g} s; try again, or raise"
        " its spec.limits.maxConcurrentRequests",
        retry_after_seconds=settings.retry_after_seconds,
    )
