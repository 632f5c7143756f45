"""Actions, and the records of choosing, planning and performing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.memory.reports import SleepReport


class Action(IntEnum):
    """Operators that an agent can choose; the values are those of the action space."""

    WAIT = 0
    INJECT = 1
    REFRESH = 2
    NAP = 3
    SLEEP = 4
    PRUNE = 5


@dataclass(frozen=True)
class Choice:
    """An operator with its parameters.

    Attributes:
        action: The operator.
        facts: Maximum number of facts that it writes; 0 for an operator that writes none.
        ticks: Ticks that it takes.
    """

    action: Action
    facts: int
    ticks: int


@dataclass(frozen=True)
class Task:
    """A choice resolved in the present state of an episode.

    Attributes:
        choice: The choice.
        edits_left: Maximum number of edits that it may spend.
        facts: Facts that INJECT writes.
        keys: Keys of the facts that REFRESH re-solves.
    """

    choice: Choice
    edits_left: int
    facts: Sequence[Fact] = ()
    keys: Sequence[Key] = ()


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
