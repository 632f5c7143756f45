"""``sleepgym notes``: what it says, what it prints for scripts, and its statuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepgym.cli import notes
from sleepgym.cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = ("add", "retrieve", "update", "delete", "undo", "tree", "ls", "prune", "compact", "lint", "export", "import")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a folder of its own; gives the status, and what it printed on both streams."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["notes", *arguments, "--folder", "notes"])
        return status, *capsys.readouterr()

    return call


def test_a_note_is_added_found_updated_and_deleted(run: Run) -> None:
    assert run("add", "Prefers tea", "--topic", "drinks") == (0, "added: Prefers tea (personal/about.md)\n", "")
    assert run("retrieve", "Which drinks?") == (0, "Prefers tea.\n", "")
    assert run("update", "Prefers tea", "Prefers mate") == (0, "updated: Prefers mate (personal/about.md)\n", "")
    assert run("ls") == (0, "personal/about.md\n", "")
    status, out, _ = run("ls", "personal/about.md")
    assert status == 0 and [line.split(": ")[1] for line in out.splitlines()] == [
        "Prefers mate [long_term, active]", "Prefers tea [history, superseded]",
    ]  # fmt: skip
    assert run("delete", "Prefers mate")[:2] == (0, "deleted: Prefers mate (personal/about.md)\n")
    assert run("retrieve", "drinks") == (1, "", "")
    assert run("retrieve", "drinks", "--history")[1] == "Prefers tea.\n"
    assert run("undo")[1] == "undone: delete\n" and run("retrieve", "drinks")[1] == "Prefers mate.\n"
    assert "- personal/about.md (2 items" in run("tree")[1]


def test_every_command_prints_json_for_scripts(run: Run) -> None:
    assert json.loads(run("add", "Prefers tea | milk", "--json")[1])[0]["text"] == "Prefers tea | milk"
    found = json.loads(run("retrieve", "tea", "--json")[1])
    assert found["sentences"] == ["Prefers tea | milk."] and found["tokens"] > 0 and found["milliseconds"] > 0
    assert json.loads(run("ls", "--json")[1]) == ["personal/about.md"]
    assert json.loads(run("ls", "personal/about.md", "--json")[1])[0]["fields"]["confidence"] == "high"
    for command in ("prune", "compact", "lint"):
        assert json.loads(run(command, "--json")[1]) == []
    assert json.loads(run("tree", "--json")[1])[0] == "# Memory tree"
    assert json.loads(run("undo", "--json")[1]) == {"undone": "add"}


def test_an_export_can_be_imported_in_both_forms(run: Run, tmp_path: Path) -> None:
    run("add", "Prefers tea", "--expires", "2999-01-01", "--tier", "working")
    assert run("export", "--out", "all.json")[:2] == (0, "exported to all.json\n")
    (tmp_path / "all.txt").write_text(run("export", "--form", "text")[1])
    run("delete", "Prefers tea")
    assert run("import", "all.json")[1] == "added: 1; there already: 0\n"
    assert run("import", "all.txt")[1] == "added: 1; there already: 0\n"  # a plain line is of long-term memory
    assert run("import", "all.json")[1] == "added: 0; there already: 1\n"


def test_lint_has_a_status_of_its_own_where_it_finds_something(run: Run, tmp_path: Path) -> None:
    run("add", "Prefers tea")
    (tmp_path / "notes" / "a.md").write_text("- x | tier=attic\n")
    status, out, _ = run("lint")
    assert status == 1 and out.startswith(
        "a.md:1: expected tier to be one of working, long_term, history, found 'attic'"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", ""), "expected a note with words in it"),
        (("add", "x", "--file", "../x.md"), "expected a path within the folder"),
        (("add", "x", "--expires", "soon"), "expected a date such as 2026-03-31"),
        (("retrieve", "x", "--k", "0"), "expected at least 1 note"),
        (("update", "nothing", "x"), "expected a note that says 'nothing'"),
        (("delete", "nothing"), "expected a note that says 'nothing'"),
        (("ls", "nothing.md"), "expected a file 'nothing.md'"),
        (("import", "nothing.json"), "expected a file of notes at nothing.json"),
        (("import", "huge.json"), "expected at most 67108864 bytes in huge.json, found 1073741824"),
        (("import", "bad.json"), "expected a document of the Open Memory Format 1.0"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_status_two(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    run("add", "Prefers tea")
    before = (tmp_path / "notes" / "personal" / "about.md").read_bytes()
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "bad.json").write_text("[1")
    status, out, error = run(*arguments)
    assert (status, out) == (2, "") and error.startswith(said) and error.count("\n") == 1
    assert (tmp_path / "notes" / "personal" / "about.md").read_bytes() == before


@pytest.mark.parametrize("command", ["retrieve", "delete", "lint", "ls", "export", "tree", "undo"])
def test_a_mistyped_folder_is_no_empty_memory(run: Run, tmp_path: Path, command: str) -> None:
    status, _, error = run(command, *(["x"] if command in ("retrieve", "delete") else []))
    assert status == 2 and error.startswith("expected a folder of notes at ")
    assert list(tmp_path.iterdir()) == []


def test_notes_cannot_act_on_the_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("- red \x1b[31m tea [bold]\n")
    assert run("retrieve", "tea")[1] == "red \ufffd[31m tea [bold].\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_that_is_understood(
    command: str, capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["notes", command, "--help"])
    assert done.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    example = re.search(r"Example: sleepgym notes (.*? --folder my-notes)", shown)
    assert example is not None and example[1].startswith(command)
    cls = {name.lower(): getattr(notes, name) for name in vars(notes)}[command]
    assert "Example: sleepgym notes " in cls.__doc__


def test_a_command_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from sleepgym.cli.main import main\n"
        f"status = main(['notes', 'add', 'tea', '--folder', {str(tmp_path / 'notes')!r}])\n"
        "sys.exit(status or any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
