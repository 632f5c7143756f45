"""Subcommands that are scripts: ``sleepgym demo``, ``train``, ``evaluate``, ``tune`` and ``fit-sim``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from importlib import import_module
from typing import NamedTuple

import tyro
from rich.console import Console

DONE, UNUSABLE = 0, 2


class Script(NamedTuple):
    """A script and how it is introduced.

    Attributes:
        module: Name of its file.
        about: What it does, in a sentence.
        example: A command line, without the program's name.
    """

    module: str
    about: str
    example: str


SCRIPTS: Mapping[str, Script] = {
    "demo": Script(
        "demo",
        "Let a rule and a policy live through the same stream, and make a film of both, side by side.",
        "demo night-owl never-sleep --env-id SleepLLM-Mini-v0 --seed 3",
    ),
    "train": Script(
        "ppo",
        "Train a policy with PPO: from scratch in the sim, or on the real model.",
        "train --total-steps 500000 --out runs/first",
    ),
    "evaluate": Script(
        "evaluate",
        "Play schedulers and policies on the same validation streams, and compare them.",
        "evaluate night-owl runs/first/best.zip --episodes 5 --json",
    ),
    "tune": Script(
        "tune",
        "Try the numbers of hand-written schedulers on training streams, by grid search in two rounds.",
        "tune --schedulers never-sleep --env-id SleepLLM-Mini-v0",
    ),
    "fit-sim": Script(
        "fit_sim",
        "Make the sim of a card: record real episodes, and fit a response model to them.",
        "fit-sim --env my.toml --episodes runs/sim --out my.safetensors",
    ),
}
"""Scripts by the names of their subcommands."""


def described(name: str) -> str:
    """What a subcommand does, and an example."""
    script = SCRIPTS[name]
    return f"{script.about} An example: `sleepgym {script.example}`."


def placeholder(name: str) -> type:
    """A subcommand without flags, which stands for the script in the list of subcommands.

    The flags are in the script, and importing that takes seconds.
    """
    return make_dataclass("Args", [], namespace={"__doc__": described(name)})


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs a script as a subcommand.

    Args:
        name: One of :data:`SCRIPTS`.
        arguments: Its flags and what else it is told.

    Returns:
        0, or 2 if a player, a file or an environment cannot be used; why is said on standard error.

    Raises:
        SystemExit: The arguments are wrong, or only ask for help.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("loading"):
        module = import_module(f"sleepgym.cli.scripts.{SCRIPTS[name].module}")
    args = tyro.cli(module.Args, prog=f"sleepgym {name}", description=described(name), args=list(arguments))
    from gymnasium.error import Error
    from transformers.utils import logging

    from sleepgym.cli.views import one_line, shown
    from sleepgym.errors import SleepGymError

    logging.disable_progress_bar()
    try:
        module.main(args)
    except (SleepGymError, Error, OSError, ValueError) as error:
        # A mistake in an argument is put into words; anything else is one in here, and its trace is wanted.
        if type(error) is ValueError and not str(error).startswith("expected"):
            raise
        console.print(one_line(error))
        return UNUSABLE
    except SystemExit as stopped:
        if not isinstance(stopped.code, str):
            raise
        console.print(shown(stopped.code, "red"))
        return UNUSABLE
    sys.stdout.flush()
    return DONE
