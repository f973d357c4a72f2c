from __future__ import annotations

from pathlib import Path

import pytest

from largeforge.jobs import room
from largeforge.jobs.errors import DiskFullError
from tests.unit.jobs.runs import config, source, written

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0, "target_modules": ["all-linear"]}


def run(tmp_path, **fields):
    return config(tmp_path, source(written(tmp_path / "a.jsonl", "{}")), **fields)


def sizes(run, **kwargs):
    return [need.size for need in room.needs(run, **kwargs)]


def test_an_adapter_and_its_checkpoints_count_what_is_trained(tmp_path):
    small = 16 << 20
    found = sizes(run(tmp_path, lora=LORA), parameters=10**9, trained=10**7, base_bytes=2 * 10**9)
    assert found == [4 * 10**7 + small, 3 * (12 * 10**7 + small)]


def test_a_whole_model_is_as_large_as_its_base(tmp_path):
    small = 16 << 20
    for fields in ({"lora": None}, {"lora": LORA, "merge": True}):
        found = sizes(run(tmp_path, **fields), parameters=10**9, trained=10**7, base_bytes=2 * 10**9)
        assert found[0] == 2 * 10**9 + small


@pytest.mark.parametrize(
    ("optim", "size"), [("adamw_torch", 8), ("adamw_8bit", 2), ("adafactor", 1), ("sgd", 4), ("muon", 8)]
)
def test_the_optimizers_state_counts(optim, size):
    assert room.state_bytes(optim) == size


def test_too_little_room_is_said_with_the_arithmetic(tmp_path):
    needs = room.needs(run(tmp_path, lora=LORA), parameters=10**9, trained=10**8, base_bytes=2 * 10**9)
    with pytest.raises(DiskFullError) as caught:
        room.check(needs, free=lambda _: 10**9)
    assert str(caught.value) == (
        "pvc://out/sql: the run needs about 4.1 GB (an adapter of 0.4 GB and 3 checkpoints of 1.2 GB (100,000,000"
        " trained weights of 12 bytes)), and 1.0 GB are free; free space, lower checkpoint.keep, or use a larger claim"
    )
    assert (caught.value.field, caught.value.exit_code) == ("spec.output.uri", 1)
    room.check(needs, free=lambda _: 5 * 10**9)


def test_what_earlier_runs_left_is_room_because_it_goes_before(tmp_path):
    wanted, sizes = run(tmp_path, lora=LORA), {"parameters": 10**9, "trained": 10**8, "base_bytes": 2 * 10**9}
    needs = room.needs(wanted, **sizes, freed=3 * 10**9)
    room.check(needs, free=lambda _: 2 * 10**9)
    with pytest.raises(DiskFullError, match=r"weights of 12 bytes, less 3\.0 GB of earlier runs"):
        room.check(needs, free=lambda _: 10**9)


def test_what_is_not_mounted_here_is_not_asked(tmp_path):
    wanted = run(tmp_path, output_path="/nowhere/output")
    wanted = wanted.model_copy(update={"checkpoint": wanted.checkpoint.model_copy(update={"path": "/nowhere"})})
    room.check(room.needs(wanted, parameters=10**12, trained=10**12, base_bytes=0), free=lambda _: 0)
    room.check_writable(wanted)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "output")
    with pytest.raises(room.NotWritableError) as caught:
        room.check_writable(run(tmp_path))
    assert str(caught.value).startswith("pvc://out/sql: cannot be written; ")
