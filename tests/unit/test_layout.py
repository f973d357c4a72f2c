from __future__ import annotations

import operator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_the_operator_folder_does_not_shadow_pythons_own_operator():
    assert operator.__file__.endswith("operator.py")
    assert not (REPO / "operator" / "__init__.py").exists()
