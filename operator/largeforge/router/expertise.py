"""What an Expert says of the messages that it wants, as the classifier reads it."""

from __future__ import annotations

from largeforge.api.expert import Expert
from largeforge.router.classifier import STICKINESS, THRESHOLD, Rule
from largeforge.router.classify import DOMAIN_WEIGHT, Pattern
from largeforge.router.expressions import fault
from largeforge.router.learnt import Lesson


def patterns(expert: Expert) -> tuple[Pattern, ...]:
    """What speaks for it in a text."""
    routing = expert.spec.routing
    return (
        *(Pattern(keyword.pattern, keyword.type, keyword.weight) for keyword in routing.keywords),
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
    faults = (
        f"spec.routing.keywords[{index}].pattern is left out: {why}"
        for index, keyword in enumerate(routing.keywords)
        if keyword.type == "Regex" and (why := fault(keyword.pattern))
    )
    return Lesson(expert.metadata.name, tuple(routing.examples), tuple(routing.negative_examples), tuple(faults))
