from __future__ import annotations

import json

import pytest

from largeforge.api.finetunejobstatus import DatasetSummary
from largeforge.api.messages import TERMINATION_MESSAGE_LIMIT
from largeforge.api.run import RunResult
from largeforge.jobs import datareport, policy, rows, sources
from largeforge.jobs.errors import DatasetInvalidError
from largeforge.jobs.examine import REPORTED_PROBLEMS, Examiner
from largeforge.jobs.report import STATE_DIR
from largeforge.jobs.tokens import Encoder
from tests.unit.jobs.runs import ANSWER, CHAT, USER, Words, config, source, written


def text(number, words=1):
    return {"text": f"row {number} " + "w " * words}


def examined(run):
    trained, held_out = sources.open_all(run)
    encoder = Encoder(Words(), trained[0].kind)
    return Examiner(run, encoder, rows.limit(run), lambda _: None).examine(trained, held_out)


def run_of(tmp_path, *lines, **fields):
    return config(tmp_path, source(written(tmp_path / "a.jsonl", *lines)), **fields)


def summary_of(run):
    return policy.summary(examined(run), report=None)


def refusal(run):
    with pytest.raises(DatasetInvalidError) as caught:
        policy.judge(run, examined(run))
    return str(caught.value), caught.value.field


def test_rows_and_tokens_are_counted(tmp_path):
    found = summary_of(run_of(tmp_path, text(0), text(1, words=2), text(2, words=3)))
    assert found == DatasetSummary(
        digest=found.digest, samples=3, formats=["Text"], tokens=(3 + 4 + 5) + 3, longest=6, problems=[]
    )


def test_what_is_counted_is_what_is_loaded(tmp_path):
    lines = [text(i, words=i * 5) for i in range(30)] + ["{", {"text": ""}]
    run = run_of(tmp_path, *lines, eval_split_ratio=0.2, data_policy={"on_too_long": "Drop", "mode": "Warn"})
    found = summary_of(run)
    loaded = rows.load(run, Words(), environment={STATE_DIR: str(tmp_path)})
    assert (found.samples, found.eval_samples) == (len(loaded.train), len(loaded.eval))
    assert (found.digest, found.invalid, found.dropped) == (loaded.digest, loaded.invalid, loaded.dropped)


def test_weights_count_in_samples_and_tokens(tmp_path):
    run = config(tmp_path, source(written(tmp_path / "a.jsonl", text(0), text(1)), weight=2.5))
    found = summary_of(run)
    assert (found.samples, found.tokens) == (5, 5 * 4)


def test_the_first_wrong_rows_are_named_and_all_are_counted(tmp_path):
    found = summary_of(run_of(tmp_path, text(0), *["{"] * 7, {"text": " "}))
    assert (found.invalid, found.dropped, found.empty_completions) == (8, 8, 1)
    assert len(found.problems) == 5
    assert found.problems[0] == "pvc://data/a.jsonl line 2: is not JSON; a .jsonl file has one object on each line"


def test_duplicates_are_counted_without_the_first(tmp_path):
    run = run_of(tmp_path, text(0), text(1), text(0), json.dumps(text(0) | {"id": 9}))
    assert summary_of(run).duplicates == 2
    assert policy.judge(run, examined(run)) == ["2 rows stand in the data more than once"]


def test_held_out_rows_that_are_trained_on_are_counted(tmp_path):
    held_out = source(written(tmp_path / "b.jsonl", text(0), text(9))).model_copy(update={"field": "spec.evalDataset"})
    run = run_of(tmp_path, text(0), text(1), eval_dataset=held_out.model_dump())
    found = summary_of(run)
    assert (found.samples, found.eval_samples, found.overlap) == (2, 2, 1)
    assert policy.judge(run, examined(run)) == [
        "1 held-out rows are also trained on, so the held-out loss looks better than it is; remove duplicates"
    ]


def test_a_split_of_duplicates_overlaps(tmp_path):
    run = run_of(tmp_path, *[text(0)] * 10, eval_split_ratio=0.2)
    assert summary_of(run).overlap == 2


def test_long_rows_are_cut_and_said(tmp_path):
    run = run_of(tmp_path, text(0), text(1, words=100))
    found = summary_of(run)
    assert (found.samples, found.tokens, found.longest, found.truncated_ratio) == (2, 4 + 64, 103, "0.5")
    assert policy.judge(run, examined(run)) == [
        "1 of 2 rows have more than 64 tokens (first: pvc://data/a.jsonl line 2 has 103) and are cut"
    ]


def test_a_long_prompt_leaves_nothing_to_learn(tmp_path):
    run = run_of(tmp_path, {"prompt": "p " * 70, "completion": "c"}, {"prompt": "p", "completion": "c " * 70})
    found = summary_of(run)
    assert (found.samples, found.tokens, found.dropped, found.truncated_ratio) == (1, 64, 1, "0.5")
    assert policy.judge(run, examined(run))[0].endswith("and are cut; of 1 nothing to learn is left")


def test_where_the_prompt_is_learnt_too_nothing_is_lost(tmp_path):
    row = {"prompt": "p " * 70, "completion": "c"}
    assert summary_of(run_of(tmp_path, row, training={"completion_only_loss": False})).samples == 1


def test_long_rows_end_the_run_where_the_policy_says_so(tmp_path):
    run = run_of(tmp_path, text(0), text(1, words=100), data_policy={"on_too_long": "Fail"})
    assert refusal(run) == (
        "1 of 2 rows have more than 64 tokens (first: pvc://data/a.jsonl line 2 has 103); raise training.maxLength,"
        " shorten them, or set dataPolicy.onTooLong: Truncate",
        "spec.dataPolicy.onTooLong",
    )


def test_wrong_rows_end_the_run_with_the_first_of_them(tmp_path):
    wrong = {"messages": [USER, ANSWER, {"role": "gpt", "content": "x"}]}
    assert refusal(run_of(tmp_path, CHAT, wrong, CHAT)) == (
        "1 of 3 rows are wrong: pvc://data/a.jsonl line 2: messages[2].role: must be one of system, user, assistant,"
        ' tool (got "gpt"); correct them, or allow some with dataPolicy.maxInvalidRatio',
        "spec.datasets[0]",
    )
    text, _ = refusal(run_of(tmp_path, CHAT, *["{"] * 9))
    assert text.startswith("9 of 10 rows are wrong: ")
    assert "; and 6 more; correct them" in text


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"max_invalid_ratio": 0.2}, False),
        ({"max_invalid_ratio": 0.25}, True),
        ({"mode": "Warn"}, True),
    ],
)
def test_the_policy_says_how_many_may_be_wrong(tmp_path, fields, passes):
    run = run_of(tmp_path, text(0), text(1), text(2), "{", data_policy=fields)
    if not passes:
        refusal(run)
        return
    assert policy.judge(run, examined(run)) == [
        "1 of 4 rows are wrong and left out: pvc://data/a.jsonl line 4: is not JSON; a .jsonl file has one object on"
        " each line"
    ]


def test_a_run_without_any_good_row_ends_whatever_the_policy_says(tmp_path):
    path = written(tmp_path / "a.jsonl", {"text": ""}, {"text": " "})
    assert refusal(config(tmp_path, source(path), data_policy={"mode": "Warn"}))[0].startswith("2 of 2 rows are wrong")
    long = written(tmp_path / "b.jsonl", text(0, words=99))
    run = config(tmp_path, source(long), data_policy={"on_too_long": "Drop"})
    assert refusal(run) == (
        "no row is left to train on: 0 are wrong, 1 are longer than 64 tokens, which leaves nothing to learn; raise"
        " training.maxLength",
        "spec.training.maxLength",
    )


def test_the_data_set_with_the_first_wrong_row_is_the_field(tmp_path):
    good, bad = written(tmp_path / "a.jsonl", text(0)), written(tmp_path / "b.jsonl", text(1), "{")
    assert refusal(config(tmp_path, source(good), source(bad, 1)))[1] == "spec.datasets[1]"


def test_the_report_holds_what_status_has_no_room_for_and_no_content(tmp_path):
    secret = "the patient's name"
    run = run_of(tmp_path, text(secret), text(1, words=100), *["{"] * 20, data_policy={"mode": "Warn"})
    findings = examined(run)
    report = datareport.content(run, findings, policy.summary(findings, report=None), ["a warning"])
    path = tmp_path / datareport.file_name(run)
    datareport.write(path, report)
    written_report = json.loads(path.read_text())
    assert path.name == "sql-abababababab-preflight.json"
    assert secret not in path.read_text()
    assert len(written_report["problems"]) == 20
    assert written_report["tooLong"] == [{"file": "pvc://data/a.jsonl", "line": 2, "tokens": 103}]
    assert written_report["datasets"][0]["rows"] == 22
    assert written_report["tokens"]["train"]["histogram"] == {"to16": 1, "to32": 0, "to64": 1}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_the_report_is_bounded(tmp_path):
    run = run_of(tmp_path, text(0), *["{"] * (REPORTED_PROBLEMS + 5))
    findings = examined(run)
    assert (len(findings.problems), findings.total("invalid")) == (REPORTED_PROBLEMS, REPORTED_PROBLEMS + 5)


def test_a_result_with_the_longest_problems_fits_the_termination_message(tmp_path):
    deep = {"messages": [USER] * 9 + [{"role": "x" * 99, "content": "x"}]}
    name = "n" * 150 + ".jsonl"
    run = config(tmp_path, source(written(tmp_path / name, CHAT, *[deep] * 10)))
    found = policy.summary(examined(run), report="pvc://out/" + "r" * 300)
    text, _ = refusal(run)
    result = RunResult(
        outcome="Failed",
        stage="Preflight",
        run_digest=run.digest,
        dataset=found,
        error=DatasetInvalidError(text).detail(),
        warnings=policy.shortened(["w" * 400] * 3),
    )
    assert len(result.message().encode()) <= TERMINATION_MESSAGE_LIMIT
    assert RunResult.model_validate_json(result.message()).error.message.startswith("10 of 11 rows are wrong")
