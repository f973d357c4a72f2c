"""`python -m largeforge.router.learner`: learn from lessons, beside the router and not in it.

Reads a `Task` as JSON from standard input, writes what was learnt to the task's file and the experts' reports as JSON
to standard output, and ends. So learning takes no
time of the event loop, its memory goes when it ends, and what breaks it does not break the router.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from largeforge.router import learntfile
from largeforge.router.embedcache import EmbedCache
from largeforge.router.embedding import EmbeddingError, whole_words
from largeforge.router.fit import learn
from largeforge.router.learnt import Lesson
from largeforge.router.lessonreport import reports_of

EX_UNAVAILABLE = 69


class Task(msgspec.Struct):
    """What to learn, and where to."""

    lessons: list[Lesson]
    output: str
    """The file; none is written where there is no example."""
    model: str | None = None
    cache: str = ""
    """The file of embeddings, used where there is a model."""


def main() -> int:
    """Learn; 0 when the file is there or nothing is to be learnt."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        embed = EmbedCache(Path(task.cache), Path(task.model)) if task.model else None
        learnt = learn(task.lessons, embed, words=whole_words(Path(task.model)) if task.model else ())
    except EmbeddingError as error:
        sys.stderr.write(f"{error}\n")
        return EX_UNAVAILABLE
    if learnt is not None:
        learntfile.write(Path(task.output), learnt)
    reports = {expert: report.manifest() for expert, report in reports_of(task.lessons, learnt).items()}
    sys.stdout.buffer.write(msgspec.json.encode(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
