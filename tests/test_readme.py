"""The README's examples run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_readme_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    runpy.run_path("example.py")


def test_readme_has_examples() -> None:
    assert len(BLOCKS) == 2


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_rows_of_scores_are_those_of_the_page() -> None:
    page = (README.parent / "docs" / "environments" / "headroom.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [\w:=.,-]+ \| \d.*$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = [row for row in rows if row.count("|") > 3]
    assert len(rows) == 10
    assert [row for row in rows if row not in page.splitlines()] == []


def test_the_leaderboard_of_the_first_screen_is_that_of_the_results() -> None:
    first, results = (
        README.read_text("utf-8").partition("## ")[0],
        (README.parent / "docs" / "results.md").read_text("utf-8"),
    )
    rows = re.findall(r"^\| [\w:=.,() -]+ \| \d\.\d{3} \[.*\] \|$", first, flags=re.MULTILINE)
    (scores,) = re.findall(r"<!-- scores: .*?-->(.*?)<!-- end of scores -->", results, flags=re.DOTALL)
    assert len(rows) >= 3 and rows == scores.strip().splitlines()[2:]


def test_the_first_screen_has_a_film_two_commands_and_a_way_in_for_every_reader() -> None:
    first = README.read_text("utf-8").partition("## ")[0]
    assert "](docs/demo.gif)" in first and (README.parent / "docs" / "demo.gif").stat().st_size < 2 * 2**20
    (commands,) = re.findall(r"```sh\n(.*?)```", first, flags=re.DOTALL)
    assert len(commands.splitlines()) == 2
    assert len(re.findall(r"^\| (?:do|write|edit|build|want) .* \| \[", first, flags=re.MULTILINE)) == 5
