"""What the chart renders for known values, as files; `make generate` writes them anew."""

import pytest
import yaml

from dev import chart
from dev.install import chart_values

pytestmark = pytest.mark.skipif(
    not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` or `make cluster` builds it"
)


@pytest.mark.parametrize("name", chart.value_sets())
def test_the_render_is_current(name: str) -> None:
    values = chart.value_sets()[name]
    assert chart.render(values) == values.with_name(f"{name}.yaml").read_text(), "run: make generate"


def test_rendered_twice_it_is_the_same() -> None:
    values = chart.value_sets()["teams"]
    assert chart.render(values) == chart.render(values)


def test_the_demos_values_are_those_that_the_demo_sets() -> None:
    names = ("operator", "router", "trainer", "engine-cpu", "quantizer")
    references = {name: f"localhost/largeforge-{name}:0123456789ab" for name in names}
    assert yaml.safe_load(chart.value_sets()["demo"].read_text()) == chart_values(references, ["demo"])
