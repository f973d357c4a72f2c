"""The rules that the files of `images/` keep, and the tags that come from them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from dev.images import builder, catalog, locks
from dev.images.builder import outdated, packages
from dev.images.carry import superseded
from dev.images.storage import Stored
from dev.paths import REPO
from dev.steps import StepError

DOCKERFILES = sorted((REPO / "images").glob("*/Dockerfile"))
LOCKS = [REPO / "dev/requirements.lock", REPO / "docs/requirements.lock", *sorted((REPO / "images").glob("*/*.lock"))]
SYSTEMS = {"base", "toolchain"}
WITH_PACKAGE = {"operator", "quantizer", "quantizer-autoawq", "router", "trainer"}


def name(path: Path) -> str:
    return path.parent.name


def instructions(path: Path) -> list[str]:
    joined = path.read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "images", tmp_path / "images")
    (tmp_path / "operator/largeforge/__pycache__").mkdir(parents=True)
    (tmp_path / "operator/largeforge/__init__.py").write_text('"""A package."""\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "largeforge"\n[tool.ruff]\nline-length = 120\n')
    (tmp_path / "LICENSE").write_text("Apache-2.0\n")
    return tmp_path


def changed(checkout: Path, path: str, text: str) -> set[str]:
    """Names of the images that get another tag when *text* is added to *path*."""
    before = catalog.references(checkout)
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    with (checkout / path).open("a") as file:
        file.write(text)
    after = catalog.references(checkout)
    return {image for image in after if after[image] != before[image]}


def test_every_folder_with_a_dockerfile_is_an_image() -> None:
    assert {name(path) for path in DOCKERFILES} == {*SYSTEMS, *catalog.IMAGES}


@pytest.mark.parametrize("path", [path for path in DOCKERFILES if name(path) not in SYSTEMS], ids=name)
class TestDockerfile:
    def test_the_base_is_an_argument(self, path: Path) -> None:
        lines = instructions(path)
        assert lines[0].startswith("ARG BASE=")
        stages = [line.split()[1:] for line in lines if line.startswith("FROM ")]
        assert stages[-1] == ["${BASE}"]
        compiled = [["${TOOLCHAIN}", "AS", "compiled"]] if catalog.IMAGES[name(path)].compiled else []
        assert [stage for stage in stages if stage[0] != "${BASE}"] == compiled

    def test_the_user_is_a_number_that_is_not_root(self, path: Path) -> None:
        assert [line for line in instructions(path) if line.startswith("USER ")] == ["USER 2000:2000"]

    def test_commands_are_lists(self, path: Path) -> None:
        for line in instructions(path):
            word, _, rest = line.partition(" ")
            if word in {"CMD", "ENTRYPOINT"}:
                assert all(isinstance(part, str) for part in json.loads(rest))

    def test_our_package_is_the_last_layer(self, path: Path) -> None:
        lines = [line for line in instructions(path) if "build/site" in line]
        if name(path) in WITH_PACKAGE:
            last = instructions(path)[-1]
            assert lines == ["COPY build/site /opt/largeforge"]
            compiled = catalog.IMAGES[name(path)].compiled
            assert last == ("COPY --from=compiled /opt/largeforge /opt/largeforge" if compiled else lines[0])
        else:
            assert lines == []

    def test_each_file_that_is_copied_counts_for_the_tag(self, path: Path) -> None:
        copied = {line.split()[1] for line in instructions(path) if line.startswith("COPY images/")}
        image = catalog.IMAGES[name(path)]
        assert copied == set(image.inputs) - set(catalog.TOOLCHAIN.inputs)
        assert image.compiled is (not set(catalog.TOOLCHAIN.inputs).isdisjoint(image.inputs))

    def test_only_locks_are_installed(self, path: Path) -> None:
        text = "\n".join(instructions(path))
        assert not re.search(r"\b(pip install|apt-get|curl|wget)\b", text)
        assert set(re.findall(r"install-(?:lock|source) (/opt/locks/\S+)", text)) == set(
            re.findall(r"/opt/locks/\S+\.lock", text)
        )


def test_locks_are_installed_with_hashes_only() -> None:
    script = (REPO / "images/install-lock").read_text()
    for option in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert option in script


@pytest.mark.parametrize("image", ["engine-cpu", "quantizer", "quantizer-autoawq"])
def test_one_layer_of_torch_serves_all(image: str) -> None:
    mark = "# end of the shared lines"
    first, second = (
        (REPO / f"images/{name}/Dockerfile").read_text().partition("\n")[2].partition(mark)
        for name in ("trainer", image)
    )
    assert first[0] == second[0]
    assert "torch.lock" in first[0]
    assert first[1] == second[1] == mark


def test_the_demo_model_is_converted_on_the_layers_of_the_trainer() -> None:
    trainer, model = (instructions(REPO / f"images/{image}/Dockerfile") for image in ("trainer", "demo-model"))
    model[1] = model[1].removesuffix(" AS builder")
    last = next(number for number, line in enumerate(trainer) if "install-lock /opt/locks/trainer.lock" in line)
    assert model[: last + 1] == trainer[: last + 1]


@pytest.mark.parametrize("path", LOCKS, ids=name)
class TestLock:
    def test_every_requirement_is_exact_and_has_hashes(self, path: Path) -> None:
        entries = path.read_text().replace("\\\n", " ").splitlines()
        assert entries
        for entry in entries:
            assert re.match(r"[a-z0-9][a-z0-9.-]*==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*$", entry), entry

    def test_no_address_is_in_it(self, path: Path) -> None:
        assert not re.search(r"://|--(extra-)?index-url|--find-links|^-", path.read_text(), re.MULTILINE)


def versions(image: str) -> dict[str, str]:
    lines = (REPO / f"images/{image}/requirements.lock").read_text().splitlines()
    return dict(line.split()[0].split("==") for line in lines if "==" in line)


@pytest.mark.parametrize(
    ("image", "below"),
    [
        ("trainer", "torch"),
        ("engine-cpu", "torch"),
        ("quantizer", "torch"),
        ("quantizer-autoawq", "torch"),
        ("demo-model", "trainer"),
    ],
)
def test_a_lock_agrees_with_the_one_below_it(image: str, below: str) -> None:
    upper, lower = versions(image), versions(below)
    assert {package: upper[package] for package in upper.keys() & lower.keys()} == {
        package: lower[package] for package in upper.keys() & lower.keys()
    }


@pytest.mark.parametrize("image", ["operator", "router", "router/embedding"])
def test_the_small_images_have_no_torch(image: str) -> None:
    assert not {"torch", "transformers", "huggingface-hub"} & versions(image).keys()


def test_what_is_compiled_of_the_router_is_there_and_has_no_struct_of_msgspec() -> None:
    text = (REPO / "images/router/compile/compile.py").read_text()
    modules = re.findall(r'"(\w+)"', text[text.index("MODULES = (") : text.index(")\n", text.index("MODULES = ("))])
    assert len(modules) > 10
    for module in modules:
        source = (REPO / f"operator/largeforge/router/{module}.py").read_text()
        assert "(msgspec.Struct" not in source, module


def test_the_engine_leaves_out_what_it_can_do_without() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & versions("engine-cpu").keys()


class TestTags:
    def test_the_same_content_has_the_same_tags(self, checkout: Path) -> None:
        assert changed(checkout, "LICENSE", "") == set()

    def test_a_reference_is_a_name_and_twelve_hex_digits(self, checkout: Path) -> None:
        for image, reference in catalog.references(checkout).items():
            assert re.fullmatch(rf"localhost/largeforge-{image}:[0-9a-f]{{12}}", reference)

    @pytest.mark.parametrize(
        ("path", "images"),
        [
            ("operator/largeforge/router.py", WITH_PACKAGE),
            ("operator/largeforge/data/defaults.json", WITH_PACKAGE),
            ("images/router/requirements.lock", {"router"}),
            ("images/engine-cpu/Dockerfile", {"engine-cpu"}),
            ("images/demo-model/convert.py", {"demo-model"}),
            ("images/engine-cpu/mend_lora.py", {"engine-cpu"}),
            ("images/trainer/requirements.lock", {"trainer", "demo-model"}),
            (
                "images/torch/requirements.lock",
                {"trainer", "engine-cpu", "quantizer", "quantizer-autoawq", "demo-model"},
            ),
            ("images/base/packages.txt", {"base", *catalog.IMAGES}),
            ("images/install-lock", set(catalog.IMAGES)),
            ("images/toolchain/packages.txt", {"toolchain", "router"}),
            ("images/router/compile/compile.py", {"router"}),
        ],
    )
    def test_a_change_makes_new_tags_where_it_matters(self, checkout: Path, path: str, images: set[str]) -> None:
        assert changed(checkout, path, "# changed\n") == images

    @pytest.mark.parametrize(
        "path",
        [
            "README.md",
            "operator/largeforge/__pycache__/x.cpython-311.pyc",
            "operator/largeforge/.x.py.swp",
            "images/trainer/requirements.in",
        ],
    )
    def test_what_is_not_in_an_image_does_not_count(self, checkout: Path, path: str) -> None:
        assert changed(checkout, path, "# changed\n") == set()

    def test_only_the_project_of_pyproject_counts(self, checkout: Path) -> None:
        assert changed(checkout, "pyproject.toml", "[tool.mypy]\nstrict = true\n") == set()
        assert changed(checkout, "pyproject.toml", '[project.scripts]\nx = "y:z"\n') == WITH_PACKAGE


def test_images_are_selected_in_the_order_of_building() -> None:
    assert [image.name for image in catalog.select(["router", "trainer"])] == ["trainer", "router"]
    optional = {"quantizer-autoawq"}
    assert [image.name for image in catalog.select([])] == [name for name in catalog.IMAGES if name not in optional]
    assert [image.name for image in catalog.select(["quantizer-autoawq"])] == ["quantizer-autoawq"]


def test_an_unknown_image_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StepError, match="there is no image bert") as caught:
        catalog.select(["bert"])
    assert "engine-cpu" in caught.value.remedy


def test_base_packages_are_read_without_comments() -> None:
    assert packages("# why\npython3\n\nlibnuma1 \n") == ["python3", "libnuma1"]
    assert "libnuma1" in packages((REPO / "images/base/packages.txt").read_text())


class TestOldTags:
    stored = {
        f"localhost/largeforge-router:{tag}": Stored(tag, (), made)
        for tag, made in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]
    } | {"localhost/largeforge-operator:a": Stored("e", (), 1.0), "registry.example/debian:12": Stored("f", (), 0.0)}

    def test_the_newest_stay(self) -> None:
        old = outdated(self.stored, current=set(), keep=2)
        assert old == ["localhost/largeforge-router:a", "localhost/largeforge-router:b"]

    def test_what_the_checkout_wants_stays_however_old(self) -> None:
        old = outdated(self.stored, current={"localhost/largeforge-router:a"}, keep=2)
        assert old == ["localhost/largeforge-router:b", "localhost/largeforge-router:c"]

    @pytest.mark.parametrize(("own", "old"), [(10**8, []), (5 * 10**9, ["localhost/largeforge-trainer:a"])])
    def test_a_tag_before_the_newest_goes_when_its_own_layers_are_large(self, own: int, old: list[str]) -> None:
        layers = {
            "localhost/largeforge-trainer:a": {"sha256:base": 10**10, "sha256:old": own},
            "localhost/largeforge-trainer:b": {"sha256:base": 10**10, "sha256:new": 5 * 10**9},
            "localhost/largeforge-base:c": {"sha256:base": 10**10},
            "registry.example/debian:12": {"sha256:other": 10**10},
        }
        assert builder.too_large(layers, {"trainer": "localhost/largeforge-trainer:b"}) == old

    def test_the_cluster_loses_what_the_store_lost_and_no_pod_uses(self) -> None:
        there = {
            "localhost/largeforge-router:a": "sha256:1",
            "localhost/largeforge-router:b": "sha256:2",
            "localhost/largeforge-router:c": "sha256:3",
            "localhost/pause:1": "sha256:4",
            "sha256:one": "sha256:1",
            "sha256:two": "sha256:2",
            "sha256:four": "sha256:4",
        }
        assert superseded(there, keep={"localhost/largeforge-router:b", "localhost/largeforge-router:c"}) == [
            "localhost/largeforge-router:a",
            "sha256:one",
        ]

    def test_a_digest_that_another_name_still_has_stays(self) -> None:
        there = {
            "localhost/largeforge-router:a": "sha256:1",
            "localhost/largeforge-router:b": "sha256:1",
            "sha256:one": "sha256:1",
        }
        assert superseded(there, keep={"localhost/largeforge-router:b"}) == ["localhost/largeforge-router:a"]


class TestDisk:
    @pytest.fixture(autouse=True)
    def store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(builder, "CACHE", tmp_path)
        self.have(monkeypatch, free=10, used=0, references=[])

    def have(self, monkeypatch: pytest.MonkeyPatch, *, free: int, used: int, references: list[str]) -> None:
        usage = shutil.disk_usage(REPO)._replace(free=free * 10**9)
        monkeypatch.setattr(builder.shutil, "disk_usage", lambda _path: usage)
        monkeypatch.setattr(builder, "disk_used", lambda: used * 10**9)
        stored = {reference: Stored("x", (), 0.0) for reference in references}
        monkeypatch.setattr(builder.storage, "stored", lambda: stored)

    def test_a_disk_that_is_too_small_is_refused_before_anything_is_built(self) -> None:
        with pytest.raises(StepError, match="10 GB left, and 45 GB are needed") as caught:
            builder.check_disk()
        assert "LARGEFORGE_CACHE" in caught.value.remedy

    def test_what_is_there_already_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.have(monkeypatch, free=30, used=20, references=[])
        builder.check_disk()

    def test_a_change_of_our_own_code_needs_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        references = ["localhost/largeforge-trainer:a", "localhost/largeforge-engine-cpu:b"]
        self.have(monkeypatch, free=4, used=22, references=references)
        builder.check_disk()

    def test_a_small_image_alone_needs_little(self) -> None:
        builder.check_disk(catalog.select(["router"]))


class TestLockArguments:
    @pytest.mark.parametrize("lock", locks.NAMES)
    def test_inputs_exist(self, lock: str) -> None:
        arguments = locks.arguments(lock)
        files = [part for part in arguments if "/" in part or part.endswith(".toml")]
        assert files[-1].endswith("requirements.lock")
        for path in files:
            assert (REPO / path).is_file(), path

    def test_the_engine_is_held_to_the_torch_that_it_shares(self) -> None:
        arguments = locks.arguments("engine-cpu")
        assert arguments[arguments.index("--constraint") + 1] == "images/torch/requirements.lock"
