from __future__ import annotations

import os

from largeforge.jobs import container

CORES = len(os.sched_getaffinity(0))


def test_a_quota_bounds_the_processors(tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert container.available(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert container.available(tmp_path) == 1


def test_a_quota_of_the_first_version_does_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    assert container.available(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert container.available(tmp_path) == CORES


def test_without_a_quota_all_processors_count(tmp_path):
    assert container.available(tmp_path) == CORES
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert container.available(tmp_path) == CORES


def test_memory_kills_are_read_where_the_control_group_tells_them(tmp_path):
    assert container.memory_kills(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert container.memory_kills(tmp_path) == 2
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    assert container.memory_kills(tmp_path) == 3
