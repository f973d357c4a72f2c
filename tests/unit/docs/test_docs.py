"""The documents say what is there: every reason, every field, manifests that are valid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import metricspage, reasons, reference, routerapi
from dev.paths import REPO
from largeforge.api import crds
from largeforge.api.names import API_VERSION, Reason
from largeforge.controllers.fleet import Fleet
from largeforge.controllers.metrics import REGISTRY
from tests.unit.docs.pages import PAGES, blocks, title

MODELS = {kind.name: kind.model for kind in crds.KINDS}
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))


def manifests() -> Iterator[Any]:
    for page in PAGES:
        for block in blocks(page, "yaml"):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("apiVersion") == API_VERSION:
                    name = document["metadata"]["name"]
                    yield pytest.param(document, id=f"{page.relative_to(REPO)}:{document['kind']}/{name}")


def unknown_fields(written: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Paths of *written* that *schema* does not have; the models read leniently and would not say."""
    if isinstance(written, list):
        return [u for each in written for u in unknown_fields(each, schema["items"], f"{path}[]")]
    if not isinstance(written, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    unknown = [f"{path}.{key}" for key in written if key not in known]
    return unknown + [u for k, v in written.items() if k in known for u in unknown_fields(v, known[k], f"{path}.{k}")]


def test_the_reference_is_current() -> None:
    assert reference.REFERENCE.read_text() == reference.render(), "run: make generate"


def test_the_page_of_metrics_is_current() -> None:
    assert metricspage.PAGE.read_text() == metricspage.render(), "run: make generate"


def test_the_page_of_metrics_has_all_that_is_exported() -> None:
    exported = {family.name for family in REGISTRY.collect() if not family.name.startswith("process_")}
    named = {row.name.removesuffix("_total").removesuffix("_info") for row in metricspage.operator()}
    assert exported | {family.name for family in Fleet().collect()} == named


def test_the_page_of_reasons_is_current() -> None:
    assert reasons.PAGE.read_text() == reasons.render(), "run: make generate"


def test_the_page_of_reasons_has_each_reason_once_in_its_tables() -> None:
    listed = [reason for _, rows in reasons.entries() for reason, _ in rows]
    assert sorted(listed) == sorted(set(reasons.reasons().values()))


def test_each_event_whose_reason_is_written_where_it_is_made_is_found() -> None:
    assert reasons.events()[Reason.STARTED] == {"Normal"}
    assert reasons.events()[Reason.RETRYING] == {"Warning"}


def test_the_page_of_the_routers_api_is_current() -> None:
    assert routerapi.PAGE.read_text() == routerapi.render(), "run: make generate"


def test_errors_that_a_helper_of_the_router_makes_are_found_where_it_is_called() -> None:
    found = {(error.status, error.code): error for error in routerapi.errors()}
    assert found[503, "expert_not_ready"].headers == ("retry-after",)
    assert found[401, "invalid_api_key"].message.startswith("no valid API key")
    assert [error.message for error in routerapi.errors() if error.status == 502] == ["…"]


def test_each_reason_has_one_entry_and_each_entry_a_reason() -> None:
    constants = sorted({value for name, value in vars(Reason).items() if name.isupper()})
    page = (REPO / "docs" / "troubleshooting.md").read_text()
    assert sorted(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == constants


def test_each_entry_says_what_to_do() -> None:
    page = (REPO / "docs" / "troubleshooting.md").read_text()
    entries = re.split(r"^##+ ", page, flags=re.MULTILINE)
    silent = [e.partition("\n")[0] for e in entries if e.startswith("`") and "What to do:" not in " ".join(e.split())]
    assert silent == []


@pytest.mark.parametrize("manifest", list(manifests()))
def test_a_manifest_in_a_page_is_valid(manifest: dict[str, Any]) -> None:
    kind = next(k for k in crds.KINDS if k.name == manifest["kind"])
    schema = crds.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    MODELS[kind.name].model_validate(manifest)
    assert unknown_fields(manifest["spec"], schema["spec"], "spec") == []


def test_the_first_manifest_of_the_readme_has_ten_lines() -> None:
    assert len(blocks(REPO / "README.md", "yaml")[0].splitlines()) == 10


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_each_make_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    code = [*blocks(page, "sh"), *re.findall(r"`(make [^`]+)`", text)]
    named = {
        word
        for each in code
        for call in re.findall(r"^make ([^#\n]*)|\(make ([^)]*)\)", each, re.MULTILINE)
        for word in " ".join(call).split()
        if re.fullmatch(r"[a-z][a-z0-9-]*", word)
    }
    assert named <= TARGETS


def test_each_test_that_the_page_of_security_names_exists_and_speaks_of_the_reason_beside_it() -> None:
    page = (REPO / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+)`(?: \(`(\w+)`\))?", page)
    assert len(named) > 10
    constants = {value: name for name, value in vars(Reason).items() if name.isupper()}
    for path, reason in named:
        at = REPO / path
        assert at.exists(), path
        texts = [file.read_text() for file in ([at] if at.is_file() else sorted(at.glob("*.py")))]
        assert not reason or any(reason in text or f"Reason.{constants[reason]}" in text for text in texts), reason
