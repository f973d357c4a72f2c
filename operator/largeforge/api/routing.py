"""`Expert.spec.routing`: which requests with `model: auto` an expert gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.model import Model, rules

Example = Annotated[str, Field(min_length=1, max_length=512)]

MOST_EXPRESSIONS = 16


class Keyword(Model):
    """A pattern in the user's message that speaks for this expert."""

    model_config = rules(
        (
            # A pattern that does not compile is an error of the rule, which the API server tells.
            "self.type != 'Regex' || !''.matches(self.pattern)",
            "pattern matches the empty text, so every message; write one that needs at least a character",
        ),
        ("self.weight > 0.0", "weight must be above 0, for example 0.5; remove a keyword that should not count"),
    )

    pattern: Annotated[str, Field(min_length=1, max_length=128)]
    """The text to look for; upper and lower case are the same."""
    type: Literal["Word", "Literal", "Regex"] = "Word"
    """Word matches whole words only («code» is not in «decode»); Literal matches anywhere; Regex is an expression in
    the syntax of RE2, looked for in the first and the last 1,024 characters."""
    weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """How much it says: with weights of w in all the score is w / (w + 0.5), so 0.67 for one keyword of weight 1."""


class Routing(Model):
    """Which requests with `model: auto` this expert gets."""

    model_config = rules(
        (
            f"!has(self.keywords) || self.keywords.filter(k, k.type == 'Regex').size() <= {MOST_EXPRESSIONS}",
            f"keywords: at most {MOST_EXPRESSIONS} may have type Regex; join several with '|', or use Word or Literal",
        ),
        (
            "!has(self.negativeExamples) || self.negativeExamples.size() == 0"
            " || (has(self.examples) && self.examples.size() > 0)",
            "negativeExamples say what is not meant by examples; add examples, or remove them",
        ),
    )

    domains: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = []
    """What the expert knows about; each counts as a Word keyword of half the weight."""
    keywords: Annotated[list[Keyword], Field(max_length=256)] = []
    """Patterns that speak for this expert."""
    examples: Annotated[list[Example], Field(max_length=1000)] = []
    """Messages that this expert should get, as users write them; the router learns from them. Below 8 it cannot tell
    reliably what fits no expert; 20 to 200 are good."""
    negative_examples: Annotated[list[Example], Field(max_length=1000)] = []
    """Messages that are like the examples, and are not for this expert."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Added to the score as thousandths when experts are compared: it decides between those that are close."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The least score, from 0 to 1, with which it gets a request; 0.5 where it is not set."""
    fallback: bool = False
    """Whether this expert answers where no other fits; one of the namespace, the oldest where several say so."""
    enabled: bool = True
    """Whether the router sends requests to this expert at all."""
    stickiness: Annotated[float, Field(ge=0, le=1)] | None = None
    """By how much another expert's score must be higher to take a conversation over; 0.1 where it is not set. With 0
    each message is judged alone."""
