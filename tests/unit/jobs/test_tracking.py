from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from largeforge.jobs.tracking import RUN_TAG, begin_mlflow, blamed, environment, run_id
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
    again = tracked(tmp_path, report_to="wandb")
    assert (found["WANDB_RUN_ID"], found["WANDB_RESUME"]) == (again["WANDB_RUN_ID"], "allow")
    assert (found["WANDB_PROJECT"], found["WANDB_BASE_URL"]) == ("team/sql", "https://wandb.example")


def test_what_a_library_prints_and_the_code_are_not_sent(tmp_path):
    found = tracked(tmp_path, report_to="wandb")
    assert (found["WANDB_CONSOLE"], found["WANDB_DISABLE_CODE"], found["WANDB_LOG_MODEL"]) == ("off", "true", "false")
    assert "WANDB_BASE_URL" not in found


def test_mlflow_gets_server_and_experiment_and_does_not_wait_for_minutes(tmp_path):
    found = tracked(tmp_path, report_to="mlflow", uri="http://mlflow.team:5000")
    assert (found["MLFLOW_TRACKING_URI"], found["MLFLOW_EXPERIMENT_NAME"]) == ("http://mlflow.team:5000", "team/sql")
    assert found["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


@pytest.mark.parametrize("other", [{"namespace": "sales"}, {"uid": "another"}, {"digest": "cd" * 32}, {"run": 2}])
def test_no_two_runs_of_objects_are_one_run_of_the_tracker(tmp_path, other):
    assert run_id(config(tmp_path)).startswith("sql-r1-")
    assert run_id(config(tmp_path)) != run_id(config(tmp_path, **other))


class MLflow:
    """MLflow with the runs of its server; the last of `begun` is the one that is written to."""

    def __init__(self):
        self.runs = []
        self.begun = []

    def set_experiment(self, name):
        return SimpleNamespace(experiment_id=name)

    def search_runs(self, experiments, *, filter_string, max_results, output_format):
        assert (experiments, output_format) == (["team/sql"], "list")
        tagged = [run for run in self.runs if f"tags.`{RUN_TAG}` = '{run.tags[RUN_TAG]}'" == filter_string]
        return tagged[:max_results]

    def start_run(self, *, run_id=None, run_name=None, tags=None):
        if run_id is None:
            run_id = f"{run_name} as {len(self.runs)}"
            info, data = SimpleNamespace(run_id=run_id), SimpleNamespace(params={})
            self.runs.append(SimpleNamespace(tags=tags, info=info, data=data))
        self.begun.append(run_id)


def test_attempts_of_a_run_are_one_run_of_mlflow(tmp_path):
    library, tracking = MLflow(), {"report_to": "mlflow", "project": "team/sql"}
    first, second = (config(tmp_path, run=run, tracking=tracking) for run in (1, 2))
    for run in (first, second, first):
        assert begin_mlflow(run, library) == {}
    assert library.begun == ["sql-r1 as 0", "sql-r2 as 1", "sql-r1 as 0"]


def test_parameters_that_mlflow_has_are_not_sent_again(tmp_path):
    library, run = MLflow(), config(tmp_path, tracking={"report_to": "mlflow", "project": "team/sql"})
    begin_mlflow(run, library)
    library.runs[0].data.params = {"seed": "42"}
    assert begin_mlflow(run, library) == {"MLFLOW_MAX_LOG_PARAMS": "0"}


def test_an_error_of_the_trackers_library_names_the_field_and_the_remedy(tmp_path):
    error = type("MlflowException", (Exception,), {"__module__": "mlflow.exceptions"})("403\nand a page")
    run = config(tmp_path, tracking={"report_to": "mlflow", "project": "team/sql"})
    assert str(blamed(run, error)) == (
        "spec.tracking: mlflow failed (MlflowException: 403); correct uri and secret, or remove tracking"
    )
    assert blamed(run, ValueError("403")) is None
    assert blamed(config(tmp_path), error) is None
