"""The examples of pages run (schedulers, evaluation, notes), a page's blocks one after the other; links hold."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from sleepgym.cli.main import main
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.leaderboard.submission import Submission
from sleepgym.notes.document import parse

DOCS = Path(__file__).parents[1] / "docs"


def run_blocks(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a page's Python in a folder that has the repository's docs in it."""
    (folder / "docs").symlink_to(DOCS)
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    (folder / "example.py").write_text("\n".join(blocks), encoding="utf-8")
    runpy.run_path("example.py")


@pytest.mark.slow
def test_a_scheduler_of_ones_own_plays_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks("schedulers.md", tmp_path, monkeypatch)
    assert re.search(r"^\| siesta \| 0\.\d{3} \[", capsys.readouterr().out, flags=re.MULTILINE)
    assert list(Submission.load(tmp_path / "my-entries" / "siesta").mistakes()) == []


def test_the_first_scheduler_of_ones_own_is_ten_lines_and_plays_by_the_name_that_the_page_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (DOCS / "schedulers.md").read_text(encoding="utf-8").partition("## Your own")[2].partition("\n## ")[0]
    source, command = (re.search(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL)[1] for kind in ("python", "sh"))  # type: ignore[index]
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    (tmp_path / "siesta.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program, *arguments = command.split()
    assert program == "sleepgym"
    assert main([*arguments, "--streams", "1", "--validate", "0"]) == 0
    assert re.search(r"^\| siesta:Siesta \| 0\.\d{3} \[", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_page_on_schedulers_names_every_feature() -> None:
    page = (DOCS / "schedulers.md").read_text(encoding="utf-8")
    for function, features in (("stat", STATS_FEATURES), ("column", LEDGER_FEATURES)):
        listed = re.search(rf"- `{function}\(observation, name\)` reads one of.*?: (.*?)\.\s", page, flags=re.DOTALL)
        assert listed is not None
        assert re.findall(r"`(\w+)`", listed[1]) == list(features)


@pytest.mark.slow
def test_what_was_played_is_summed_up_compared_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks("evaluation.md", tmp_path, monkeypatch)
    assert "| PPO | +0.0" in capsys.readouterr().out
    assert (tmp_path / "profiles.png").is_file() and (tmp_path / "intervals.png").is_file()


def test_the_page_on_the_assistant_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks("assistant.md", tmp_path, monkeypatch)
    assert capsys.readouterr().out.strip() == "Porto"


def test_the_page_on_notes_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "notes.md").read_text(encoding="utf-8")
    line, whole = re.findall(r"```markdown\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for command in re.search(r"```sh\n(.*?)```", text, flags=re.DOTALL)[1].splitlines():  # type: ignore[index]
        program, *arguments = shlex.split(command)
        assert program == "sleepgym" and main(arguments) == 0
    assert "Prefers tea to coffee." in capsys.readouterr().out
    assert line.strip() in (tmp_path / "my-notes" / "personal" / "about.md").read_text(encoding="utf-8")
    run_blocks("notes.md", tmp_path, monkeypatch)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("Plays chess on Sundays.") and out[-2:] == ["Oslo -> Lima", "[]"]
    (tmp_path / "my-notes" / "personal" / "about.md").write_text(whole, encoding="utf-8")
    assert parse(whole).text == whole and len(list(parse(whole).notes())) == 3
    assert main(["notes", "ls", "personal/about.md", "--folder", "my-notes"]) == 0


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
