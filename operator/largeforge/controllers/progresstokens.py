"""Whose pod a token is: verified here, against the API server's public keys.

TokenReview would need a right over the whole cluster; the keys may be read by every service account.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from pydantic import Field, ValidationError

from largeforge.api.model import Model
from largeforge.api.run import PROGRESS_AUDIENCE
from largeforge.kube.cluster import Cluster

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")
"""What an API server signs with. A key's own algorithm decides, never the token's header."""
DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/openid/v1/jwks"
REFRESH_SECONDS = 600.0
"""After so long the keys are fetched anew, so that one that was withdrawn is not trusted for ever."""
UNKNOWN_SECONDS = 30.0
"""Between two fetches for keys that we do not know: a stranger's tokens must not make us ask again and again."""
LEEWAY_SECONDS = 10.0
"""How far our clock may be behind the API server's, or before it."""


class Untrusted(Exception):  # noqa: N818 - what the token is
    """The token is not the API server's, not for us, or no longer valid."""


@dataclass(frozen=True, slots=True)
class BoundPod:
    """The pod that a token is bound to."""

    namespace: str
    name: str
    uid: str


class _Pod(Model):
    name: str = Field(min_length=1)
    uid: str = Field(min_length=1)


class _Binding(Model):
    namespace: str = Field(min_length=1)
    pod: _Pod


@dataclass(frozen=True, slots=True)
class _Trusted:
    issuer: str
    keys: Mapping[str, jwt.PyJWK]
    fetched: float


@dataclass(slots=True)
class Tokens:
    """Verifies tokens; the keys are fetched when they are first needed."""

    cluster: Cluster
    clock: Callable[[], float] = time.monotonic
    _trusted: _Trusted | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pod_of(self, token: str) -> BoundPod:
        """The pod that *token* is bound to. Raises `Untrusted`, and `ClusterError` where the keys cannot be fetched."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as exc:
            raise Untrusted("the token is no JWT") from exc
        trusted = await self._trusted_with(key_id)
        key = trusted.keys.get(str(key_id))
        if key is None:
            raise Untrusted("the token is signed with a key that this API server does not have")
        return _binding(_claims(token, key, trusted.issuer))

    async def _trusted_with(self, key_id: object) -> _Trusted:
        """What is trusted; fetched anew where it is old, or where it lacks *key_id* and was not just fetched."""
        async with self._lock:
            now, held = self.clock(), self._trusted
            if held is not None:
                age, known = now - held.fetched, str(key_id) in held.keys
                if age < (REFRESH_SECONDS if known else UNKNOWN_SECONDS):
                    return held
            self._trusted = await self._fetch(now)
            return self._trusted

    async def _fetch(self, now: float) -> _Trusted:
        discovery = await self.cluster.document(DISCOVERY)
        keys = await self.cluster.document(KEYS)
        usable: dict[str, jwt.PyJWK] = {}
        for entry in keys.get("keys", []):
            try:
                key = jwt.PyJWK(entry)
            except jwt.PyJWTError as exc:
                log.warning("a key of the API server is passed over: %s", type(exc).__name__)
                continue
            if key.key_id and key.algorithm_name in ALGORITHMS:
                usable[key.key_id] = key
        return _Trusted(str(discovery.get("issuer", "")), usable, now)


def _claims(token: str, key: jwt.PyJWK, issuer: str) -> Mapping[str, Any]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=list(ALGORITHMS),
            audience=PROGRESS_AUDIENCE,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "nbf", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError as exc:
        raise Untrusted(_said(exc)) from exc


def _binding(claims: Mapping[str, Any]) -> BoundPod:
    try:
        bound = _Binding.model_validate(claims.get("kubernetes.io"))
    except ValidationError as exc:
        raise Untrusted("the token is bound to no pod") from exc
    return BoundPod(bound.namespace, bound.pod.name, bound.pod.uid)


def _said(exc: jwt.PyJWTError) -> str:
    """What is wrong, without a word of the token."""
    known: dict[type[jwt.PyJWTError], str] = {
        jwt.ExpiredSignatureError: "the token has expired",
        jwt.InvalidAudienceError: f"the token is not for {PROGRESS_AUDIENCE}",
        jwt.InvalidIssuerError: "the token is of another issuer",
        jwt.InvalidSignatureError: "the token's signature is wrong",
        jwt.ImmatureSignatureError: "the token is not valid yet",
    }
    return known.get(type(exc), "the token is not valid")
