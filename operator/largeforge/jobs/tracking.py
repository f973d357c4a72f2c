"""Where metrics are sent besides status: what the libraries read from the environment. Pure; needs no torch."""

from __future__ import annotations

from pathlib import Path

from largeforge.api.run import RunConfig

RUNS = "runs"
"""The folder of TensorBoard's files, beside the checkpoints while the run lasts, then in the artifact."""
FIELD = "spec.tracking"
LIBRARIES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def environment(config: RunConfig, folder: Path) -> dict[str, str]:
    """The variables for the tracker of *config*; *folder* is that of the run's checkpoints.

    The attempts of a run write to one run of the tracker where the tracker can: their names are the same.
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
            "WANDB_RUN_ID": f"{config.job}-r{config.run}-{config.digest[:8]}",
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
