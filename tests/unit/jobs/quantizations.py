"""Configurations of the steps of a QuantizeJob, as the tests of its jobs need them."""

from __future__ import annotations

from largeforge.api.quantize import EvaluateConfig, MethodSettings, QuantizeConfig


def method(name="AWQ", *, group_size=64, **fields):
    """One method; those of 8 bits have no group size."""
    grouped = name in ("AWQ", "GPTQ")
    return MethodSettings.model_validate(
        {
            "field": "spec.methods[0]",
            "method": name,
            "engine": "LLMCompressor",
            "group_size": group_size if grouped else None,
            "symmetric": name != "AWQ",
            "ignore": ["lm_head"],
            "digest": "e" * 64,
            **fields,
        }
    )


def config(tmp_path, *datasets, stage="Preflight", methods=("AWQ",), **fields):
    """A step whose source and output lie below *tmp_path*."""
    (tmp_path / "output").mkdir(parents=True, exist_ok=True)
    calibration = {"num_samples": 8, "max_length": 64, "seed": 42, "apply_chat_template": True}
    return QuantizeConfig.model_validate(
        {
            "stage": stage,
            "namespace": "team",
            "job": "small",
            "run": 1,
            "digest": "ab" * 32,
            "source": {"uri": "pvc://models/base", "field": "spec.source.uri", "path": str(tmp_path / "source")},
            "methods": [method(name).model_dump() for name in methods],
            "calibration": calibration | {"datasets": list(datasets)} | fields.pop("calibration", {}),
            "evaluation": {"dataset": None, "window_tokens": 32, "max_windows": 40} | fields.pop("evaluation", {}),
            "prepared_path": None,
            "output_uri": "pvc://out/small",
            "output_path": str(tmp_path / "output"),
            "use_cpu": True,
            **fields,
        }
    )


def evaluation(tmp_path, url, digest):
    """The evaluation of a method's result by the engine at *url*."""
    return EvaluateConfig(
        namespace="team",
        job="small",
        run=1,
        digest="ab" * 32,
        subject="AWQ",
        field="spec.methods[0]",
        engine_url=url,
        model_name="model",
        prepared_path=str(tmp_path),
        windows_digest=digest,
    )
