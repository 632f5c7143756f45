"""Benchmark scripts within the test's own process: most of a short run would otherwise be importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def benchmark() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the folder, as ``benchmark("sleep")`` or ``benchmark("common.records")``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])
        yield lambda name: importlib.import_module(f"benchmarks.{name}")
