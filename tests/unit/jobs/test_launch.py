from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from largeforge.api.run import RunConfig, RunResult
from largeforge.jobs import launch

DIGEST = "d" * 64


def config(**changes):
    return RunConfig.model_validate(
        {
            "job": "sql",
            "run": 1,
            "digest": DIGEST,
            "method": "SFT",
            "baseUri": "pvc://models/base",
            "basePath": "/mnt/base",
            "datasets": [],
            "evalSplitRatio": 0.1,
            "lora": None,
            "training": {
                "maxSteps": 1,
                "numTrainEpochs": None,
                "learningRate": 1e-3,
                "perDeviceTrainBatchSize": 1,
                "gradientAccumulationSteps": 1,
                "maxLength": 64,
                "seed": 1,
                "precision": "Auto",
            },
            "processes": 2,
            "useCpu": True,
            "outputUri": "pvc://models/out",
            "outputPath": "/mnt/output",
        }
        | changes
    )


@pytest.fixture
def container(tmp_path):
    """Run the launcher as the process that it is, with *child* in torchrun's place; returns it when it has started."""
    (tmp_path / "config.json").write_text(config().model_dump_json(by_alias=True))
    started = []

    def run(child, *, config_file="config.json"):
        (tmp_path / "child.py").write_text(textwrap.dedent(child))
        (tmp_path / "main.py").write_text(
            "import sys\nfrom largeforge.jobs import launch\n"
            f"launch.command = lambda config: [sys.executable, {str(tmp_path / 'child.py')!r}]\n"
            "sys.exit(launch.main())\n"
        )
        process = subprocess.Popen(
            [
                sys.executable,
                tmp_path / "main.py",
                tmp_path / config_file,
                f"--termination-log={tmp_path / 'message'}",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def message(tmp_path):
    return RunResult.model_validate_json((tmp_path / "message").read_bytes())


LEAVE = """
    import json, os, pathlib, sys
    state = pathlib.Path(os.environ["LARGEFORGE_STATE_DIR"])
    def leave(rank, **result):
        (state / f"rank-{rank}.json").write_text(json.dumps(result))
    def fail(*failures):
        names = ("rank", "exit_code", "timestamp")
        seen = {"failures": [dict(zip(names, f)) for f in failures], "error": ""}
        (state / "torchrun.json").write_text(json.dumps(seen))
        sys.exit(1)
"""


def test_the_first_ranks_result_becomes_the_termination_message(container, tmp_path):
    process = container(LEAVE + f"    leave(0, outcome='Succeeded', runDigest='{DIGEST}')\n")
    assert process.communicate(timeout=30)[0] == "succeeded: \n"
    assert (process.returncode, message(tmp_path)) == (0, RunResult(outcome="Succeeded", run_digest=DIGEST))


def test_a_workers_exit_code_is_handed_out_though_torchrun_ends_with_1(container, tmp_path):
    child = """
    leave(1, outcome="Failed", error={"reason": "DatasetInvalid", "message": "line 3", "field": "spec.datasets[0].uri"})
    fail((1, 65, 9), (0, -15, 9))
    """
    process = container(LEAVE + child)
    process.communicate(timeout=30)
    error = message(tmp_path).error
    assert (process.returncode, error.reason, error.field) == (65, "DatasetInvalid", "spec.datasets[0].uri")


def test_a_worker_that_left_nothing_still_gets_a_message(container, tmp_path):
    process = container(LEAVE + "    fail((0, -11, 9))\n")
    process.communicate(timeout=30)
    assert process.returncode == 139
    assert message(tmp_path).error.message == "rank 0 was killed by SIGSEGV; see the pod's log"


def test_sigterm_is_handed_on_and_ends_with_75(container, tmp_path):
    process = container(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert (process.returncode, message(tmp_path).error.reason) == (75, "Disrupted")


def test_a_child_that_ignores_sigterm_is_killed_with_its_group(container):
    process = container(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getppid(), flush=True)
        time.sleep(60)
        """
    )
    launcher = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    os.kill(launcher, signal.SIGALRM)  # as the alarm will, 20 seconds later
    process.communicate(timeout=10)
    assert process.returncode == 75


def test_a_configuration_that_cannot_be_read_is_told_without_starting_anything(container, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"job": "sql", "processes": "many"}))
    process = container("raise SystemExit(3)", config_file="bad.json")
    process.communicate(timeout=30)
    error = message(tmp_path).error
    assert (process.returncode, error.reason) == (64, "InvalidConfig")
    assert "run: Field required" in error.message
    assert "many" not in error.message


def test_threads_are_shared_out_and_the_pods_own_settings_stay():
    mine = launch.environment(config(), {"PET_NPROC_PER_NODE": "3", "PATH": "/bin"}, state="/tmp/s", cores=8)  # noqa: S108
    assert (mine["OMP_NUM_THREADS"], mine["PET_NNODES"], mine["PATH"]) == ("2", "1", "/bin")
    assert (mine["HF_HUB_OFFLINE"], mine["TOKENIZERS_PARALLELISM"]) == ("1", "false")
    theirs = launch.environment(config(), {"OMP_NUM_THREADS": "5"}, state="/tmp/s", cores=1)  # noqa: S108
    assert (theirs["OMP_NUM_THREADS"], theirs["PET_NPROC_PER_NODE"]) == ("5", "2")


def test_no_shell_and_no_user_text_in_the_command(tmp_path):
    assert launch.command(tmp_path) == [
        sys.executable,
        "-m",
        "largeforge.jobs.elastic",
        "-m",
        "largeforge.jobs.finetune",
        str(tmp_path),
    ]
