"""What goes into an image, byte by byte: contexts, archives, the copied model."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from dev.images import carry, context, storage
from dev.paths import REPO
from dev.steps import StepError

REFERENCE = "localhost/largeforge-x:0123456789ab"


def make_wheel(path: Path, readme: str = "A readme.") -> Path:
    with zipfile.ZipFile(path / "largeforge-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("largeforge/__init__.py", "")
        info = "largeforge-1.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Name: largeforge\nVersion: 1\n\n{readme}\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nlargeforge-router = largeforge.router:main\n")
    return path / "largeforge-1-py3-none-any.whl"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestUnpack:
    def test_scripts_run_in_the_image_s_environment(self, tmp_path: Path) -> None:
        context.unpack(make_wheel(tmp_path), tmp_path / "site")
        script = tmp_path / "site/bin/largeforge-router"
        assert script.read_text().splitlines()[0] == "#!/opt/venv/bin/python"
        assert "from largeforge.router import main" in script.read_text()
        assert script.stat().st_mode & 0o777 == 0o755

    def test_another_readme_makes_the_same_bytes(self, tmp_path: Path) -> None:
        sites = []
        for readme in ("one", "two\n\nthree"):
            folder = tmp_path / readme[:3]
            folder.mkdir()
            context.unpack(make_wheel(folder, readme), folder / "site")
            sites.append(contents(folder / "site"))
        assert sites[0] == sites[1]
        assert sites[0]["largeforge-1.dist-info/METADATA"] == b"Name: largeforge\nVersion: 1\n"


def test_settling_leaves_no_trace_of_umask_and_time(tmp_path: Path) -> None:
    script, text = tmp_path / "script", tmp_path / "text"
    script.touch(mode=0o700)
    text.touch(mode=0o660)
    context.settle(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, script, text)] == [0o755, 0o755, 0o644]
    assert {path.stat().st_mtime for path in (tmp_path, script, text)} == {context.EPOCH}


def test_a_snapshot_holds_what_images_are_made_of(tmp_path: Path) -> None:
    context.snapshot(REPO, tmp_path)
    found = contents(tmp_path)
    assert {"images/trainer/Dockerfile", "pyproject.toml", "operator/largeforge/__init__.py"} <= found.keys()
    assert not [path for path in found if "__pycache__" in path or path.startswith(".git")]


def test_the_package_in_an_image_has_the_files_that_are_no_python(tmp_path: Path) -> None:
    context.snapshot(REPO, tmp_path)
    context.add_site(tmp_path)
    page = "operator/largeforge/router/page"
    wanted = {path.name for path in (REPO / page).iterdir() if path.is_file()}
    assert wanted <= {path.name for path in (tmp_path / context.SITE / "largeforge/router/page").iterdir()}


def test_temporary_files_of_dead_processes_go_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SCRATCH", tmp_path)
    for name in ("carry.4194305.x", f"carry.{os.getpid()}.x", "buildah-cache"):
        (tmp_path / name).mkdir()
    with storage.scratch("context") as folder:
        assert folder.is_dir()
        assert {path.name for path in tmp_path.iterdir()} == {f"carry.{os.getpid()}.x", "buildah-cache", folder.name}
    assert not folder.exists()


def test_pip_settings_of_the_machine_reach_the_build() -> None:
    listed = """\
:env:.cert='/env/ca.crt'
:env:.find-links='/opt/wheels'
global.cert='/etc/ca.crt'
global.disable-pip-version-check='1'
global.index-url='x'
global.extra-index-url='one\\ntwo'
install.index-url='y'
wheel.index-url='z'
"""
    assert storage.pip_settings(listed) == {"cert": "/env/ca.crt", "index-url": "y", "extra-index-url": "one\n    two"}


class Store:
    """A store with one image of two layers, as containers/storage keeps it."""

    def __init__(self, root: Path) -> None:
        self.layers = [self.make_layer(f"layer{number}", f"file {number}".encode() * 1000) for number in (1, 2)]
        (root / "overlay-layers").mkdir()
        (root / "overlay-images").mkdir()
        listed = []
        for number, tar in enumerate(self.layers):
            listed.append({"id": f"l{number}", "diff-digest": digest(tar)})
            self.take_apart(root, f"l{number}", tar)
        (root / "overlay-layers/layers.json").write_text(json.dumps(listed))
        self.config = b'{"config": {}}'
        self.manifest = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": digest(self.config), "size": len(self.config)},
            "layers": [{"digest": digest(tar), "size": len(tar)} for tar in self.layers],
        }
        identity = digest(self.config).removeprefix("sha256:")
        folder = root / "overlay-images" / identity
        folder.mkdir()
        (folder / "manifest").write_text(json.dumps(self.manifest))
        (folder / f"={base64.b64encode(digest(self.config).encode()).decode()}").write_bytes(self.config)
        (root / "overlay-images/images.json").write_text(
            json.dumps([{"id": identity, "names": [REFERENCE]}, {"id": identity}])
        )

    @staticmethod
    def make_layer(name: str, content: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            folder = tarfile.TarInfo("opt")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            entry = tarfile.TarInfo(f"opt/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    @staticmethod
    def take_apart(root: Path, layer: str, tar: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            member = archive.getmembers()[1]
            start, end = member.offset_data, member.offset_data + member.size
        path = root / "overlay" / layer / "diff" / member.name
        path.parent.mkdir(parents=True)
        path.write_bytes(tar[start:end])
        entries = [
            {"type": 2, "payload": base64.b64encode(tar[:start]).decode()},
            {"type": 1, "name": "opt/"},
            {"type": 1, "name_raw": base64.b64encode(member.name.encode()).decode(), "size": member.size},
            {"type": 2, "payload": base64.b64encode(tar[end:]).decode()},
        ]
        with gzip.open(root / "overlay-layers" / f"{layer}.tar-split.gz", "wt") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(storage, "_GRAPH", tmp_path)
    monkeypatch.setattr(storage, "_IMAGES", tmp_path / "overlay-images")
    monkeypatch.setattr(storage, "_LAYERS", tmp_path / "overlay-layers")
    return Store(tmp_path)


class TestCarrying:
    def archive(self, known: set[str]) -> dict[str, bytes]:
        buffer = io.BytesIO()
        carry.write_archive(storage.stored()[REFERENCE], REFERENCE, known, buffer)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def test_layers_are_put_together_as_they_were(self, store: Store) -> None:
        assert [b"".join(storage.layer(digest(tar))) for tar in store.layers] == store.layers

    def test_an_archive_is_an_oci_layout_of_that_name(self, store: Store) -> None:
        files = self.archive(set())
        (entry,) = json.loads(files["index.json"])["manifests"]
        assert entry["annotations"] == {"io.containerd.image.name": REFERENCE}
        assert json.loads(files[f"blobs/sha256/{entry['digest'][7:]}"]) == store.manifest
        for name, content in files.items():
            if name.startswith("blobs/"):
                assert name == f"blobs/sha256/{digest(content)[7:]}"
        assert len(files) == 2 + 2 + 2

    def test_layers_that_the_cluster_has_are_left_out(self, store: Store) -> None:
        files = self.archive({digest(store.layers[0])})
        assert f"blobs/sha256/{digest(store.layers[0])[7:]}" not in files
        assert files[f"blobs/sha256/{digest(store.layers[1])[7:]}"] == store.layers[1]

    @pytest.mark.usefixtures("store")
    def test_a_layer_that_is_lost_is_told(self) -> None:
        with pytest.raises(StepError, match="is not in") as caught:
            list(storage.layer("sha256:none"))
        assert "make clean" in caught.value.remedy

    def test_a_file_that_has_another_size_is_told(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "overlay/l0/diff/opt/layer1").write_bytes(b"short")
        with pytest.raises(StepError, match=f"{digest(store.layers[0])} has"):
            self.archive(set())

    def test_an_image_that_was_not_built_is_told(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        del store
        monkeypatch.setattr(carry.cluster, "has_image", lambda _reference: False)
        with pytest.raises(StepError, match="is not built"):
            carry.load(["localhost/largeforge-y:1"])


@pytest.mark.parametrize("registry", ["", "--help"])
def test_pushing_needs_a_registry(registry: str) -> None:
    with pytest.raises(StepError, match="no registry"):
        carry.push(registry)


def script(path: str) -> ModuleType:
    """A program that an image runs while it is built."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPO / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestMendLora:
    MENDED = "images/engine-cpu/mend_lora.py"

    def test_what_is_computed_for_a_token_without_an_adapter_is_taken_away_in_every_function(self) -> None:
        mend = script(self.MENDED)
        function = f"def bgmv(inputs, selected_loras, lora_indices_tensor):\n{mend.COMPUTED}    return outputs\n"
        text = mend.mended(function * mend.PLACES)
        assert text.count(mend.COMPUTED + mend.TAKEN_AWAY) == mend.PLACES

    @pytest.mark.parametrize("places", [0, 2, 4])
    def test_a_file_that_is_another_one_fails_the_build(self, places: int) -> None:
        mend = script(self.MENDED)
        with pytest.raises(ValueError, match="see whether it still has to be"):
            mend.mended(mend.COMPUTED * places)

    def test_a_file_that_vllm_has_mended_fails_the_build(self) -> None:
        mend = script(self.MENDED)
        with pytest.raises(ValueError, match="see whether it still has to be"):
            mend.mended((mend.COMPUTED + mend.TAKEN_AWAY) * mend.PLACES)


@pytest.fixture(scope="module")
def copier() -> ModuleType:
    return script("images/demo-model/copy_model.py")


class TestCopyModel:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "config.json").write_text("{}")
        return folder

    def test_the_copy_is_whole_and_nothing_is_left_beside_it(
        self, copier: ModuleType, model: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "volume/base"
        assert copier.main([str(target), str(model)]) == 0
        assert contents(target) == contents(model)
        assert [path.name for path in target.parent.iterdir()] == ["base"]

    def test_a_second_run_leaves_the_same_files_alone(
        self, copier: ModuleType, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = tmp_path / "base"
        copier.main([str(target), str(model)])
        before = (target / "config.json").stat()
        assert copier.main([str(target), str(model)]) == 0
        assert (target / "config.json").stat().st_ino == before.st_ino
        assert "is up to date" in capsys.readouterr().out

    def test_other_files_are_replaced(self, copier: ModuleType, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "base"
        copier.main([str(target), str(model)])
        (model / "config.json").write_text('{"changed": true}')
        (model / "config.json.old").touch()
        copier.main([str(target), str(model)])
        assert contents(target) == contents(model)

    def test_an_option_is_no_target(self, copier: ModuleType) -> None:
        assert copier.main(["--help"]) == 2
        assert copier.main([]) == 2
