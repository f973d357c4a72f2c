"""Where metrics are sent besides status: one run of the tracker for each run of the object. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs.errors import RunError

RUNS = "runs"
"""The folder of TensorBoard's files, beside the checkpoints while the run lasts, then in the artifact."""
FIELD = "spec.tracking"
LIBRARIES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
RUN_TAG = "largeforge.ai/run"
"""The tag by which the attempts of a run find their run of MLflow, which chooses the ids itself."""
_ERROR = 300
"""Characters of a library's error that are told."""


def run_id(config: RunConfig) -> str:
    """The same for all attempts of a run of the object, and for no other run."""
    sha = hashlib.sha256(f"{config.namespace}\n{config.uid}\n{config.digest}".encode())
    return f"{config.job}-r{config.run}-{sha.hexdigest()[:12]}"


def environment(config: RunConfig, folder: Path) -> dict[str, str]:
    """The variables for the tracker of *config*; *folder* is that of the run's checkpoints. Pure.

    The attempts of a run write to one run of the tracker: TensorBoard's lies with the checkpoints, W&B's has the id
    that it is given, MLflow's is found by `begin_mlflow`.
    """
    tracking = config.tracking
    if tracking is None:
        return {}
    if tracking.report_to == "tensorboard":
        return {"TENSORBOARD_LOGGING_DIR": str(folder / RUNS)}
    if tracking.report_to == "wandb":
        server = {"WANDB_BASE_URL": tracking.uri} if tracking.uri is not None else {}
        return {
            **server,
            "WANDB_PROJECT": tracking.project,
            "WANDB_RUN_ID": run_id(config),
            "WANDB_RESUME": "allow",
            "WANDB_LOG_MODEL": "false",
            "WANDB_WATCH": "false",
            "WANDB_SILENT": "true",
            # Its own capture of the console would send what a library prints.
            "WANDB_CONSOLE": "off",
            "WANDB_DISABLE_CODE": "true",
            "WANDB_DISABLE_GIT": "true",
        }
    return {
        **({"MLFLOW_TRACKING_URI": tracking.uri} if tracking.uri is not None else {}),
        "MLFLOW_EXPERIMENT_NAME": tracking.project,
        # Its default tries for minutes in each call; a run must not wait so long for a tracker that is gone.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def begin_mlflow(config: RunConfig, mlflow: Any) -> dict[str, str]:
    """Go on with the run of MLflow that an earlier attempt wrote to, or begin one; variables for its callback.

    Begun here, it is not ended with the last step: what is measured after it would open a run of its own. MLflow's
    parameters cannot be changed once they are there, and those of a resumed attempt differ: they are sent once.
    """
    experiment = mlflow.set_experiment(config.tracking.project if config.tracking is not None else "").experiment_id
    name = run_id(config)
    found = mlflow.search_runs(
        [experiment], filter_string=f"tags.`{RUN_TAG}` = '{name}'", max_results=1, output_format="list"
    )
    if not found:
        mlflow.start_run(run_name=f"{config.job}-r{config.run}", tags={RUN_TAG: name})
        return {}
    mlflow.start_run(run_id=found[0].info.run_id)
    return {"MLFLOW_MAX_LOG_PARAMS": "0"} if found[0].data.params else {}


def blamed(config: RunConfig, error: Exception) -> RunError | None:
    """What *error* means where the tracker's library raised it; None where it comes from elsewhere."""
    library = type(error).__module__.partition(".")[0]
    if config.tracking is None or library not in LIBRARIES.values():
        return None
    text = (str(error).splitlines() or [""])[0][:_ERROR]
    return RunError(
        f"{FIELD}: {library} failed ({type(error).__name__}: {text}); correct uri and secret, or remove tracking",
        field=FIELD,
    )
