from __future__ import annotations

from pathlib import Path

import pytest
import yaml


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden manifests anew")


@pytest.fixture
def golden(request):
    """Compares manifests with the YAML file of that name beside the test; `make generate` writes it anew."""

    def check(name, *manifests):
        path = Path(request.path).with_name(f"{name}.yaml")
        text = yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, width=120)
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert path.exists(), "run: make generate"
        assert path.read_text() == text, "run: make generate"

    return check
