"""The router's configuration: by environment, read once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from largeforge.api.model import StrictModel

PREFIX = "LARGEFORGE_"

Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _split(text: object) -> object:
    return tuple(filter(None, (part.strip() for part in text.split(",")))) if isinstance(text, str) else text


ExternalHosts = Annotated[
    tuple[Annotated[str, Field(max_length=253, pattern=r"^(\*\.)?[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?$")], ...],
    BeforeValidator(_split),
]


class SettingsError(Exception):
    """A variable of the environment is wrong."""


class StartError(Exception):
    """The router cannot start as it is configured."""


class Settings(StrictModel):
    """What a router needs to know before it starts; the variable of each is `LARGEFORGE_` and its name in capitals."""

    namespace: str = "default"
    """The namespace whose Experts and InferenceServices it serves."""
    clients_dir: Path = Path("/etc/largeforge/clients")
    """One file for each client, named as the client, a key on each line."""
    tls_dir: Path | None = None
    """Where `tls.crt` and `tls.key` lie, as a Secret of type kubernetes.io/tls is mounted; without it plain HTTP."""
    namespace_key_file: Path = Path("/etc/largeforge/namespace/key")
    """The namespace's key, from which the engines' keys are derived."""
    allow_unauthenticated: bool = False
    """Whether it may serve everybody where the clients' directory holds no key."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """The longest request body; also what may wait on a connection while a request is being answered."""
    max_head_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024
    """The longest request line and headers together."""
    max_headers: Annotated[int, Field(ge=8)] = 100
    """The most header fields of a request."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """The most connections of clients at a time."""
    max_requests_per_client: Annotated[int, Field(ge=1)] = 1024
    """The most requests of one client at a time, from the end of a request's head to the end of its answer."""
    queue_length: Annotated[int, Field(ge=0, le=100_000)] = 64
    """The most requests that wait for a place of one Expert with `limits.maxConcurrentRequests`."""
    queue_seconds: Seconds = 10
    """How long a request may wait for such a place."""
    load_seconds: Seconds = 5
    """How often each engine is asked how much it has under way."""
    snapshot_file: Path | None = None
    """Where the objects of the last table are kept, for a start while the API server is away; without it, nowhere."""
    external_hosts: ExternalHosts = ()
    """The hosts that External Experts may name, separated by commas; `*.example.com` stands for all below it."""
    external_keys_dir: Path | None = None
    """One file for each External Expert with a key, named as the Expert."""
    external_ca_file: Path | None = None
    """PEM certificates of authorities that are trusted for External Experts, beside the system's."""
    external_probe_seconds: Seconds = 60
    """How often each External Expert is asked for a generation of a few tokens."""
    embedding_model: Path | None = None
    """A folder with `model.onnx` and `tokenizer.json`; without it examples count by their words alone."""
    embedding_seconds: Seconds = 0.25
    """How long a request may wait for the embedding of its text before it is decided without."""
    learning_dir: Path | None = None
    """Where the embeddings of examples are kept; without it in a folder that goes when the router ends."""
    head_seconds: Seconds = 10
    """From a request's first byte to the end of its headers; also from connecting to the first byte."""
    body_idle_seconds: Seconds = 30
    """The longest pause within a request body."""
    keep_alive_seconds: Seconds = 75
    """How long a connection may lie idle between requests."""
    write_stall_seconds: Seconds = 120
    """How long a client may leave an answer unread before it is cut."""
    connect_seconds: Seconds = 3
    """The longest wait for a connection to an engine."""
    first_byte_seconds: Seconds = 600
    """The longest wait for an engine's first byte."""
    chunk_idle_seconds: Seconds = 300
    """The longest pause within an engine's answer."""
    grace_seconds: Seconds = 30
    """How long open requests may go on after SIGTERM."""
    retry_after_seconds: Annotated[int, Field(ge=1)] = 5
    """What Retry-After says of an expert that is not ready."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; `SettingsError` names the one that is wrong. Unknown ones are other programs'."""
        found = {
            name: environment[variable]
            for name in cls.model_fields
            if (variable := PREFIX + name.upper()) in environment
        }
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            raise SettingsError(f"{variable}: {first['msg']} (got {first['input']!r})") from error
