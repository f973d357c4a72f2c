"""What an Expert says of the messages that it wants, as the classifier reads it."""

from __future__ import annotations

from largeforge.api.expert import Expert
from largeforge.router.classifier import STICKINESS, THRESHOLD, Rule
from largeforge.router.classify import DOMAIN_WEIGHT, Pattern
from largeforge.router.expressions import faults
from largeforge.router.learnt import Lesson


def patterns(expert: Expert) -> tuple[Pattern, ...]:
    """What speaks for it in a text; expressions that cannot be used do not."""
    routing, unusable = expert.spec.routing, _unusable(expert)
    return (
        *(
            Pattern(keyword.pattern, keyword.type, keyword.weight)
            for index, keyword in enumerate(routing.keywords)
            if index not in unusable
        ),
        *(Pattern(domain, "Word", DOMAIN_WEIGHT) for domain in routing.domains),
    )


def rule(expert: Expert) -> Rule:
    """What it says of its own scores."""
    routing = expert.spec.routing
    return Rule(
        THRESHOLD if routing.threshold is None else routing.threshold,
        STICKINESS if routing.stickiness is None else routing.stickiness,
        routing.priority,
    )


def lesson(expert: Expert) -> Lesson:
    """What is learnt of it."""
    routing = expert.spec.routing
    notes = (f"spec.routing.keywords[{index}].pattern is left out: {why}" for index, why in _unusable(expert).items())
    return Lesson(expert.metadata.name, tuple(routing.examples), tuple(routing.negative_examples), tuple(notes))


def _unusable(expert: Expert) -> dict[int, str]:
    """The places of the keywords that are left out, and why."""
    keywords = expert.spec.routing.keywords
    places = [index for index, keyword in enumerate(keywords) if keyword.type == "Regex"]
    found = faults([keywords[index].pattern for index in places])
    return {index: why for index, why in zip(places, found, strict=True) if why}
