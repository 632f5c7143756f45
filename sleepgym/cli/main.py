"""The console script: picks a subcommand and runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import tyro

from sleepgym._version import __version__
from sleepgym.cli import calibrate, chat, envs, inspect, leaderboard, notes, play, replay, scripted
from sleepgym.cli.signals import terminating_cleanly
from sleepgym.cli.streams import write_anything


class Command(Protocol):
    """A subcommand: a dataclass whose fields are its flags."""

    def run(self) -> int:
        """Does it, and returns the exit status."""
        ...


# A further subcommand is a module with such a dataclass, and a line here. Its heavy imports belong into `run`, so that
# `--help` answers at once. Those that are scripts are in `scripted`.
COMMANDS: dict[str, Callable[..., Command]] = {
    "calibrate": calibrate.Args,
    "chat": chat.Args,
    "envs": envs.Args,
    "inspect": inspect.Args,
    "leaderboard": leaderboard.Args,
    "notes": notes.Args,
    "play": play.Args,
    "replay": replay.Args,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit status: 130 after an interrupt that nothing else dealt with.

    Raises:
        SystemExit: The arguments are wrong, only ask for help, or the process was told to terminate.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    write_anything(sys.stdout)
    write_anything(sys.stderr)
    if arguments == ["--version"]:
        print(f"sleepgym {__version__}")
        return 0
    run = parsed(arguments)
    with terminating_cleanly():
        try:
            return run()
        except KeyboardInterrupt:
            return 130


def parsed(arguments: Sequence[str]) -> Callable[[], int]:
    """Reads the flags of a subcommand, without running it; those of a script are read when it runs.

    Args:
        arguments: Without the program's name.

    Returns:
        What runs it and gives the exit status.

    Raises:
        SystemExit: The arguments are wrong, or only ask for help.
    """
    if arguments and arguments[0] in scripted.SCRIPTS:
        return partial(scripted.run, arguments[0], arguments[1:])
    listed = COMMANDS | {name: scripted.placeholder(name) for name in scripted.SCRIPTS}
    command: Command = tyro.extras.subcommand_cli_from_dict(
        dict(sorted(listed.items())),
        prog="sleepgym",
        description="A language model that is taught facts while awake and settles them asleep. "
        "`sleepgym --version` says which release this is.",
        args=arguments,
    )
    return command.run
