from __future__ import annotations

from pathlib import Path

from largeforge.jobs.tracking import environment
from tests.unit.jobs.runs import config

FOLDER = Path("/mnt/checkpoints/.sql-0123456789ab-checkpoints")


def tracked(tmp_path, **tracking):
    return environment(config(tmp_path, tracking={"project": "team/sql", **tracking}), FOLDER)


def test_nothing_is_set_where_nothing_is_tracked(tmp_path):
    assert environment(config(tmp_path), FOLDER) == {}


def test_tensorboards_files_lie_with_the_checkpoints_so_that_attempts_add_to_them(tmp_path):
    found = tracked(tmp_path, report_to="tensorboard")
    assert found == {"TENSORBOARD_LOGGING_DIR": f"{FOLDER}/runs"}


def test_attempts_of_a_run_are_one_run_of_wandb(tmp_path):
    found = tracked(tmp_path, report_to="wandb", uri="https://wandb.example")
    assert (found["WANDB_RUN_ID"], found["WANDB_RESUME"]) == ("sql-r1-abababab", "allow")
    assert (found["WANDB_PROJECT"], found["WANDB_BASE_URL"]) == ("team/sql", "https://wandb.example")


def test_what_a_library_prints_and_the_code_are_not_sent(tmp_path):
    found = tracked(tmp_path, report_to="wandb")
    assert (found["WANDB_CONSOLE"], found["WANDB_DISABLE_CODE"], found["WANDB_LOG_MODEL"]) == ("off", "true", "false")
    assert "WANDB_BASE_URL" not in found


def test_mlflow_gets_server_and_experiment_and_does_not_wait_for_minutes(tmp_path):
    found = tracked(tmp_path, report_to="mlflow", uri="http://mlflow.team:5000")
    assert (found["MLFLOW_TRACKING_URI"], found["MLFLOW_EXPERIMENT_NAME"]) == ("http://mlflow.team:5000", "team/sql")
    assert found["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
