"""What is declared about the package is so: dependencies, pins, versions of tools."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
PINNED = ("dev", "docs", "gemma", "minari")
"""Extras of which `make install` makes one environment."""
UNIMPORTED = {"tensorboard"}
"""Needed by what is imported: torch writes its logs by `torch.utils.tensorboard`."""


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pinned}


def imported_by_the_package() -> set[str]:
    """Distributions that sleepgym/ imports anywhere, functions and type-checking blocks included."""
    modules: set[str] = set()
    for path in (ROOT / "sleepgym").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - {"sleepgym"}
    # An extra that is not installed is known to nobody: its module has its name.
    known = packages_distributions()
    return {canonicalize_name(name) for module in foreign for name in known.get(module, [module])}


def test_the_package_imports_what_it_requires_and_nothing_else() -> None:
    required = {canonicalize_name(requirement.name) for requirement in REQUIRED}
    optional = {canonicalize_name(r.name) for extra, rs in EXTRAS.items() if extra not in ("dev", "docs") for r in rs}
    imported = imported_by_the_package()
    assert required - imported == UNIMPORTED
    assert imported - required <= optional


@pytest.mark.parametrize(
    "requirement", [*REQUIRED, *(r for extra in PINNED for r in EXTRAS[extra])], ids=lambda r: r.name
)
def test_what_was_tested_is_allowed(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins("constraints.txt")[canonicalize_name(requirement.name)])


def test_rllib_was_tested_with_an_allowed_gymnasium() -> None:
    (gymnasium,) = (requirement for requirement in REQUIRED if requirement.name == "gymnasium")
    assert gymnasium.specifier.contains(pins("constraints-rllib.txt")["gymnasium"])


def test_constraints_pin_direct_dependencies_and_tokenizers_alone() -> None:
    direct = {canonicalize_name(r.name) for r in [*REQUIRED, *(r for extra in PINNED for r in EXTRAS[extra])]}
    assert set(pins("constraints.txt")) == direct | {"tokenizers"}


def test_supported_pythons_are_named() -> None:
    oldest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    named = [c for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert oldest and named[0].endswith(f"3.{oldest[1]}")
