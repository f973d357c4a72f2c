"""What was learnt, in a file that is mapped and not read: taking it over costs the event loop nothing.

A header of JSON says where each array lies. The file is written by a process of the same code a moment before.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from largeforge.router.learnt import Cheap, Full, Learnt
from largeforge.router.ridge import Calibration
from largeforge.router.spelling import Spelling
from largeforge.router.terms import Vocabulary

_ALIGNED = 64
_LENGTH = 8
"""Bytes at the beginning: how long the header is."""


class _Array(msgspec.Struct):
    dtype: str
    shape: list[int]
    at: int


class _Header(msgspec.Struct):
    experts: list[str]
    few: bool
    unknown: float
    cheap_worth: list[float]
    full_worth: list[float] | None
    arrays: dict[str, _Array]
    spelling: list[str] | None
    """The words that one may have meant."""


def write(path: Path, learnt: Learnt) -> None:
    """Write *learnt*."""
    arrays = _arrays(learnt)
    places: dict[str, _Array] = {}
    at = 0
    for name, array in arrays.items():
        places[name] = _Array(array.dtype.str, list(array.shape), at)
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    header = msgspec.json.encode(
        _Header(
            [*learnt.experts],
            learnt.few,
            float(learnt.words.unknown),
            _numbers(learnt.cheap.worth),
            _numbers(learnt.full.worth) if learnt.full else None,
            places,
            [*learnt.spelling.words] if learnt.spelling else None,
        )
    )
    begin = -(-(_LENGTH + len(header)) // _ALIGNED) * _ALIGNED
    with path.open("wb") as file:
        file.write(len(header).to_bytes(_LENGTH, "little") + header)
        for name, array in arrays.items():
            file.seek(begin + places[name].at)
            file.write(array.tobytes())
        file.truncate(begin + at)


def read(path: Path) -> Learnt:
    """What `write` has written; the file may be removed afterwards."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(data[:_LENGTH], "little")
    header = msgspec.json.decode(data[_LENGTH : _LENGTH + length], type=_Header)
    begin = -(-(_LENGTH + length) // _ALIGNED) * _ALIGNED

    def array(name: str) -> Any:
        place = header.arrays[name]
        count = int(np.prod(place.shape))
        return np.frombuffer(data, place.dtype, count, begin + place.at).reshape(place.shape)

    words = Vocabulary(array("numbers"), array("weights"), np.float32(header.unknown))
    full = None
    if header.full_worth is not None:
        full = Full(array("terms"), array("rows"), array("duals"), array("starts"), Calibration(*header.full_worth))
    spelling = None
    if header.spelling is not None:
        spelling = Spelling(tuple(header.spelling), array("known"), array("parts"), array("owners"))
    cheap = Cheap(array("cheap"), Calibration(*header.cheap_worth))
    return Learnt(tuple(header.experts), words, cheap, full, header.few, array("taken_by"), spelling)


def _arrays(learnt: Learnt) -> dict[str, Any]:
    words, full = learnt.words, learnt.full
    found = {
        "numbers": words.numbers,
        "weights": words.weights,
        "cheap": learnt.cheap.weights,
        "taken_by": learnt.taken_by,
    }
    if full is not None:
        found |= {"terms": full.weights, "rows": full.rows, "duals": full.duals, "starts": full.starts}
    if learnt.spelling is not None:
        found |= {"known": learnt.spelling.known, "parts": learnt.spelling.parts, "owners": learnt.spelling.owners}
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _numbers(worth: Calibration) -> list[float]:
    return [worth.cut, worth.top, worth.clear]
