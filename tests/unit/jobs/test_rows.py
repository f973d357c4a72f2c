from __future__ import annotations

import hashlib
import json
import threading

import pytest

from largeforge.jobs import rows, sources
from largeforge.jobs.errors import DatasetInvalidError, InvalidConfigError
from largeforge.jobs.report import STATE_DIR
from largeforge.jobs.tokens import Encoder, counted
from tests.unit.jobs.runs import ANSWER, CHAT, PAIR, USER, Words, config, source, written


def chat(number, words=1):
    return {
        "messages": [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "a " * words}]
    }


def load(tmp_path, *datasets, rank=0, **fields):
    environment = {STATE_DIR: str(tmp_path / "state"), "LOCAL_RANK": str(rank)}
    return rows.load(config(tmp_path, *datasets, **fields), Words(), environment=environment)


def test_rows_are_loaded_without_what_is_wrong(tmp_path):
    prepared = load(tmp_path, source(written(tmp_path / "a.jsonl", chat(0), "{", chat(1), {"messages": []})))
    assert prepared.train.to_list() == [chat(0), chat(1)]
    assert (prepared.eval, prepared.kind, prepared.formats) == (None, "messages", ["Messages"])
    assert (prepared.invalid, prepared.dropped) == (2, 2)
    assert prepared.conversational


@pytest.mark.parametrize(
    "row",
    [CHAT, PAIR, {"prompt": [USER], "completion": [ANSWER]}, {"text": "all of it"}],
    ids="+".join,
)
def test_each_kind_comes_out_as_trl_takes_it(tmp_path, row):
    assert load(tmp_path, source(written(tmp_path / "a.jsonl", row))).train.to_list() == [row]


def test_what_the_chat_template_refuses_is_left_out(tmp_path):
    twice = {"messages": [USER, USER, ANSWER]}
    prepared = load(tmp_path, source(written(tmp_path / "a.jsonl", CHAT, twice)))
    assert (prepared.train.to_list(), prepared.invalid) == ([CHAT], 1)


def test_the_digest_is_that_of_the_rows_that_are_right(tmp_path):
    first = load(tmp_path / "1", source(written(tmp_path / "a.jsonl", CHAT, chat(1))))
    same = load(tmp_path / "2", source(written(tmp_path / "b.jsonl", json.dumps(CHAT | {"id": 3}), "{", chat(1))))
    other = load(tmp_path / "3", source(written(tmp_path / "c.jsonl", chat(1), CHAT)))
    encoded = sources.encode(CHAT) + b"\n" + sources.encode(chat(1)) + b"\n"
    assert first.digest == same.digest == hashlib.sha256(encoded).hexdigest() != other.digest


def test_too_long_rows_are_dropped_where_the_policy_says_so(tmp_path):
    path = written(tmp_path / "a.jsonl", chat(0), chat(1, words=100), chat(2))
    drop = {"data_policy": {"on_too_long": "Drop"}}
    assert load(tmp_path / "1", source(path), **drop).train.to_list() == [chat(0), chat(2)]
    assert len(load(tmp_path / "2", source(path)).train) == 3


def test_the_bases_positions_bound_the_length_too(tmp_path):
    small = config(tmp_path, source(written(tmp_path / "a.jsonl", CHAT)))
    assert rows.limit(small) == 64
    (tmp_path / "base" / "config.json").write_text('{"text_config": {"max_position_embeddings": 16}}')
    assert rows.limit(small) == 16


def test_the_same_rows_are_held_out_every_time(tmp_path):
    path = written(tmp_path / "a.jsonl", *(chat(i) for i in range(50)))
    first = load(tmp_path / "1", source(path), eval_split_ratio=0.1)
    again = load(tmp_path / "2", source(path), eval_split_ratio=0.1)
    assert first.eval.to_list() == again.eval.to_list()
    assert (len(first.train), len(first.eval)) == (45, 5)
    together = first.train.to_list() + first.eval.to_list()
    assert sorted(map(str, together)) == sorted(str(chat(i)) for i in range(50))


def test_an_evaluation_data_set_is_the_held_out_part(tmp_path):
    held_out = source(written(tmp_path / "b.jsonl", chat(7))).model_copy(update={"field": "spec.evalDataset"})
    prepared = load(tmp_path, source(written(tmp_path / "a.jsonl", CHAT)), eval_dataset=held_out.model_dump())
    assert (prepared.train.to_list(), prepared.eval.to_list()) == ([CHAT], [chat(7)])
    assert prepared.formats == ["Messages", "Messages"]


def test_other_ranks_wait_for_the_first_and_read_the_same(tmp_path):
    path = source(written(tmp_path / "a.jsonl", *(chat(i) for i in range(9))))
    found = {}
    waiting = threading.Thread(target=lambda: found.update(other=load(tmp_path, path, rank=1, eval_split_ratio=0.2)))
    waiting.start()
    first = load(tmp_path, path, rank=0, eval_split_ratio=0.2)
    waiting.join(timeout=30)
    other = found["other"]
    assert (other.train.to_list(), other.eval.to_list()) == (first.train.to_list(), first.eval.to_list())
    assert other.digest == first.digest


def test_no_row_at_all_is_an_error(tmp_path):
    with pytest.raises(DatasetInvalidError) as caught:
        load(tmp_path, source(written(tmp_path / "a.jsonl", {"messages": []}, {"messages": 1})))
    assert str(caught.value) == "no row is left to train on (2 are wrong, 0 too long); see the preflight report"


@pytest.mark.parametrize(("weight", "taken"), [(1, 10), (2, 20), (0.5, 5), (1.5, 15), (0.01, 0)])
def test_a_weight_says_how_often_rows_are_taken(weight, taken):
    chosen, _ = rows.plan([10], [weight], ratio=0, seed=1)
    assert len(chosen) == taken
    assert all(list(chosen).count(i) in (int(weight), int(weight) + 1) for i in range(10))


def test_no_copy_of_a_held_out_row_is_trained_on():
    chosen, held = rows.plan([10, 30], [3, 0.5], ratio=0.2, seed=1)
    assert len(held) == 8
    assert not set(chosen) & set(held)
    of_first = [i for i in range(10) if i not in held]
    assert sorted(i for i in chosen if i < 10) == sorted(of_first * 3)


def test_data_sets_stay_in_their_order():
    chosen, held = rows.plan([2, 3], [1, 2], ratio=0, seed=1)
    assert (list(chosen), held) == ([0, 1, 2, 3, 4, 2, 3, 4], [])


def test_a_split_holds_out_one_row_at_least_and_leaves_one():
    assert len(rows.split(10, ratio=0.001, seed=1)) == 1
    assert len(rows.split(2, ratio=0.5, seed=1)) == 1
    with pytest.raises(DatasetInvalidError, match="only one in all"):
        rows.split(1, ratio=0.5, seed=1)


def test_another_seed_is_another_split():
    assert rows.split(1000, ratio=0.1, seed=1) != rows.split(1000, ratio=0.1, seed=2)


def test_tokens_are_counted_in_order_over_many_batches(tmp_path):
    path = written(tmp_path / "a.jsonl", *("{" if i % 7 == 0 else {"text": "w " * i} for i in range(1, 2000)))
    opened = sources.open_source(source(path), None)
    found = list(counted(sources.rows(opened), Encoder(Words(), "text"), measure=True))
    assert [c.tokens for c in found] == [0 if i % 7 == 0 else i + 1 for i in range(1, 2000)]  # and the end


def test_assistant_only_loss_needs_messages():
    with pytest.raises(InvalidConfigError) as caught:
        Encoder(Words(), "text", assistant_only=True)
    assert str(caught.value) == (
        "spec.training.assistantOnlyLoss needs rows of messages, and these are text; remove it, or use"
        " completionOnlyLoss"
    )
