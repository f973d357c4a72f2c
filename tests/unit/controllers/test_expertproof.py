from __future__ import annotations

import pytest

from largeforge.api.expert import Probe
from largeforge.api.expertstatus import Resolved
from largeforge.api.probes import PROBES
from largeforge.controllers.engine import Answers, Said
from largeforge.controllers.expertproof import judge, judge_answer, judge_model, off, probe_digest
from tests.unit.serving import first_tokens, probe_records

TRAINED = "sql-aaaaaaaa"


def version(probes=None):
    probes = probe_records() if probes is None else probes
    return Resolved.model_validate(
        {"uri": "pvc://models/out/sql", "base": "pvc://models/base", "engineName": TRAINED, "probes": probes}
    )


def answers(likeliest):
    return Answers(dict.fromkeys(PROBES, likeliest))


def moved(by, model=TRAINED):
    return answers({token: value + by for token, value in first_tokens(model).items()})


BASE = moved(0, "smol")


def judged(adapter, *, base=BASE, again=BASE, probes=None):
    trouble = judge(version(probes), base=base, again=again, adapter=adapter)
    return trouble and trouble.reason


def test_the_trained_adapter_is_proven():
    assert judged(moved(0)) is None


def test_sixteen_bit_logits_are_near_enough():
    assert judged(moved(0.29)) is None


def test_another_adapter_is_told():
    assert judged(moved(0.5)) == "AdapterDiffers"
    trouble = judge(version(), base=BASE, again=BASE, adapter=moved(0.5))
    assert "0.50 off the training's record (allowed are 0.30)" in trouble.message


def test_an_adapter_that_does_nothing_is_told_with_a_record_and_without_one():
    assert judged(BASE) == "AdapterHasNoEffect"
    assert judged(BASE, probes=[]) == "AdapterHasNoEffect"
    assert judged(moved(0), probes=[]) is None


def test_the_engines_own_noise_is_no_effect():
    noisy = moved(0.05, "smol")
    assert judged(moved(0.08, "smol"), again=noisy, probes=[]) == "AdapterHasNoEffect"
    assert judged(moved(0.12, "smol"), again=noisy, probes=[]) is None


def test_what_the_base_is_off_its_record_is_allowed_three_times():
    coarse = moved(0.3, "smol")
    assert judged(moved(0.8), base=coarse, again=coarse) is None
    assert judged(moved(1.0), base=coarse, again=coarse) == "AdapterDiffers"


def test_another_base_is_told():
    other = moved(1.2, "smol")
    assert judged(moved(1.2), base=other, again=other) == "BaseMismatch"


def test_a_training_that_moved_nothing_is_not_held_against_its_adapter():
    same = probe_records()[0]["base"]
    assert judged(BASE, probes=probe_records(result=same)) is None


def test_a_likely_token_that_the_engine_does_not_name_counts_as_less_likely_than_its_last():
    record = version().probes
    assert off(record, answers({1: -0.5, 2: -1.5}), of="base") == 0
    assert off(record, answers({1: -0.5, 9: -5.0}), of="base") == pytest.approx((3.5 + 2.0) / 3)
    assert off([], BASE, of="base") is None


def test_unlikely_tokens_are_not_compared_but_the_likeliest_is():
    sure = [{"id": 1, "logprob": "-0.01"}, {"id": 2, "logprob": "-9.0"}]
    assert off(version(probe_records(result=sure)).probes, answers({1: -0.02, 2: -12.0}), of="result") < 0.02
    unsure = [{"id": token, "logprob": "-5.0"} for token in range(5)]
    assert off(version(probe_records(result=unsure)).probes, answers({0: -7.0, 9: -8.0}), of="result") > 1


def test_a_model_that_is_not_the_trained_one_is_told():
    assert judge_model(version(), moved(0.3)) is None
    assert judge_model(version([]), moved(9)) is None
    trouble = judge_model(version(), moved(1.5))
    assert trouble.reason == "ModelDiffers"
    assert "pvc://models/out/sql" in trouble.message


def test_an_answer_has_to_match_and_is_not_repeated():
    probe = Probe(prompt="What is the capital of France?", expect_regex=r"(?i)\bparis\b")
    assert judge_answer(probe, Said("It is Paris.")) is None
    trouble = judge_answer(probe, Said("It is Lyon."))
    assert "does not match expectRegex '(?i)\\\\bparis\\\\b'" in trouble.message
    assert "Lyon" not in trouble.message


def test_without_a_pattern_any_answer_will_do_but_none():
    assert judge_answer(Probe(prompt="Hello"), Said("Hi")) is None
    assert judge_answer(Probe(prompt="Hello"), Said("")).message == "spec.probe.prompt: the answer is empty"


def test_a_pattern_that_backtracks_elsewhere_takes_no_time():
    assert judge_answer(Probe(prompt="x", expect_regex="(a+)+$"), Said("a" * 4000 + "b")) is not None


def test_a_pattern_that_is_none_is_said():
    assert "is not a regular expression" in judge_answer(Probe(prompt="x", expect_regex="(x"), Said("y")).message


def test_a_placement_knows_which_probe_it_has_passed():
    assert probe_digest(None) == ""
    assert probe_digest(Probe(prompt="a")) != probe_digest(Probe(prompt="b"))
