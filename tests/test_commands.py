"""Every command of the pages is one that there is, with flags that it understands; shell blocks are shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from sleepgym.cli.main import COMMANDS, parsed
from sleepgym.cli.scripted import SCRIPTS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "agents/pretrained/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
ELSEWHERE = {"cd", "cp", "git", "pip", "printf", "ray", "sed", "tensorboard"}
"""Programs of others, which are run by nobody here, or by tests of their pages."""
OF_OTHERS = {"venv", "zipfile", "rl_zoo3.train", "rl_zoo3.enjoy", "cleanrl/ppo.py"}
"""Modules and scripts of others; the recipes of integrations.md are run by tests/clients."""


def blocks() -> Iterator[tuple[str, str]]:
    """Pages and their shell: blocks that say so, and what follows a prompt in others."""
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            if kind in ("sh", "bash"):
                yield name, block
            elif kind in ("", "console") and (typed := re.findall(r"^\$ (.*)$", block, re.MULTILINE)):
                yield name, "\n".join(typed)


def commands() -> list[tuple[str, str]]:
    """Pages with every simple command of their shell, loops unrolled to one round."""
    found: dict[tuple[str, str], None] = {}
    for page, block in blocks():
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            lexer = shlex.shlex(re.sub(r"\$(\w+)", "1", line), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            command: list[str] = []
            for token in [*lexer, ";"]:
                if token in (";", "&&", "|", "do", "done"):
                    if command and command[0] != "for":
                        found[page, shlex.join(command)] = None
                    command = []
                elif token.startswith(">"):
                    command += [";"]
                else:
                    command.append(token)
    return list(found)


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value[:70])
def test_a_command_is_understood(page: str, command: str, load_script: Callable[[str], ModuleType]) -> None:
    program, *arguments = shlex.split(command)
    arguments = arguments[: arguments.index(";")] if ";" in arguments else arguments  # where the output goes
    name = Path(program).name
    if name == "make":
        assert {argument for argument in arguments if "=" not in argument} <= TARGETS
    elif name == "sleepgym":
        understood(arguments)
    elif name == "pytest":
        assert (ROOT / arguments[0]).exists()
    elif name == "python":
        script, *flags = arguments[1:] if arguments[0] == "-m" else arguments
        if script in OF_OTHERS:
            return
        in_package = script.startswith("sleepgym.")
        assert in_package or (ROOT / script).is_file(), f"expected a script of this repository, found {script}"
        if "rllib" in command and find_spec("ray") is None:
            pytest.skip("ray is not installed")
        tyro.cli((import_module if in_package else load_script)(script).Args, args=flags)
    else:
        assert name in ELSEWHERE, f"expected a program that is known here, found {program}"


def understood(arguments: list[str]) -> None:
    """Reads the flags of a subcommand, without running it."""
    if arguments in (["--version"], ["--help"]):
        return
    if arguments[0] in SCRIPTS:
        module = import_module(f"sleepgym.cli.scripts.{SCRIPTS[arguments[0]].module}")
        tyro.cli(module.Args, args=arguments[1:])
    else:
        parsed(arguments)


@pytest.mark.parametrize(("page", "block"), list(blocks()), ids=lambda value: value[:40])
def test_a_block_is_shell(page: str, block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_prose_names_is_there(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`sleepgym ([a-z][\w-]*)", prose)) <= {*COMMANDS, *SCRIPTS}
    assert set(re.findall(r"`make ([a-z][\w-]*)", prose)) <= TARGETS
    scripts = re.findall(r"`(?:python )?((?:agents|benchmarks|examples|scripts)/[\w/]+\.\w+)[ `]", prose)
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_commands_are_found() -> None:
    programs = {shlex.split(command)[0] for _, command in commands()}
    assert {"sleepgym", "make", "python", "pip"} <= programs and len(commands()) > 40
