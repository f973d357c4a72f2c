from __future__ import annotations

from largeforge.resources import names


def test_the_longest_names_fit():
    longest = "a" * 40
    made = [make(longest, 99999, 99999) for make in (names.training_job_name, names.preflight_job_name)]
    made += [make(longest, 99999) for make in (names.run_config_name, names.preflight_config_name)]
    assert max(map(len, made)) <= 63
    assert len(set(made)) == 4
