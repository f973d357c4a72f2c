from __future__ import annotations

import hashlib
from contextlib import contextmanager

import pytest

from largeforge.api.finetunejobstatus import TokenLogprob
from largeforge.api.probes import PROBES
from largeforge.jobs import plot, probing


class Tokenizer:
    chat_template = "{{ messages }}"

    def apply_chat_template(self, conversation, *, add_generation_prompt, tokenize, return_dict):
        assert (add_generation_prompt, tokenize, return_dict) == (True, True, False)
        return [len(message["content"]) for message in conversation]


def test_each_conversation_is_put_into_the_template_as_the_engine_does():
    prompts = probing.prompt_ids(Tokenizer())
    assert prompts.keys() == PROBES.keys()
    assert prompts["fact"] == [len("What is the capital of France?")]


def test_a_base_without_a_chat_template_is_not_probed():
    plain = Tokenizer()
    plain.chat_template = None
    assert probing.prompt_ids(plain) == {}
    assert probing.records({}, {}, {}) == []


def test_the_digest_is_over_four_bytes_of_each_id():
    assert probing.prompt_digest([1, 258]) == hashlib.sha256(b"\x01\0\0\0\x02\x01\0\0").hexdigest()


class Adapted:
    """A model whose adapter can be turned off."""

    enabled = True

    @contextmanager
    def disable_adapter(self):
        self.enabled = False
        yield
        self.enabled = True


def test_the_base_is_measured_without_the_adapter_also_in_a_resumed_attempt(monkeypatch):
    monkeypatch.setattr(probing, "answers", lambda model, _: {"fact": [model.enabled]})
    for begun in (False, True):
        assert probing.base_answers(Adapted(), {"fact": [1]}, begun=begun) == {"fact": [False]}


def test_where_all_weights_are_trained_the_base_is_gone_after_the_first_step(monkeypatch):
    monkeypatch.setattr(probing, "answers", lambda model, _: {"fact": [model]})
    assert probing.base_answers("whole", {"fact": [1]}, begun=False) == {"fact": ["whole"]}
    assert probing.base_answers("whole", {"fact": [1]}, begun=True) == {}


def test_a_record_holds_base_and_result_by_conversation():
    base, result = [TokenLogprob(id=3, logprob="-0.1000")], [TokenLogprob(id=4, logprob="-0.2000")]
    (record,) = probing.records({"fact": [1]}, {"fact": base}, {"fact": result})
    assert (record.name, record.base, record.result) == ("fact", base, result)
    (unmeasured,) = probing.records({"fact": [1]}, {}, {"fact": result})
    assert unmeasured.base == []


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [([1, 2, 3, 4, 5], 3, [1, 2, 3, 4, 5]), ([0, 3, 0, 3, 0], 3, [0, 1, 2, 1, 0]), ([7], 5, [7]), ([], 5, [])],
)
def test_the_moving_mean_does_not_shift_the_curve(values, width, expected):
    assert plot.smooth(values, width) == expected
