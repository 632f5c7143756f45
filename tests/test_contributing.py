"""What is said to contributors and to those who cite: examples run, links hold, versions are those of the package."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

import sleepgym

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## Add an? (\w+)\n(.*?)(?=^## |\Z)", GUIDE, flags=re.DOTALL | re.MULTILINE))


def read(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def test_the_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / "example.py").write_text("\n".join(blocks), encoding="utf-8")
    runpy.run_path("example.py")
    out = capsys.readouterr().out
    assert float(re.search(r"^recall (.*)$", out, flags=re.MULTILINE)[1]) >= 0.8
    assert "model.layers.1.mlp.down_proj model.layers.1.mlp" in out


@pytest.mark.parametrize("what", ["preset", "card", "scheduler", "architecture"])
def test_adding_something_takes_under_thirty_lines(what: str) -> None:
    code = re.findall(r"```\w*\n(.*?)```", SECTIONS[what], flags=re.DOTALL)
    assert 0 < sum(len(block.splitlines()) for block in code) < 30


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links or page == "SECURITY.md"
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_version_to_cite_is_the_packages() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == sleepgym.__version__


def test_pre_commit_has_the_ruff_that_was_tested() -> None:
    (ruff,) = (repo for repo in read(".pre-commit-config.yaml")["repos"] if repo["repo"].endswith("/ruff-pre-commit"))
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_has_what_github_needs(form: Path) -> None:
    content = read(str(form.relative_to(ROOT)))
    assert content["name"] and content["description"]
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in content["body"])
