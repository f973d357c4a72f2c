from __future__ import annotations

import random

import pytest

from largeforge.jobs import calibration, calibrationpolicy, quantizepreflight
from largeforge.jobs.calibration import Choice
from largeforge.jobs.calibrationpolicy import Asked, CalibrationInvalidError
from largeforge.jobs.errors import DatasetInvalidError
from tests.unit.jobs import quantizations
from tests.unit.jobs.runs import ANSWER, CHAT, USER, Words, source, written


def text(number, words=30):
    return {"text": " ".join(f"w{number}x{word}" for word in range(words))}


def chat(number):
    return {"messages": [{"role": "user", "content": f"question {number}"}, ANSWER]}


def nothing():
    return None


def read(path, take=4, *, seed=42, chat_template=True, require=nothing):
    return calibration.read([source(path)], Words(), Choice(take, seed, chat_template, require), cache=None)


def choose(tmp_path, path, **fields):
    return quantizepreflight.choose(
        quantizations.config(tmp_path, source(path), **fields), Words(), require_template=nothing
    )


def test_which_rows_are_taken_depends_on_content_and_seed_alone(tmp_path):
    rows = [text(i) for i in range(50)]
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)  # noqa: S311 - no secret
    first = read(written(tmp_path / "a.jsonl", *rows))
    again = read(written(tmp_path / "b.jsonl", *shuffled))
    other = read(written(tmp_path / "c.jsonl", *rows), seed=7)
    assert first.texts == again.texts != other.texts
    assert len(first.texts) == 4


def test_fewer_rows_are_a_beginning_of_more(tmp_path):
    path = written(tmp_path / "a.jsonl", *(text(i) for i in range(50)))
    assert read(path, take=20).texts[:4] == read(path, take=4).texts


def test_a_row_that_stands_there_twice_is_taken_once(tmp_path):
    found = read(written(tmp_path / "a.jsonl", text(0), text(0), text(1)))
    assert (found.rows, found.duplicates, len(found.texts)) == (3, 1, 2)


def test_rows_that_are_wrong_are_counted_and_named_without_their_content(tmp_path):
    refused = {"messages": [USER, USER, ANSWER]}
    found = read(written(tmp_path / "a.jsonl", CHAT, "{", refused))
    assert (found.rows, found.invalid, len(found.texts)) == (3, 2, 1)
    assert "line 2" in found.problems[0]
    assert "chat template refuses it" in found.problems[1]
    assert "hot" not in " ".join(found.problems)


def test_conversations_are_written_in_the_chat_template_or_joined(tmp_path):
    path = written(tmp_path / "a.jsonl", CHAT)
    (templated,) = read(path).texts
    (joined,) = read(path, chat_template=False).texts
    assert (templated.text, templated.templated) == ("user: Is it hot? ; assistant: It is. ; ", True)
    assert (joined.text, joined.templated) == ("Is it hot?\nIt is.", False)


def test_a_chat_template_is_asked_for_where_conversations_need_one(tmp_path):
    def missing():
        raise LookupError

    with pytest.raises(LookupError):
        read(written(tmp_path / "a.jsonl", CHAT), require=missing)
    assert read(written(tmp_path / "a.jsonl", CHAT), chat_template=False, require=missing).texts
    assert read(written(tmp_path / "b.jsonl", text(0)), require=missing).texts


def test_of_each_data_set_the_first_rows_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "LOOKED_AT", 3)
    found = read(written(tmp_path / "a.jsonl", *(text(i) for i in range(9))))
    assert (found.rows, found.bounded) == (3, True)
    assert "the first" in calibrationpolicy.judge_rows(found, field="spec.calibration.datasets")[0]


def test_windows_are_cut_from_long_rows_and_none_has_a_single_token():
    rows = [[1, 2, 3, 4, 5], [6], [7, 8]]
    assert calibration.windows(iter(rows), length=2, limit=9) == [[1, 2], [3, 4], [7, 8]]
    assert calibration.windows(iter(rows), length=4, limit=1) == [[1, 2, 3, 4]]


def test_what_is_measured_on_is_not_calibrated_on(tmp_path):
    found = choose(
        tmp_path, written(tmp_path / "a.jsonl", *(text(i, 140) for i in range(40))), calibration={"max_length": 256}
    )
    assert (found.record.samples, found.record.tokens) == (8, 8 * 141)
    sampled = {tuple(sample[:5]) for sample in found.samples}
    assert sampled.isdisjoint({tuple(window[:5]) for window in found.windows})
    assert len(found.windows) == 40


def test_a_data_set_of_the_gates_own_is_measured_on(tmp_path):
    held_out = source(written(tmp_path / "b.jsonl", *(text(1000 + i) for i in range(30))))
    path = written(tmp_path / "a.jsonl", *(text(i, 140) for i in range(8)))
    found = choose(tmp_path, path, calibration={"max_length": 256}, evaluation={"dataset": held_out.model_dump()})
    assert len(found.samples) == 8
    assert {window[0] for window in found.windows} == {hash(f"w{1000 + i}x0") for i in range(30)}
    assert found.warnings == []


def test_measuring_on_rows_that_are_calibrated_on_is_said(tmp_path):
    path = written(tmp_path / "a.jsonl", *(text(i, 140) for i in range(8)))
    found = choose(tmp_path, path, calibration={"max_length": 256}, evaluation={"dataset": source(path).model_dump()})
    assert found.warnings == [
        "spec.qualityGate.dataset: 8 rows are calibrated on too, so the loss looks smaller than it is"
    ]


def test_a_method_that_learns_nothing_needs_text_to_measure_on_alone(tmp_path):
    path = written(tmp_path / "a.jsonl", *(text(i) for i in range(30)))
    found = choose(tmp_path, path, methods=["FP8Dynamic"])
    assert (found.samples, found.record) == ([], None)
    assert sum(len(window) - 1 for window in found.windows) >= calibrationpolicy.MIN_MEASURED


@pytest.mark.parametrize(
    ("rows", "fields", "said"),
    [
        ([text(i) for i in range(5)], {}, "5 different rows, and numSamples asks for 8; lower it, or give more rows"),
        (
            [text(i) for i in range(5)],
            {"num_samples": 4},
            "4 different rows, and at least 8 are needed; raise numSamples",
        ),
        ([text(i, 10) for i in range(50)], {}, "8 samples of 88 tokens in all, and at least 1024 tokens are needed"),
        ([text(i, 200) for i in range(50)], {"max_length": 150}, "100% of the samples are longer than maxLength 150"),
        ([text(0, 150)] * 60 + [text(i, 150) for i in range(1, 40)], {"max_length": 256}, "59 of 99 rows repeat"),
        (
            [{"text": f"{i} " + "again " * 200} for i in range(50)],
            {"max_length": 256},
            "99% of the text repeats what came before",
        ),
        ([text(i, 150) for i in range(9)], {"max_length": 256}, "beside the samples 146 tokens are left to measure"),
    ],
)  # fmt: skip
def test_text_that_is_no_good_is_refused_with_its_figure(tmp_path, rows, fields, said):
    with pytest.raises(CalibrationInvalidError) as caught:
        choose(tmp_path, written(tmp_path / "a.jsonl", *rows), calibration=fields)
    assert said in str(caught.value)
    assert (caught.value.exit_code, caught.value.reason) == (65, "CalibrationInvalid")


def test_rows_of_which_most_are_wrong_are_refused(tmp_path):
    with pytest.raises(DatasetInvalidError, match=r"3 of 5 rows are wrong: pvc://data/a.jsonl line 2"):
        choose(tmp_path, written(tmp_path / "a.jsonl", text(0), "{", "{", "{", text(1)))


def test_an_own_data_set_that_is_too_small_to_measure_on_is_named():
    with pytest.raises(CalibrationInvalidError, match=r"spec.qualityGate.dataset: 9 tokens .* at least 512"):
        calibrationpolicy.judge_windows([list(range(10))], own=True)


def test_a_shared_system_prompt_is_no_repetition():
    samples = [[*range(20), *(1000 * i + j for j in range(10))] for i in range(1, 50)]
    calibrationpolicy.judge_samples([30] * 49, samples, Asked(49, 64))
    assert 0.4 < calibrationpolicy.repeated(samples) < 0.9


def test_shares_of_nothing_are_nothing():
    assert (calibrationpolicy.repeated([]), calibrationpolicy.truncated([], 8)) == (0, 0)
