from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.messages import TERMINATION_MESSAGE_LIMIT
from largeforge.api.quantize import PreparedRecord, QuantizeConfig, QuantizeResult
from largeforge.api.quantizejobstatus import CalibrationRecord, SourceRecord

METHOD = {
    "field": "spec.methods[0]",
    "method": "AWQ",
    "engine": "LLMCompressor",
    "group_size": 64,
    "symmetric": False,
    "ignore": ["lm_head"],
    "digest": "a" * 64,
}


def config(**changes: Any) -> QuantizeConfig:
    fields: dict[str, Any] = {
        "stage": "Preflight",
        "namespace": "lab",
        "job": "small",
        "run": 1,
        "digest": "d" * 64,
        "source": {"uri": "pvc://models/base", "field": "spec.source.uri", "path": "/mnt/source"},
        "methods": [METHOD],
        "calibration": {
            "datasets": [],
            "num_samples": 8,
            "max_length": 256,
            "seed": 42,
            "apply_chat_template": True,
        },
        "evaluation": {"dataset": None, "window_tokens": 512, "max_windows": 64},
        "prepared_path": None,
        "output_uri": "pvc://models/small",
        "output_path": "/mnt/output",
        "use_cpu": True,
    }
    return QuantizeConfig.model_validate(fields | changes)


def test_a_configuration_reads_back_from_its_json() -> None:
    assert QuantizeConfig.model_validate_json(config().model_dump_json(by_alias=True)) == config()


def test_an_unknown_field_of_a_configuration_is_an_error() -> None:
    with pytest.raises(ValidationError, match="extra"):
        config(seeed=1)


def test_a_long_result_fits_the_termination_message_and_keeps_what_is_acted_on() -> None:
    prepared = PreparedRecord(
        source=SourceRecord(uri="pvc://models/small/small-0123456789ab-source", digest="b" * 64, size_bytes=1),
        calibration=CalibrationRecord(digest="c" * 64, samples=8, tokens=2048, problems=["p" * 512] * 5),
        windows=64,
        window_tokens=32_768,
        windows_digest="e" * 64,
        uri="pvc://models/small/small-0123456789ab-tokens",
    )
    result = QuantizeResult(
        outcome="Succeeded",
        stage="Preflight",
        run_digest="d" * 64,
        prepared=prepared,
        warnings=["w" * 256] * 8,
        versions=[Metric(name=f"library{i}", value="1" * 60) for i in range(16)],
    )

    said = QuantizeResult.model_validate_json(result.message())

    assert len(result.message().encode()) <= TERMINATION_MESSAGE_LIMIT
    assert said.prepared is not None
    assert (said.prepared.uri, said.prepared.source, said.run_digest) == (prepared.uri, prepared.source, "d" * 64)


def test_the_text_of_an_error_is_cut_last() -> None:
    error = ErrorDetail(reason="InvalidConfig", message="é" * 2048)
    result = QuantizeResult(outcome="Failed", stage="Quantize", error=error, warnings=["w" * 256] * 8)

    said = QuantizeResult.model_validate_json(result.message())

    assert said.error is not None
    assert said.error.message.startswith("é" * 100)
    assert said.warnings == []
