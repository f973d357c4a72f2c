"""The modules of a benchmark's folder, which is no package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@contextmanager
def modules_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """What imports a module of *folder* by its name; forgotten at the end, since other folders have the same names."""
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in [name for name, found in sys.modules.items() if str(folder) in str(getattr(found, "__file__", ""))]:
        del sys.modules[name]
