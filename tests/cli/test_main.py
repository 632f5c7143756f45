"""The console script and its signals, without a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from sleepgym.cli import main as cli
from sleepgym.cli.signals import terminating_cleanly

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "sleepgym.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_module_without_a_subcommand_says_which_there_are():
    done = run()
    assert done.returncode == 2 and "chat" in done.stderr


def test_help_of_chat_names_every_flag():
    done = run("chat", "--help")
    assert done.returncode == 0
    for flag in ("--model", "--memory", "--seed", "--device", "--tokens", "--plain"):
        assert flag in done.stdout
    assert "gemma-3-270m" in done.stdout


def test_help_needs_no_torch():
    code = "import sys; import sleepgym.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_console_script_points_at_main():
    assert 'sleepgym = "sleepgym.cli.main:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@dataclass
class Fake:
    """A subcommand."""

    times: int = 1
    raises: ClassVar[BaseException | None] = None

    def run(self) -> int:
        if self.raises is not None:
            raise self.raises
        return self.times


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "fake", Fake)
    return Fake


def test_subcommand_gets_its_flags_and_its_status_is_returned(fake):
    assert cli.main(["fake", "--times", "3"]) == 3


def test_interrupt_is_an_exit_status(fake, monkeypatch):
    monkeypatch.setattr(fake, "raises", KeyboardInterrupt())
    assert cli.main(["fake"]) == 130


def test_sigterm_ends_a_subcommand_by_an_exception(fake, monkeypatch):
    monkeypatch.setattr(fake, "run", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fake"])
    assert stopped.value.code == 143


def test_sigterm_runs_what_is_to_be_rolled_back_and_the_old_handler_returns():
    before = signal.getsignal(signal.SIGTERM)
    undone = []
    with pytest.raises(SystemExit) as stopped, terminating_cleanly():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            undone.append(True)
    assert stopped.value.code == 143 and undone == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_handler_returns_without_a_signal_too():
    before = signal.getsignal(signal.SIGTERM)
    with terminating_cleanly():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
