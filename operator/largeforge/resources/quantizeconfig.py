"""What the pods of a QuantizeJob are told, every value the effective one."""

from __future__ import annotations

from largeforge.api.names import API_VERSION, QUANTIZEJOB_LABEL, RUN_LABEL, STAGE_LABEL
from largeforge.api.quantize import (
    CalibrationSettings,
    EvaluateConfig,
    EvaluationSettings,
    MethodSettings,
    QuantizeConfig,
)
from largeforge.api.quantizedigest import method_digest
from largeforge.api.quantizejob import CALIBRATED, Calibration, QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.api.run import CONFIG_FILE, AdapterSource, ModelSource
from largeforge.api.uri import HfUri, parse
from largeforge.resources import enginelogging
from largeforge.resources.labels import common_labels
from largeforge.resources.names import quantize_config_name, quantize_step
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import Manifest
from largeforge.resources.progress import ProgressTarget, progress_data
from largeforge.resources.quantizestorage import (
    PREPARED_PATH,
    SOURCE_PATH,
    base_of,
    calibration_rows,
    held_out_rows,
    needs_cache,
    source_field,
    source_of,
    source_path,
    uses_hub,
)
from largeforge.resources.runconfig import hub_token_variable, row_settings
from largeforge.resources.runstorage import ADAPTER_PATH, CACHE_PATH, OUTPUT_PATH

WINDOW_TOKENS = 512
"""Tokens of a window: llm-compressor's and AutoAWQ's own evaluations are of this order, and it bounds the memory of an
engine that evaluates."""
MAX_WINDOWS = 64
"""32 768 tokens tell perplexities apart that differ by about half a percent; more text only takes longer."""
ENGINE_PORT = 8000
SERVED_NAME = "model"

_NO_CALIBRATION = Calibration.model_construct(datasets=[])


def preflight_config(job: QuantizeJob, run: QuantizeRunRecord) -> QuantizeConfig:
    """The configuration of preflight."""
    base, held_out = base_of(run), held_out_rows(job)
    calibration = job.spec.calibration or _NO_CALIBRATION
    return _config(
        job,
        run,
        stage="Preflight",
        source=_base(job, run),
        adapter=None
        if base.adapter is None
        else AdapterSource(uri=base.adapter, field=source_field(job), path=ADAPTER_PATH),
        methods=[_method(job, i) for i in range(len(job.spec.methods))],
        calibration=_calibration(calibration).model_copy(update={"datasets": row_settings(calibration_rows(job))}),
        evaluation=EvaluationSettings(
            dataset=row_settings([held_out])[0] if held_out is not None else None,
            window_tokens=WINDOW_TOKENS,
            max_windows=MAX_WINDOWS,
        ),
        prepared_path=None,
        cache_path=CACHE_PATH if job.spec.cache is not None and uses_hub(job, run) else None,
    )


def quantize_config(job: QuantizeJob, run: QuantizeRunRecord) -> QuantizeConfig:
    """The configuration of the run's current method."""
    source, calibration, method = source_of(job), job.status.calibration, run.method
    if method is None:
        raise AssertionError("a method is quantized by")
    needs_data = job.spec.methods[method] in CALIBRATED
    return _config(
        job,
        run,
        stage="Quantize",
        source=ModelSource(
            uri=source.uri,
            field=source_field(job),
            path=source_path(job, SOURCE_PATH),
            commit=source.commit,
            digest=source.digest,
            trust_remote_code=job.spec.source.trust_remote_code,
        ),
        methods=[_method(job, method)],
        calibration=_calibration(job.spec.calibration or _NO_CALIBRATION),
        evaluation=EvaluationSettings(dataset=None, window_tokens=WINDOW_TOKENS, max_windows=MAX_WINDOWS),
        prepared_path=PREPARED_PATH,
        prepared_digest=calibration.digest if needs_data and calibration is not None else None,
        cache_path=CACHE_PATH if needs_cache(run) else None,
    )


def evaluate_config(job: QuantizeJob, run: QuantizeRunRecord) -> EvaluateConfig:
    """The configuration of the evaluation of the source, or of the current method's result."""
    method = run.method
    return EvaluateConfig(
        namespace=job.metadata.namespace,
        job=job.metadata.name,
        run=run.number,
        digest=run.digest,
        subject=source_of(job).uri if method is None else job.spec.methods[method],
        field=source_field(job) if method is None else f"spec.methods[{method}]",
        engine_url=f"http://127.0.0.1:{ENGINE_PORT}",
        model_name=SERVED_NAME,
        prepared_path=PREPARED_PATH,
        windows_digest=run.windows_digest or "",
    )


def step_config_map(job: QuantizeJob, run: QuantizeRunRecord, *, progress: ProgressTarget | None) -> Manifest:
    """The ConfigMap of the run's current step."""
    config: QuantizeConfig | EvaluateConfig
    if run.stage == "Preflight":
        config = preflight_config(job, run)
    else:
        config = quantize_config(job, run) if run.stage == "Quantize" else evaluate_config(job, run)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_name(job, run),
            "namespace": job.metadata.namespace,
            "labels": step_labels(job, run),
            "ownerReferences": [owner_reference(API_VERSION, "QuantizeJob", job.metadata)],
        },
        "data": {
            CONFIG_FILE: config.model_dump_json(by_alias=True, indent=2) + "\n",
            **(progress_data(progress) if run.stage != "Preflight" else {}),
            **({enginelogging.FILE: enginelogging.engine_logging()} if run.stage == "Evaluate" else {}),
        },
    }


def config_name(job: QuantizeJob, run: QuantizeRunRecord) -> str:
    """The name of the ConfigMap of the run's current step."""
    return quantize_config_name(job.metadata.name, run.number, quantize_step(run.stage, run.method))


def step_labels(job: QuantizeJob, run: QuantizeRunRecord) -> dict[str, str]:
    """The labels of what belongs to a step of a run."""
    name = job.metadata.name
    component = {"Preflight": "preflight", "Quantize": "quantizer", "Evaluate": "evaluation"}[run.stage]
    own = {QUANTIZEJOB_LABEL: name, RUN_LABEL: str(run.number), STAGE_LABEL: run.stage}
    return common_labels(name=name, component=component) | own


def _config(job: QuantizeJob, run: QuantizeRunRecord, **parts: object) -> QuantizeConfig:
    spec = job.spec
    return QuantizeConfig.model_validate(
        {
            "namespace": job.metadata.namespace,
            "job": job.metadata.name,
            "run": run.number,
            "digest": run.digest,
            "output_uri": spec.output.uri,
            "output_path": OUTPUT_PATH,
            "use_cpu": spec.compute.gpus_per_node == 0,
            **parts,
        }
    )


def _base(job: QuantizeJob, run: QuantizeRunRecord) -> ModelSource:
    base, asked = base_of(run), job.spec.source
    hub = isinstance(parse(base.uri), HfUri)
    return ModelSource(
        uri=base.uri,
        field=source_field(job),
        path=None if hub else SOURCE_PATH,
        revision=(asked.revision or base.commit) if hub else None,
        commit=base.commit,
        digest=base.digest,
        token_env=hub_token_variable("base") if hub and (asked.secret_ref or base.secret_ref) else None,
        trust_remote_code=asked.trust_remote_code,
    )


def _method(job: QuantizeJob, place: int) -> MethodSettings:
    spec = job.spec
    method = spec.methods[place]
    return MethodSettings(
        field=f"spec.methods[{place}]",
        method=method,
        engine=spec.engine,
        group_size=spec.group_size(method),
        symmetric=spec.symmetric(method),
        ignore=list(spec.scheme.ignore),
        digest=method_digest(spec, method),
    )


def _calibration(calibration: Calibration) -> CalibrationSettings:
    return CalibrationSettings(
        datasets=[],
        num_samples=calibration.num_samples,
        max_length=calibration.max_length,
        seed=calibration.seed,
        apply_chat_template=calibration.apply_chat_template,
    )
