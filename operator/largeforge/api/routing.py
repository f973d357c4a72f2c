"""`Expert.spec.routing`: which requests with `model: auto` an expert gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.model import Model


class Keyword(Model):
    """A pattern in the user's message that speaks for this expert."""

    pattern: Annotated[str, Field(min_length=1, max_length=128)]
    """The text to look for; upper and lower case are the same."""
    type: Literal["Word", "Literal"] = "Word"
    """Word matches whole words only («code» is not in «decode»); Literal matches anywhere."""


class Routing(Model):
    """Which requests with `model: auto` this expert gets."""

    domains: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = []
    """What the expert knows about; each counts as a Word keyword of half the weight."""
    keywords: Annotated[list[Keyword], Field(max_length=256)] = []
    """Patterns that speak for this expert."""
    fallback: bool = False
    """Whether this expert answers where no other fits; one of the namespace, the oldest where several say so."""
    enabled: bool = True
    """Whether the router sends requests to this expert at all."""
