"""Commands of the page about agents are ones that the scripts understand."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from sleepgym.cli.scripted import SCRIPTS

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line for line in SHELL.splitlines() if line.startswith(("python agents/", "sleepgym "))]


def script_of(command: str) -> str:
    """The script of a command, which may be a subcommand."""
    program, name, *_ = shlex.split(command, comments=True)
    return SCRIPTS[name].module if program == "sleepgym" else Path(name).stem


@pytest.mark.parametrize("command", COMMANDS)
def test_the_script_understands_the_command(script: Callable[[str], ModuleType], command: str) -> None:
    _, _, *arguments = shlex.split(command, comments=True)
    module = script(script_of(command))
    args = tyro.cli(module.Args, args=arguments)
    given = dict(itertools.pairwise(arguments))
    for name, value in given.items():
        if name.startswith("--"):
            assert str(getattr(args, name[2:].replace("-", "_"))) == value


def test_the_page_has_commands_for_each_script_of_this_library() -> None:
    scripts = {script_of(command) for command in COMMANDS}
    assert {"ppo", "evaluate"} <= scripts
    in_table = set(re.findall(r"^\| `(\w+)\.py` \|", PAGE, flags=re.MULTILINE))
    assert in_table == {path.stem for path in (Path(__file__).parents[2] / "agents").glob("*.py")}
