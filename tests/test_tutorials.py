"""Tutorials run as they stand, with smaller numbers; their pages and notebooks are those of the scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples" / "tutorials").glob("*.py"))
PAGES = ROOT / "docs" / "tutorials"
NEEDED = {"offline_rl": "minari", "ray_cluster": "ray"}
"""What a tutorial imports that need not be installed."""
FEWER = {
    "offline_rl": {"EPISODES = 6": "EPISODES = 2", "UPDATES = 600": "UPDATES = 20"},
    "own_card": {"EPISODES = 6": "EPISODES = 2"},
    "own_model": {"FACTS = 10": "FACTS = 3"},
    "own_scheduler": {"STREAMS = 8": "STREAMS = 2"},
    "remembering": {"NIGHTS = 4": "NIGHTS = 1"},
    "train_ppo": {"STEPS = 500_000 ": "STEPS = 16_384 ", "STREAMS = 8": "STREAMS = 1"},
}
"""Numbers that a test makes smaller."""
SAID = {
    "first_episode": r"pressure rule: score 0\.[5-9]",
    "offline_rl": r"clone: score 0\.\d\d",
    "own_card": r"NightOwl: simulated 0\.\d\d, real 0\.\d\d",
    "own_facts": r"Where does Aria Nakamura live\? -> Oslo\n.*-> nurse",
    "own_model": r"recalled 100% of 3(.|\n)*score 0\.[5-9]",
    "own_scheduler": r"\| siesta \| 0\.\d\d",
    "ray_cluster": r"update 2: mean return",
    "remembering": r"Where does Aria Nakamura live\? Porto",
    "train_ppo": r"16384 steps\n(.|\n)*\| PPO \| 0\.\d\d",
}
"""What each prints, among other things."""


def test_every_tutorial_is_tested_and_listed() -> None:
    names = {script.stem for script in SCRIPTS}
    assert names == SAID.keys() >= FEWER.keys()
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+)\.md\)", index)) == names


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=[pytest.mark.slow] * (script.stem not in ("first_episode", "own_facts")))
        for script in SCRIPTS
    ],
    ids=lambda script: script.stem,
)
def test_it_runs_and_says_what_it_should(
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_script: Callable[..., str],
    run_process: Callable[..., str],
) -> None:
    if (package := NEEDED.get(script.stem)) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    source = script.read_text(encoding="utf-8")
    for usual, few in FEWER.get(script.stem, {}).items():
        assert usual in source
        source = source.replace(usual, few)
    (tmp_path / script.name).write_text(source, encoding="utf-8")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    run = run_process if script.stem in NEEDED else run_script
    shown = run(str(tmp_path / script.name), cwd=tmp_path)
    assert re.search(SAID[script.stem], shown), shown


@pytest.mark.skipif(find_spec("jupytext") is None, reason="needs the extra docs")
def test_pages_and_notebooks_are_those_of_the_scripts(run_script, tmp_path: Path) -> None:
    run_script("scripts/tutorials.py", "--out", str(tmp_path), cwd=tmp_path)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    there = {path.name: path.read_text(encoding="utf-8") for path in PAGES.iterdir() if path.name != "README.md"}
    assert there == made, "run `make docs`"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_has_the_code_of_its_script(script: Path) -> None:
    notebook = json.loads((PAGES / f"{script.stem}.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    compile(code, script.name, "exec")
    assert not any(cell.get("outputs") for cell in notebook["cells"])
