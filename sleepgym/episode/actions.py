"""Actions, and the records of choosing, planning and performing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.memory.reports import SleepReport


class Action(IntEnum):
    """Operators that an agent can choose on every card; the values are those of the action space."""

    WAIT = 0
    INJECT = 1
    REFRESH = 2
    NAP = 3
    SLEEP = 4
    PRUNE = 5


class NoteAction(IntEnum):
    """Further operators of cards with notes; their values follow those of :class:`Action`.

    Attributes:
        NOTE: Writes down what waits, which then waits no longer, and what the weights were taught since it was noted;
            the most popular facts if there is not room for all. It costs no edit. Allowed if there is any such fact,
            and room.
        LOOK_UP_NEVER: Has the weights answer all questions from then on, as at the beginning. Each of the three is
            allowed unless it is so already.
        LOOK_UP_UNSURE: Has questions looked up if the weights are not sure of their own answer, or if a note tells what
            they were not taught and the weights do not have what is current.
        LOOK_UP_ALWAYS: Has every question looked up whose fact is noted.
    """

    NOTE = 6
    LOOK_UP_NEVER = 7
    LOOK_UP_UNSURE = 8
    LOOK_UP_ALWAYS = 9


Operator = Action | NoteAction
OPERATORS: tuple[Operator, ...] = (*Action, *NoteAction)
"""All operators by their values; a card without notes has those of :class:`Action` alone."""
LOOK_UPS = (NoteAction.LOOK_UP_NEVER, NoteAction.LOOK_UP_UNSURE, NoteAction.LOOK_UP_ALWAYS)
"""Operators that say how questions are answered from then on."""


@dataclass(frozen=True)
class Choice:
    """An operator with its parameters.

    Attributes:
        action: The operator.
        facts: Maximum number of facts that it writes; 0 for an operator that writes none.
        ticks: Ticks that it takes.
    """

    action: Operator
    facts: int
    ticks: int


@dataclass(frozen=True)
class Task:
    """A choice resolved in the present state of an episode.

    Attributes:
        choice: The choice.
        edits_left: Maximum number of edits that it may spend.
        facts: Facts that INJECT writes, or that an audit teaches anew from notes.
        keys: Keys of the facts that REFRESH re-solves.
        notes: Facts that NOTE writes down.
    """

    choice: Choice
    edits_left: int
    facts: Sequence[Fact] = ()
    keys: Sequence[Key] = ()
    notes: Sequence[Fact] = ()


@dataclass(frozen=True)
class Outcome:
    """Outcome of an action.

    Attributes:
        edits: Edits spent.
        invalid: Whether the action was not allowed or failed; nothing was changed then.
        error: Error message of an action that failed; empty otherwise.
        error_code: Place of the error in :data:`~sleepgym.episode.operators.FAILURES`, from 1; 0 without an error.
        night: Report of SLEEP; None for other actions.
    """

    edits: int = 0
    invalid: bool = False
    error: str = ""
    error_code: int = 0
    night: SleepReport | None = None
