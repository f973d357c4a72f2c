"""Write `train.jsonl`: notes about a device that the office has bought since, as conversations.

    python examples/05-continue-from-a-run/make_dataset.py [FILE]

Each row has a prompt and a completion, both lists of messages; the loss is over the completion alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TASK = "Write the ticket."
PLACES = ("the lobby", "floor 2", "floor 5", "the canteen", "room 14")
FAULTS = {"leaks": "P0", "does not switch on": "P1", "makes a grinding noise": "P3", "is slow": "P4"}
NOTES = ("The dishwasher in {place} {fault}.", "Someone called: in {place} the dishwasher {fault}.")


def rows() -> str:
    """The lines of the file."""
    lines = []
    for place in PLACES:
        for fault, urgency in FAULTS.items():
            for note in NOTES:
                question = f"{TASK}\n\n{note.format(place=place, fault=fault)}"
                ticket = f"TICKET dishwasher | {place} | {urgency} | {fault}"
                prompt, completion = {"role": "user", "content": question}, {"role": "assistant", "content": ticket}
                lines.append(json.dumps({"prompt": [prompt], "completion": [completion]}) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    Path(*sys.argv[1:] or (Path(__file__).with_name("train.jsonl"),)).write_text(rows())
