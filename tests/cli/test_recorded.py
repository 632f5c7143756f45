"""The conversation on the page about notes is what the program prints: it is run again, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMPT = "sleepgym> "


def recorded(page: str) -> list[str]:
    """Lines of the page's first recorded conversation."""
    (block,) = re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(block).splitlines()


def printed(lines: list[str], folder: Path) -> list[str]:
    """Runs the commands of a recorded conversation, and returns all that they print."""
    shown: list[str] = []
    for at, line in enumerate(lines):
        if not line.startswith("$ "):
            continue
        after = lines[at + 1 :]
        own = after[: next((i for i, other in enumerate(after) if other.startswith("$ ")), len(after))]
        typed = "\n".join(other.removeprefix(PROMPT) for other in own if other.startswith(PROMPT))
        command = shlex.split(line.removeprefix("$ "))
        if command[0] == "sleepgym":
            command = [sys.executable, "-m", *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        done = subprocess.run(command, input=typed, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        shown += done.stdout.splitlines()
    return shown


def without_numbers(lines: list[str]) -> list[str]:
    """Lines without what may differ between machines."""
    return [re.sub(r"[+-]?\d+(\.\d+)?", "#", line).rstrip() for line in lines if line.strip()]


@pytest.mark.slow
def test_the_conversation_on_the_page_about_notes_is_what_is_printed(tmp_path: Path) -> None:
    lines = recorded("docs/notes.md")
    answers = [line for line in lines if not line.startswith(("$ ", PROMPT))]
    assert without_numbers(printed(lines, tmp_path)) == without_numbers(answers)
    assert any("noted:" in line for line in answers) and any("Taught from notes" in line for line in answers)
