from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from largeforge.router import snapshot
from largeforge.router.snapshot import Objects, SnapshotError
from largeforge.router.table import build
from tests.unit.router.test_table import SLICE, endpoint, expert, service, slice_

OBJECTS = Objects(
    [expert("sql", routing={"keywords": [{"pattern": "sql"}]}, spec={"defaults": {"systemPrompt": "Be brief."}})],
    [service()],
    [SLICE, slice_(endpoint("p3", "10.0.0.3", ready=False), suffix="b")],
)


def table(objects: Objects):
    return build(objects.experts, objects.services, objects.slices, lambda s: f"key-of-{s.metadata.uid}")


def test_the_table_of_a_snapshot_is_the_table_of_its_objects(tmp_path: Path):
    path = tmp_path / "snapshot.json"
    snapshot.write(path, "team", OBJECTS, now=1000)
    found = snapshot.read(path, "team", now=1060)
    assert found is not None
    objects, age = found
    assert table(objects) == table(OBJECTS)
    assert age == 60


def test_a_snapshot_holds_no_key_and_of_a_slice_only_what_is_looked_at(tmp_path: Path):
    path = tmp_path / "snapshot.json"
    odd = SLICE | {"annotations": {"token": "secret"}}
    odd["endpoints"] = [each | {"nodeName": "secret", "hints": {"a": "secret"}} for each in odd["endpoints"]]
    snapshot.write(path, "team", Objects([], [service()], [odd]))
    assert "key-of" not in path.read_text()
    assert "secret" not in path.read_text()


def test_without_a_file_there_is_none(tmp_path: Path):
    assert snapshot.read(tmp_path / "none", "team") is None


def broken(**members: Any):
    return json.dumps(
        {"format": 1, "namespace": "team", "written": 0, "experts": [], "inferenceservices": [], "endpointslices": []}
        | members
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ("[" * 100_000, "RecursionError"),
        (broken(format=2), "format 2"),
        (broken(namespace="other"), "namespace 'other'"),
        (broken(written="then"), "ValueError"),
        (broken(experts=[{"metadata": {"name": "a"}}]), "spec: Field required"),
        (broken(endpointslices=[{}]), "KeyError"),
        (broken(endpointslices=["odd"]), "AttributeError"),
    ],
)
def test_a_file_of_another_hand_is_refused(tmp_path: Path, text: str, why: str):
    path = tmp_path / "snapshot.json"
    path.write_text(text)
    with pytest.raises(SnapshotError, match=why):
        snapshot.read(path, "team")


def test_a_file_that_has_grown_without_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "MOST_BYTES", 100)
    path = tmp_path / "snapshot.json"
    path.write_text(broken(experts=["x" * 100]))
    with pytest.raises(SnapshotError, match="more than 100 bytes"):
        snapshot.read(path, "team")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(SnapshotError, match="directory"):
        snapshot.read(tmp_path, "team")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "snapshot.json"
    snapshot.write(path, "team", OBJECTS)
    before = path.read_text()
    (tmp_path / "snapshot.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        snapshot.write(path, "team", Objects([], [], []))
    assert path.read_text() == before
