"""The labelled set: `python benchmarks/classifier/labelled.py` writes `labelled.jsonl` from the pages in `written/`.

A page of `written/` is one expert's; `none.txt` is what no expert is for. Its head gives the values of each slot, and
each line below is a template: one with slots is filled several times, one without is a row as it stands.

Every third template is for tests only, so no test row shares its template with a row to learn from. Every third value
of a slot is in test rows only; the others are in both, as a team's words are. Rows to learn from are as people write
examples. Half of the test rows are as people write to a chat: with typos, in lower case, politely, framed in another
language, or around something pasted. The same page gives the same rows on every version of Python, since only
`random()` of a seeded generator is used.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

HERE = Path(__file__).parent
FILE = HERE / "labelled.jsonl"
LEARN, TEST, NONE = 105, 50, 600
"""Rows of each expert to learn from and to test with, and rows that are for none."""
LONG = 180
"""The longest row, in characters, that is not left as it is: what is longer has code in it."""

SLOT = re.compile(r"\{(\w+)\}")
POLITE = (
    ("Hi, could you please help me? ", ""),
    ("", " Thanks a lot!"),
    ("Hello there! ", " Thank you in advance."),
    ("Please tell me: ", ""),
    ("I was wondering about this one. ", " Many thanks!"),
    ("Good morning, a quick question. ", " Cheers"),
)
FRAMES = (
    ("Kurze Frage: ", " Danke!"),
    ("Bonjour, ", " Merci d'avance."),
    ("Hola, una pregunta. ", " Gracias"),
    ("Ciao, ", " Grazie mille"),
    ("Hallo zusammen, ", " Viele Grüße"),
    ("Olá! ", " Obrigado."),
)
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True, slots=True)
class Page:
    """What was written for one expert."""

    name: str
    slots: Mapping[str, Sequence[str]]
    templates: Sequence[str]


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance."""

    expert: str | None
    split: str
    template: str
    """Its page and the number of its line there."""
    style: str
    text: str


class Draw:
    """Choices that are the same on every version of Python."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - rows, not secrets

    def below(self, count: int) -> int:
        """A number from 0 to *count* - 1."""
        return int(self._rng.random() * count)

    def one(self, values: Sequence[T]) -> T:
        """One of *values*."""
        return values[self.below(len(values))]

    def order(self, values: Sequence[T]) -> list[T]:
        """All of *values* in some order."""
        left = list(values)
        return [left.pop(self.below(len(left))) for _ in values]


def rows() -> list[Row]:
    """The whole set, in the order of the file."""
    pages = [read(path) for path in sorted((HERE / "written").glob("*.txt")) if path.stem != "pastes"]
    found: list[Row] = []
    for page in pages:
        if page.name == "none":
            found += _filled(page, "test", NONE)
        else:
            found += _filled(page, "learn", LEARN) + _filled(page, "test", TEST)
    return found


def read(path: Path) -> Page:
    """One page of `written/`."""
    head, _, body = path.read_text().partition("\n\n")
    slots = {name: values.split(" | ") for name, values in (line.split(": ", 1) for line in head.splitlines())}
    return Page(path.stem, slots, [line.replace("\\n", "\n") for line in body.splitlines()])


def for_tests(index: int) -> bool:
    """Whether the template at *index* is for tests, and the value of a slot at *index* for tests only."""
    return index % 3 == 2


def pastes() -> dict[str, list[str]]:
    """Lines that say nothing that an expert is for, by kind."""
    found: dict[str, list[str]] = {}
    for line in (HERE / "written" / "pastes.txt").read_text().splitlines():
        kind, _, text = line.partition("] ")
        found.setdefault(kind[1:], []).append(text)
    return found


def pasted(draw: Draw, characters: int) -> str:
    """At least so many characters of one kind after the other."""
    kinds = pastes()
    lines: list[str] = []
    while sum(len(line) + 1 for line in lines) < characters:
        lines += draw.order(kinds[draw.one(sorted(kinds))])
    return "\n".join(lines)


def misspelt(text: str, draw: Draw) -> str:
    """*text* with one typo in a word of four letters or more; as it is where there is none."""
    words = list(re.finditer(r"[^\W\d_]{4,}", text))
    if not words:
        return text
    word = draw.one(words)
    at = word.start() + 1 + draw.below(len(word.group()) - 2)
    before, letter, after = text[:at], text[at], text[at + 1 :]
    row = next((row for row in KEYS if letter.lower() in row), letter)
    near = row[(row.find(letter.lower()) + 1) % len(row)]
    return draw.one((before + after, before + letter + letter + after, before + near + after,
                     before + after[:1] + letter + after[1:]))  # fmt: skip


def polite(text: str, draw: Draw) -> str:
    """*text* with the phrases that people put around a question."""
    before, after = draw.one(POLITE)
    return before + text + after


def _filled(page: Page, split: str, count: int) -> list[Row]:
    """*count* rows of the page's templates for *split*, the templates in turns until each has said all it can."""
    everything = page.name == "none"
    chosen = [(i, t) for i, t in enumerate(page.templates) if everything or for_tests(i) == (split == "test")]
    values = {
        name: [v for i, v in enumerate(each) if split == "test" or not for_tests(i)]
        for name, each in page.slots.items()
    }
    found: list[Row] = []
    seen: set[str] = set()
    for number in range(12):
        for index, template in chosen:
            draw = Draw(f"{page.name} {index} {number}")
            plain = filled(template, values, draw)
            if plain not in seen and len(found) < count:
                seen.add(plain)
                style, text = ("plain", plain) if split == "learn" else _styled(plain, draw)
                expert = None if everything else page.name
                found.append(Row(expert, split, f"{page.name} {index}", style, text))
    if len(found) < count:
        raise ValueError(f"{page.name}.txt gives {len(found)} rows for {split}, not {count}; write more templates")
    return found


def filled(template: str, values: Mapping[str, Sequence[str]], draw: Draw) -> str:
    """*template* with a value in each slot; a slot that is there twice gets two."""
    orders: dict[str, Iterator[str]] = {}

    def value(slot: re.Match[str]) -> str:
        return next(orders.setdefault(slot[1], iter(draw.order(values[slot[1]]))))

    return SLOT.sub(value, template)


def _styled(text: str, draw: Draw) -> tuple[str, str]:
    """*text* as people write to a chat, and the name of what was done to it."""
    chance = draw.below(100)
    if "\n" in text or len(text) > LONG or chance < 50:
        return "plain", text
    if chance < 60:
        return "lower case", text.lower().rstrip(".?!")
    if chance < 75:
        return "typos", misspelt(misspelt(text, draw), draw)
    if chance < 86:
        return "polite", polite(text, draw)
    if chance < 94:
        before, after = draw.one(FRAMES)
        return "mixed languages", before + text + after
    between = draw.one(("\n\n", "\n"))
    paste = pasted(draw, 600)
    return "pasted", text + between + paste if draw.below(2) else paste + between + text


def written(found: Sequence[Row]) -> str:
    """*found* as the text of the file, one JSON object a line."""
    lines = [
        {"expert": row.expert, "split": row.split, "template": row.template, "style": row.style, "text": row.text}
        for row in found
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def load() -> list[Row]:
    """The set as it is in the file."""
    return [Row(**json.loads(line)) for line in FILE.read_text().splitlines()]


if __name__ == "__main__":
    FILE.write_text(written(rows()))
