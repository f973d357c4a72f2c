from __future__ import annotations

import hashlib

import pytest

from largeforge.jobs import weights
from tests.unit.jobs.folders import safetensors


def test_the_digest_is_what_sha256sum_prints_for_the_files_one_after_the_other(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "notes.txt").write_text("three")
    files = weights.safetensors_files(tmp_path)
    assert [file.name for file in files] == ["a.safetensors", "b.safetensors"]
    assert weights.digest(files) == hashlib.sha256(b"onetwo").hexdigest()


def test_a_whole_file_has_no_damage(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors())
    assert weights.damage(path) is None


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "is not a safetensors file"),
        (b"\x80\x04pickle..", "is not a safetensors file, or cut short"),
        (b"\x02" + b"\x00" * 7 + b"[]", "is not a safetensors file"),
        (safetensors(cut=1), "is cut short or damaged"),
        (safetensors() + b"more", "is cut short or damaged"),
    ],
)
def test_what_is_no_whole_file_says_why(tmp_path, content, damage):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert str(weights.damage(path)).startswith(damage)
