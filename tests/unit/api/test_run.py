from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.run import TERMINATION_MESSAGE_LIMIT, RunConfig, RunResult


def test_a_result_that_fits_is_handed_out_whole():
    result = RunResult(outcome="Succeeded", run_digest="d", metrics=[Metric(name="loss", value="1.5")])
    assert RunResult.model_validate_json(result.message()) == result


def test_a_long_result_loses_metrics_before_it_loses_the_error():
    metrics = [Metric(name=f"metric{number}", value="1" * 60) for number in range(60)]
    error = ErrorDetail(reason="DatasetInvalid", message="row 17: no assistant message")
    result = RunResult(outcome="Failed", error=error, metrics=metrics)
    message = result.message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_LIMIT
    read = RunResult.model_validate_json(message)
    assert read.error == error
    assert 0 < len(read.metrics) < len(metrics)


def test_a_text_of_many_bytes_for_each_character_still_fits():
    error = ErrorDetail(reason="TrainingFailed", message="数" * 2000)
    assert len(RunResult(outcome="Failed", error=error).message().encode()) <= TERMINATION_MESSAGE_LIMIT


def test_an_unknown_field_between_our_own_processes_is_an_error():
    with pytest.raises(ValidationError):
        RunResult.model_validate_json(json.dumps({"outcome": "Succeeded", "surprise": 1}))
    with pytest.raises(ValidationError):
        RunConfig.model_validate_json("{}")
