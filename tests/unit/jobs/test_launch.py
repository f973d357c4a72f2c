from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from largeforge.api.run import RunResult
from largeforge.jobs import checkpoints, launch
from tests.unit.jobs.runs import config, source

DIGEST = "ab" * 32


@pytest.fixture
def container(tmp_path):
    """Run the launcher as the process that it is, with *child* in torchrun's place; returns it when it has started."""
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    (tmp_path / "config.json").write_text(config(tmp_path, training=training).model_dump_json(by_alias=True))
    started = []

    def run(child, *, config_file="config.json"):
        (tmp_path / "child.py").write_text(textwrap.dedent(child))
        (tmp_path / "main.py").write_text(
            "import sys\nfrom largeforge.jobs import launch\n"
            f"launch.torchrun = lambda config: [sys.executable, {str(tmp_path / 'child.py')!r}]\n"
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


TRAIN_UNTIL_STOPPED = """
    import time
    (state / "training").touch()
    print("ready", flush=True)
    deadline = time.monotonic() + 30
    while not (state / "stop").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    fail((0, 75, 9))
"""


def test_ranks_that_train_are_asked_to_stop_and_what_left_a_checkpoint_ends_with_75(container, tmp_path):
    folder = tmp_path / ".sql-0123456789ab-checkpoints"
    (folder / "checkpoint-7").mkdir(parents=True)
    checkpoints.seal(checkpoints.path_of(folder, 7), step=7, trained_seconds=3)
    place = {"folder": str(folder), "uri": "pvc://out/.sql-0123456789ab-checkpoints"}
    process = container(
        LEAVE + f"    (state / 'checkpoints.json').write_text({json.dumps(place)!r})" + TRAIN_UNTIL_STOPPED
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    result = message(tmp_path)
    assert (process.returncode, result.error.reason) == (75, "Disrupted")
    assert (result.checkpoint.step, result.checkpoint.uri) == (7, f"{place['uri']}/checkpoint-7")


def test_ranks_that_train_but_left_no_checkpoint_do_not_end_with_75(container, tmp_path):
    process = container(LEAVE + TRAIN_UNTIL_STOPPED)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert (process.returncode, message(tmp_path).error.reason) == (143, "Disrupted")


def test_before_training_has_begun_sigterm_ends_torchrun_at_once(container, tmp_path):
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
    assert (process.returncode, message(tmp_path).error.reason) == (143, "Disrupted")


OUT_OF_GPU_MEMORY = """
    short = {"outcome": "Failed", "error": {"reason": "OutOfGPUMemory", "message": "2 GiB"}}
    halvings = int(os.environ["LARGEFORGE_BATCH_HALVINGS"])
"""


def test_out_of_gpu_memory_starts_again_with_half_the_micro_batch(container, tmp_path):
    child = """
    if halvings < 2:
        leave(1, **short)
        fail((1, 1, 9), (0, -15, 9))
    leave(0, outcome="Succeeded")
    """
    process = container(LEAVE + OUT_OF_GPU_MEMORY + child)
    said = process.communicate(timeout=30)[0].splitlines()
    assert said == [
        "the GPU's memory did not suffice; again with micro-batch 2 and accumulation 4",
        "the GPU's memory did not suffice; again with micro-batch 1 and accumulation 8",
        "succeeded: ",
    ]
    assert (process.returncode, message(tmp_path).outcome) == (0, "Succeeded")


def test_a_micro_batch_of_one_cannot_be_halved(container, tmp_path):
    process = container(LEAVE + OUT_OF_GPU_MEMORY + "    leave(0, **short)\n    fail((0, 1, 9))\n")
    process.communicate(timeout=30)
    error = message(tmp_path).error
    assert (process.returncode, error.reason) == (1, "OutOfGPUMemory")
    assert error.message == "with the micro-batch halved 2 times still: 2 GiB"


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
    os.kill(launcher, signal.SIGALRM)  # as the alarm will, at the end of the grace period
    process.communicate(timeout=10)
    assert process.returncode == 143


def test_a_configuration_that_cannot_be_read_is_told_without_starting_anything(container, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"job": "sql", "processes": "many"}))
    process = container("raise SystemExit(3)", config_file="bad.json")
    process.communicate(timeout=30)
    error = message(tmp_path).error
    assert (process.returncode, error.reason) == (64, "InvalidConfig")
    assert "run: Field required" in error.message
    assert "many" not in error.message


def test_threads_are_shared_out_and_the_pods_own_settings_stay(tmp_path):
    two = config(tmp_path, compute={"processes": 2, "use_cpu": True, "strategy": "DDP"})
    mine = launch.environment(two, {"PET_NPROC_PER_NODE": "3", "PATH": "/bin"}, state="/tmp/s", cores=8)  # noqa: S108
    assert (mine["OMP_NUM_THREADS"], mine["PET_NNODES"], mine["PATH"]) == ("2", "1", "/bin")
    assert mine["TOKENIZERS_PARALLELISM"] == "false"
    theirs = launch.environment(two, {"OMP_NUM_THREADS": "5"}, state="/tmp/s", cores=1)  # noqa: S108
    assert (theirs["OMP_NUM_THREADS"], theirs["PET_NPROC_PER_NODE"]) == ("5", "2")


def test_the_hub_is_out_of_reach_unless_the_ranks_have_to_download(tmp_path):
    def offline(**fields):
        return launch.environment(config(tmp_path, **fields), {}, state="/tmp/s", cores=1)["HF_HUB_OFFLINE"]  # noqa: S108

    hub = {"uri": "hf://org/base", "field": "spec.base.uri", "path": None}
    rows = source(tmp_path / "rows.jsonl").model_copy(update={"path": None}).model_dump()
    assert offline() == "1"
    assert (offline(base=hub), offline(base=hub, cache_path="/mnt/cache")) == ("0", "1")
    assert offline(eval_dataset=rows) == "0"


def test_no_shell_and_no_user_text_in_the_command(tmp_path):
    assert launch.torchrun(tmp_path) == [
        sys.executable,
        "-m",
        "largeforge.jobs.elastic",
        "-m",
        "largeforge.jobs.finetune",
        str(tmp_path),
    ]
