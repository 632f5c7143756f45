"""``sleepgym chat``: talk to a model, teach it, and put it to bed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from sleepgym.cli.completion import complete_commands, typed
from sleepgym.cli.streams import read_anything

if TYPE_CHECKING:
    from sleepgym.cli.session import Session

ENDED, UNUSABLE = 0, 2

PROMPT = "sleepgym> "


@dataclass(frozen=True)
class Args:
    """Talk to a model in the terminal: teach it facts, ask it, put it to bed.

    An example: `sleepgym chat --model gemma-3-270m --notes my-notes`.
    """

    model: str = "tiny"
    """"tiny", "gemma-3-270m" (extra: gemma), a folder, a GGUF file or a hub id"""
    memory: Path | None = None
    """folder of a saved memory to start with"""
    notes: Path | None = None
    """folder of notes: what is remembered is noted there, answers that the model is unsure of are looked up there, and
    what a person changes there is taught at the next night; made when something is first noted"""
    gate: float | None = None
    """from 0 to 1: what is taught acts on its own subject only, from this share of its full effect on, so that a
    pretrained model keeps what it knows of others; 0 for a memory that is to be exported. By default 0.5, but for tiny
    and models that were calibrated"""
    seed: int = 0
    """seed of the nights"""
    device: str | None = None
    """where the model runs; by default a GPU if there is one"""
    tokens: int = 32
    """length of an answer at most"""
    plain: bool = False
    """no colours, nothing that moves"""

    def run(self) -> int:
        """Loads the model and talks until ``/quit`` or the end of the input."""
        console = Console(highlight=False, force_terminal=False if self.plain else None)
        session = self._session(console)
        if session is None:
            return UNUSABLE
        for line in lines(interactive=sys.stdin.isatty() and sys.stdout.isatty()):
            if not session.handle(line):
                break
        return ENDED

    def _session(self, console: Console) -> Session | None:
        """A session with the model and the memory asked for; None, and why in red, if they cannot be had."""
        with console.status(escape(f"loading {self.model!r}")) as status:
            from transformers.utils import logging

            from sleepgym.cli.notebook import Notebook
            from sleepgym.cli.session import COMMANDS, Session
            from sleepgym.cli.teaching import PREFIX, relations_of
            from sleepgym.cli.views import one_line
            from sleepgym.sleeper import SleepingLM

            logging.disable_progress_bar()
            try:
                learner = SleepingLM.from_pretrained(
                    self.model,
                    gate=self.gate,
                    seed=self.seed,
                    device=self.device,
                    progress=lambda what, done, total: status.update(
                        escape(f"measuring the model: {what}, {done} of {total}")
                    ),
                )
                if self.memory is not None:
                    learner.load(self.memory)
                notebook = None if self.notes is None else Notebook(self.notes, relations_of(learner.lm.name))
                session = Session(learner, console, self.tokens, notebook)
                session.greet()
            except Exception as error:  # whatever is in a folder that is said to be a model, or notes
                console.print(one_line(error), soft_wrap=True)
                return None
        complete_commands([*(f"/{name}" for name in COMMANDS), PREFIX])
        return session


def lines(interactive: bool) -> Iterator[str]:
    """Lines of standard input until it ends, or is interrupted twice in a row.

    The first interrupt clears what was typed.

    Args:
        interactive: Whether somebody is typing, and wants a prompt.
    """
    read_anything(sys.stdin)
    interrupted = False
    while True:
        try:
            # Not rich's input(): line editing has to know the prompt's width, or it wipes the prompt.
            line = input(PROMPT if interactive else "")
        except EOFError:
            if interactive:
                print()  # what comes next starts below the prompt
            return
        except KeyboardInterrupt:
            cleared = interactive and bool(typed())
            if interrupted and not cleared:
                if interactive:
                    print()
                return
            if interactive:
                print("" if cleared else "\n(once more, or /quit, to leave)")
            interrupted = True
            continue
        interrupted = False
        yield line
