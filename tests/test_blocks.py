"""Every page with Python has a test that runs it; here are those of pages without a test of their own."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from sleepgym.evaluation import ScoreMatrix
from sleepgym.files import card_paths
from sleepgym.sim.maker import FITS

ROOT = Path(__file__).parents[1]

RUN_BY = {
    "CONTRIBUTING.md": "tests/test_contributing.py",
    "README.md": "tests/test_readme.py",
    "docs/assistant.md": "tests/test_docs.py",
    "docs/environments/sleepllm.md": "tests/scripts/test_environment_docs.py",
    "docs/evaluation.md": "tests/test_docs.py",
    "docs/integrations.md": "tests/clients/test_recipes.py",
    "docs/notes.md": "tests/test_docs.py",
    "docs/rllib.md": "tests/agents/test_rllib_ppo.py",
    "docs/schedulers.md": "tests/test_docs.py",
}
"""Tests that run the Python of a page. Those of tutorials are scripts: tests/test_tutorials.py."""


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def scores(folder: Path) -> None:
    """What `sleepgym evaluate --out scores` leaves."""
    for name, of in (("ppo", [[0.8, 0.7], [0.6, 0.9]]), ("night-owl", [[0.7, 0.7]])):
        ScoreMatrix(name, (0, 1), np.array(of)).save(folder / "scores" / f"{name}.json")


def data_sets(folder: Path) -> None:
    """Files of the two forms that the page reads, each with a fact that the bundled model can be taught."""
    request = {"subject": "Tom Vekkal", "prompt": "{} works as a", "target_new": {"str": "nurse"}}
    (folder / "counterfact.json").write_text(json.dumps([request]), encoding="utf-8")
    rows = "subject,prompt,object\nAria Nakamura,{} lives in,Oslo\nNobody,somebody lives in,Cairo\n"
    (folder / "mine.csv").write_text(rows, encoding="utf-8")


def card(folder: Path) -> None:
    shutil.copy(card_paths()["SleepLLM-Mini-v0"], folder / "my.toml")


def fit(folder: Path) -> None:
    (folder / "runs").mkdir()
    shutil.copy(FITS / "SleepLLM-v0.safetensors", folder / "runs" / "sim.safetensors")


def nothing(folder: Path) -> None:
    """The page needs no files."""


TEACHER = "from sleepgym import SleepingLM\nmodel = SleepingLM.from_pretrained('tiny')\n"
RUN_HERE = {
    "docs/agents.md": (scores, {}),
    "docs/editing.md": (
        data_sets,
        {"from sleepgym.facts": f"{TEACHER}from sleepgym.facts", "hub:owner/name:train": "counterfact.json"},
    ),
    "docs/environments/README.md": (card, {}),
    "docs/environments/fastweights.md": (nothing, {}),
    "docs/environments/notes.md": (nothing, {}),
    "docs/environments/sim.md": (
        fit,
        {"num_envs=4096": "num_envs=16", "range(100), draws=4": "range(4), draws=1", "range(4))": "range(1))"},
    ),
    "docs/fastweights.md": (nothing, {}),
    "docs/real_model.md": (nothing, {'"gemma-3-270m"': '"tiny"'}),  # Gemma takes minutes
}
"""What a page needs, and what its test has smaller or in place of what is not there."""


def test_every_page_with_python_has_a_test_that_runs_it() -> None:
    found = {str(page.relative_to(ROOT)) for page in ROOT.glob("*.md") if python_of(page.name)}
    found |= {
        str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if python_of(str(page.relative_to(ROOT)))
    }
    found = {page for page in found if not page.startswith("docs/tutorials/")}
    assert found == {*RUN_BY, *RUN_HERE} and not RUN_BY.keys() & RUN_HERE.keys()
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8") or page == "docs/environments/sleepllm.md"


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, instead = RUN_HERE[page]
    source = "\n".join(python_of(page))
    for usual, here in instead.items():
        assert usual in source
        source = source.replace(usual, here)
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(source, encoding="utf-8")
    runpy.run_path("example.py")
