"""Scripts within the test's own process: most of a short run would otherwise be importing torch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tyro


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script as a module, as ``script("ppo")``."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "agents" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Where dataclasses look up the types that annotations name.
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def call(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """What a script prints when called in an empty folder, as ``call("ppo", "--seed", "1")``."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        module = script(name)
        capsys.readouterr()
        module.main(tyro.cli(module.Args, args=arguments))
        return capsys.readouterr().out

    return run
