"""What a router tells the operator of the experts: `GET /report` on its second port, JSON of a `RouterReport`.

The operator finds routers by Services labelled `largeforge.ai/router` in the Experts' namespace and reads with the
report token (`api.keys.report_token`); it writes `Distinct`, `Probed` of External experts and `status.routing` from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from largeforge.api.model import Model


class Overlap(Model):
    """Examples of one expert that the classifier takes for another's."""

    expert: Annotated[str, Field(max_length=63)]
    """The other expert."""
    examples: int
    """How many of this expert's examples it would get."""
    example: Annotated[str, Field(max_length=256)]
    """One of them, cut."""


class RoutingReport(Model):
    """How well an expert's examples tell it from all others, by leave-one-out."""

    examples: int
    """Its examples that were learnt."""
    self_accuracy: float | None = None
    """Share of its examples that go to itself, 0 to 1; None without examples."""
    overlaps: Annotated[list[Overlap], Field(max_length=16)] = []
    """Where the others go, most first."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What its author should know, for example that it has too few examples for a reliable fallback."""


class ProbeReport(Model):
    """How an External expert's endpoint answered the router's last probe."""

    ok: bool
    """Whether it answered a generation."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why not, with the remedy; the endpoint's own words redacted."""
    time: datetime
    """When it was asked."""


class ExpertReport(Model):
    """What one router knows of one Expert."""

    name: Annotated[str, Field(max_length=63)]
    """Its name."""
    generation: int
    """The `metadata.generation` that this was learnt from."""
    routing: RoutingReport | None = None
    """None until the classifier has learnt this generation."""
    probe: ProbeReport | None = None
    """Only of type External."""


class RouterReport(Model):
    """All Experts of the router's namespace."""

    experts: Annotated[list[ExpertReport], Field(max_length=1024)] = []
    """By name."""
