"""What an expert's author should know of its examples: which of them the classifier takes for another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from largeforge.api.routerreport import Overlap, RoutingReport
from largeforge.router.learnt import FEW, Learnt, Lesson
from largeforge.router.rows import rows_of
from largeforge.router.text import canonical

MOST_OVERLAPS = 16
MOST_MESSAGE = 1024
_SHOWN = 256


def reports_of(lessons: Sequence[Lesson], learnt: Learnt | None) -> Mapping[str, RoutingReport]:
    """The report of each expert, by leave-one-out over the examples of all."""
    rows = rows_of(lessons)
    reports = {}
    for lesson in lessons:
        taken: list[tuple[str, str]] = []
        if learnt is not None and lesson.expert in learnt.experts:
            column = learnt.experts.index(lesson.expert)
            begin, end = rows.starts[column], rows.starts[column + 1]
            by = [learnt.experts[other] for other in learnt.taken_by[begin:end]]
            taken = list(zip(rows.texts[begin:end], by, strict=True))
        reports[lesson.expert] = _report(lesson, taken)
    return reports


def _report(lesson: Lesson, taken: Sequence[tuple[str, str]]) -> RoutingReport:
    """From each text that was learnt, and the expert that would get it."""
    lost = [(text, other) for text, other in taken if other != lesson.expert]
    counts = Counter(other for _, other in lost)
    return RoutingReport(
        examples=len(taken),
        self_accuracy=1 - len(lost) / len(taken) if taken else None,
        overlaps=[
            Overlap(expert=other, examples=count, example=_as_written(lesson, lost, other)[:_SHOWN])
            for other, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_OVERLAPS]
        ],
        message="; ".join((*_about(len(taken)), *lesson.notes))[:MOST_MESSAGE],
    )


def _about(examples: int) -> list[str]:
    if not examples:
        return ["no examples: only keywords and domains bring it requests of model 'auto'"]
    if examples < FEW:
        return [
            f"{examples} examples are too few to tell what fits no expert, so the fallback is not reliable:"
            f" give at least {FEW}, better 20"
        ]
    return []


def _as_written(lesson: Lesson, lost: Sequence[tuple[str, str]], other: str) -> str:
    """The first of the lost texts, in its author's words."""
    first = next(text for text, by in lost if by == other)
    return next(text for text in lesson.examples if canonical(text) == first)
