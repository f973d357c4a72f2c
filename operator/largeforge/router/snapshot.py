"""The objects of the last table in a file, for a start while the API server is away.

It holds what the table is built from, and no key: the engines' keys are derived from the namespace's, which is mounted.
The file lies on the pod's own volume, so it is as old as the pod at most, and gone with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService

FORMAT = 1
MOST_BYTES = 64 * 1024 * 1024


class SnapshotError(Exception):
    """The file cannot be used."""


@dataclass(frozen=True, slots=True)
class Objects:
    """What a table is built from."""

    experts: list[Expert]
    services: list[InferenceService]
    slices: list[Mapping[str, Any]]


def write(path: Path, namespace: str, objects: Objects, *, now: float | None = None) -> None:
    """Replace the file at once, so that a reader finds the old one or the new one whole."""
    text = json.dumps(
        {
            "format": FORMAT,
            "namespace": namespace,
            "written": time.time() if now is None else now,
            "experts": [expert.manifest() for expert in objects.experts],
            "inferenceservices": [service.manifest() for service in objects.services],
            "endpointslices": [_slice(item) for item in objects.slices],
        }
    )
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def read(path: Path, namespace: str, *, now: float | None = None) -> tuple[Objects, float] | None:
    """The objects and their age in seconds; None where there is no file, `SnapshotError` where it cannot be used."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(str(error)) from error
    if len(raw) > MOST_BYTES:
        raise SnapshotError(f"more than {MOST_BYTES} bytes")
    try:
        found = json.loads(raw)
        if found["format"] != FORMAT or found["namespace"] != namespace:
            raise SnapshotError(f"format {found['format']} of namespace {found['namespace']!r}")
        objects = Objects(
            [Expert.model_validate(item) for item in found["experts"]],
            [InferenceService.model_validate(item) for item in found["inferenceservices"]],
            [_slice(item) for item in found["endpointslices"]],
        )
        age = (time.time() if now is None else now) - float(found["written"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"not as it was written: {_first(error)}") from error
    return objects, max(0.0, age)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return type(error).__name__


def _slice(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of an EndpointSlice the table looks at."""
    endpoints: Iterable[Mapping[str, Any]] = item.get("endpoints") or ()
    return {
        "metadata": {"name": item["metadata"].get("name", ""), "labels": item["metadata"].get("labels") or {}},
        "addressType": item.get("addressType", ""),
        "ports": [{key: port.get(key) for key in ("name", "port")} for port in item.get("ports") or ()],
        "endpoints": [
            {
                "addresses": endpoint.get("addresses") or [],
                "conditions": {"ready": (endpoint.get("conditions") or {}).get("ready")},
                "targetRef": {"uid": (endpoint.get("targetRef") or {}).get("uid", "")},
            }
            for endpoint in endpoints
        ],
    }
