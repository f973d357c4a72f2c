"""Write `train.jsonl` and `heldout.jsonl`: notes of an office's caretaker, and the ticket line that each becomes.

    python examples/03-lora-with-gate/make_dataset.py [FOLDER]

A row is in Alpaca's form: the task, the note, the line. The line has four parts: the device, the place, how urgent it
is, and what is wrong. Which fault is how urgent is this office's own rule, so no model can know it. The held-out notes
have combinations of device, place and fault that are not trained on. A fixed seed makes the same bytes each time.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

SEED = 3
TASK = "Write the ticket."
DEVICES = ("printer", "lift", "badge reader", "projector", "coffee machine", "heater")
PLACES = ("the lobby", "floor 2", "floor 5", "the canteen", "room 14")
FAULTS = {
    "shows error 50": "P2",
    "makes a grinding noise": "P3",
    "does not switch on": "P1",
    "smells of smoke": "P0",
    "is stuck": "P1",
    "is slow": "P4",
}
NOTES = (
    "The {device} in {place} {fault}.",
    "Someone called: in {place} the {device} {fault}.",
    "It is the {device} again. In {place} it {fault}.",
)
HELD_OUT = 24


def rows() -> tuple[str, str]:
    """The lines of both files."""
    chance = random.Random(SEED)  # noqa: S311 - the same order each time
    every = list(itertools.product(DEVICES, PLACES, FAULTS))
    chance.shuffle(every)
    lines = [line(*each, note=NOTES[number % len(NOTES)]) for number, each in enumerate(every)]
    return "".join(lines[HELD_OUT:]), "".join(lines[:HELD_OUT])


def line(device: str, place: str, fault: str, *, note: str) -> str:
    """One row."""
    said = note.format(device=device, place=place, fault=fault)
    ticket = f"TICKET {device} | {place} | {FAULTS[fault]} | {fault}"
    return json.dumps({"instruction": TASK, "input": said, "output": ticket}) + "\n"


def main(folder: Path = Path(__file__).parent) -> None:
    """Write both files into *folder*."""
    for name, text in zip(("train.jsonl", "heldout.jsonl"), rows(), strict=True):
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
