"""Subcommands that are scripts: the same flags, errors in a line, and a status that a shell can use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from sleepgym.cli.main import COMMANDS, main
from sleepgym.cli.scripted import SCRIPTS, described
from sleepgym.evaluation.processes import in_processes

MINI = "SleepLLM-Mini-v0"


def module_of(name: str) -> ModuleType:
    return import_module(f"sleepgym.cli.scripts.{SCRIPTS[name].module}")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_help_says_what_it_does_with_an_example_and_names_every_flag(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"usage: sleepgym {name}" in shown and described(name) in " ".join(shown.split())
    flags = [field.name for field in fields(module_of(name).Args) if field.name not in ("players", "contestants")]
    assert [flag for flag in flags if f"--{flag.replace('_', '-')}" not in shown] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_is_understood(name: str) -> None:
    program, *arguments = shlex.split(SCRIPTS[name].example)
    assert program == name
    tyro.cli(module_of(name).Args, args=arguments)


def test_the_list_of_subcommands_names_scripts_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert [name for name in (*COMMANDS, *SCRIPTS) if f"• {name}" not in shown] == []


def test_a_table_for_scripts_is_alone_on_standard_output(
    quick_card: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--env-id", MINI, "--card", str(quick_card), "--episodes", "2")
    assert main(["evaluate", "never-sleep", *where, "--json"]) == 0
    out, said = capsys.readouterr()
    (row,) = json.loads(out)["rows"]
    assert row["scheduler"] == "never-sleep" and 0 <= row["score"]["low"] <= row["score"]["high"] <= 1
    assert "episodes" in said or "never-sleep" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "owl"), "expected a scheduler, or the path of a policy that ends in .zip, found 'owl'"),
        (("evaluate", "night-owl", "night-owl"), "expected each name once, found night-owl twice"),
        (("evaluate", "random", "--env-id", MINI, "--slots", "0"), "expected at least one slot to play in"),
        (("demo", "missing.zip", "--env-id", MINI), "expected the policy card missing.json beside missing.zip"),
        (("demo", "--env-id", "SleepLLM-Nowhere-v0"), "SleepLLM-Nowhere"),
        (("train", "--resume", "missing.zip"), "expected the policy card missing.json beside missing.zip"),
        (("tune", "--schedulers", "owl"), "expected schedulers out of"),
        (("fit-sim", "--env", "missing.toml"), "missing.toml"),
    ],
)
def test_what_cannot_be_done_is_a_line_and_status_2(
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_what_processes_are_given_is_found_there() -> None:
    # A function of a script is sent to another process by the name of its module.
    tune = module_of("tune")
    texts = list(in_processes(tune.combinations, ["never-sleep", "fixed-period"], 2))
    assert texts == [tune.combinations("never-sleep"), tune.combinations("fixed-period")]


def test_without_its_policy_the_demo_shows_two_rules(
    load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = load_script("agents/demo.py")
    assert there.Args().players == ("pressure-rule", str(there.POLICY))
    monkeypatch.setattr(Path, "is_file", lambda path: path.suffix != ".zip")
    assert load_script("agents/demo.py").Args().players == ("pressure-rule", "never-sleep")
