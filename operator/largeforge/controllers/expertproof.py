"""Whether an engine's adapter is the trained one: first tokens compared with the training's record and the base's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import re2

from largeforge.api.expert import Probe
from largeforge.api.expertstatus import Resolved
from largeforge.api.finetunejobstatus import ProbeRecord, TokenLogprob
from largeforge.api.names import Reason
from largeforge.controllers.engine import Answers, Said, Trouble

COMPARED = 5
"""Likeliest tokens that are compared of each conversation: as many as the training records."""
LEAST_LOGPROB = -4.0
"""Less likely tokens are not compared: of a model that is sure of its first one, the others are noise."""
FLOOR = 0.3
"""Nats. SmolLM2-135M in 16 bits is up to 0.10 off the trainer's 32 bits, and an adapter on it up to 0.16; the same
adapter at half of its strength is 1.2 to 2.5 off."""
TIMES = 3.0
"""How far an adapter may be from the record, in distances of the base from its own record."""
NOTHING = 1e-3
"""Nats. An adapter that moves the likeliest tokens by less does nothing, on an engine without noise of its own."""
OTHER_BASE = 1.0
"""Nats. A base whose weights were quantized stays below it; one that is another model does not."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 20


def judge(version: Resolved, *, base: Answers, again: Answers, adapter: Answers) -> Trouble | None:
    """Why *adapter* is not what was trained, or None. *base* and *again* are two answers of the base beside it.

    The base is what the tolerances are measured on: against its record, and against itself.
    """
    if version.probes and (noise := off(version.probes, base, of="base")) is not None:
        if noise > OTHER_BASE:
            said = (
                f"the base that this pod serves is not the one that {version.uri} was trained on: its log-probabilities"
                f" are {noise:.2f} off the training's record; serve {version.base} as it was then, or train again"
            )
            return Trouble(said, Reason.BASE_MISMATCH)
        tolerance = max(FLOOR, TIMES * noise)
    else:
        tolerance = FLOOR
    effect, own = between(base, adapter), between(base, again)
    if effect <= max(NOTHING, 2 * own) and not _hardly_trained(version.probes, below=tolerance):
        said = (
            f"{version.engine_name} answers as the base does (log-probabilities differ by {effect:.4f}, the base's own"
            f" by {own:.4f}): {version.uri} does nothing; look at its training, or at its files"
        )
        return Trouble(said, Reason.ADAPTER_HAS_NO_EFFECT)
    away = off(version.probes, adapter, of="result")
    if away is not None and away > tolerance:
        said = (
            f"{version.engine_name} is not the adapter that was trained: its log-probabilities are {away:.2f} off the"
            f" training's record (allowed are {tolerance:.2f}); the files of {version.uri} have changed"
        )
        return Trouble(said, Reason.ADAPTER_DIFFERS)
    return None


def judge_model(version: Resolved, model: Answers) -> Trouble | None:
    """Why the service's own model is not what was trained, or None."""
    away = off(version.probes, model, of="result")
    if away is None or away <= OTHER_BASE:
        return None
    said = (
        f"the pod does not serve {version.uri}: its log-probabilities are {away:.2f} off the training's record;"
        " let the InferenceService name this model"
    )
    return Trouble(said, Reason.MODEL_DIFFERS)


def judge_answer(probe: Probe, said: Said) -> Trouble | None:
    """Why *said* is not what `spec.probe` expects, or None. What was said is not repeated."""
    if probe.expect_regex is None:
        return None if said.text else Trouble("spec.probe.prompt: the answer is empty")
    try:
        pattern = re2.compile(probe.expect_regex, _OPTIONS)  # type: ignore[no-untyped-call]  # re2 has no annotations
    except re2.error:
        return Trouble(f"spec.probe.expectRegex: {probe.expect_regex!r} is not a regular expression of RE2; mend it")
    if pattern.search(said.text):
        return None
    return Trouble(
        f"spec.probe: the answer to the prompt ({len(said.text)} characters) does not match expectRegex"
        f" {probe.expect_regex!r}"
    )


def probe_digest(probe: Probe | None) -> str:
    """What stands for *probe* in a placement; empty where there is none."""
    if probe is None:
        return ""
    return hashlib.sha256(json.dumps(probe.manifest(), sort_keys=True).encode()).hexdigest()[:8]


def off(records: Sequence[ProbeRecord], answers: Answers, *, of: str) -> float | None:
    """How far *answers* are from what was recorded *of* base or result: of the conversations, the farthest one.

    None where nothing was recorded of it.
    """
    found = [
        _distance(_logprobs(expected), answers.likeliest[record.name])
        for record in records
        if (expected := record.base if of == "base" else record.result) and answers.likeliest.get(record.name)
    ]
    return max(found, default=None)


def between(one: Answers, other: Answers) -> float:
    """How far two answers are apart: of the conversations, the farthest one."""
    found = [
        _distance(_top(likeliest), other.likeliest[name])
        for name, likeliest in one.likeliest.items()
        if likeliest and other.likeliest.get(name)
    ]
    return max(found, default=0.0)


def _distance(expected: Mapping[int, float], seen: Mapping[int, float]) -> float:
    """The mean difference of the likely ones of the expected tokens, and of the likeliest in any case.

    One that is not among those seen is at most as likely as the last of them.
    """
    last, first = min(seen.values()), max(expected.values())
    likely = {token: value for token, value in expected.items() if value == first or value > LEAST_LOGPROB}
    apart = [abs(value - seen[token]) if token in seen else max(0.0, value - last) for token, value in likely.items()]
    return sum(apart) / len(apart)


def _hardly_trained(records: Sequence[ProbeRecord], *, below: float) -> bool:
    """Whether the training itself moved these tokens by so little that nothing can be told from them."""
    moved = [
        _distance(_logprobs(record.base), _logprobs(record.result))
        for record in records
        if record.base and record.result
    ]
    return bool(moved) and max(moved) <= below


def _logprobs(recorded: Sequence[TokenLogprob]) -> dict[int, float]:
    return {each.id: float(each.logprob) for each in recorded}


def _top(likeliest: Mapping[int, float]) -> dict[int, float]:
    return dict(sorted(likeliest.items(), key=lambda pair: -pair[1])[:COMPARED])
