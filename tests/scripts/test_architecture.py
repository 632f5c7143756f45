"""The page about the architecture has a paragraph per folder, and its diagram is of today's imports."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from scripts.architecture import PACKAGE, ROOT, diagram, imported, reduced, rooms

PAGE = ROOT / "docs" / "architecture.md"


def test_the_diagram_is_of_todays_imports(run_script: Callable[..., str], tmp_path: Path) -> None:
    copy = shutil.copy(PAGE, tmp_path)
    run_script("scripts/architecture.py", "--page", str(copy), cwd=tmp_path)
    assert Path(copy).read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), "run `make docs`"


def test_every_folder_has_a_paragraph_and_every_paragraph_a_folder() -> None:
    sections = dict(re.findall(r"^### `(.+?)`\n\n(.+?)\n(?=\n|\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    inside = {f"sleepgym/{path.name}" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    beside = {name.partition("/")[0] for name in tracked if "/" in name and not name.startswith((".", "sleepgym/"))}
    assert set(sections) - {"sleepgym/sleeper.py"} == inside | beside
    assert all(len(text.split()) > 5 for text in sections.values())


def test_a_module_is_told_from_a_name_of_its_package(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text("import numpy as np\nfrom sleepgym import files, World\nfrom sleepgym.facts.world import World\n")
    assert set(imported(file)) == {"numpy", "sleepgym.files", "sleepgym", "sleepgym.facts.world"}


def test_a_longer_way_replaces_an_arrow() -> None:
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert diagram({"a": {"b"}, "b": set()}).splitlines()[2:-1] == ["    a --> b"]


def test_every_arrow_of_the_package_is_in_the_diagram_or_replaced() -> None:
    graph = rooms()
    assert {"facts", "lm", "env", "cli", "sleeper"} <= graph.keys()

    def reached(room: str, by: dict[str, set[str]]) -> set[str]:
        return set().union(*({other} | reached(other, by) for other in by[room]))

    short = reduced(graph)
    assert all(reached(room, short) == reached(room, graph) for room in graph)
    assert sum(map(len, short.values())) < sum(map(len, graph.values()))
