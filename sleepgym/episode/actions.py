"""The six actions: what an agent can choose, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.memory.reports import SleepReport


class Action(IntEnum):
    """What an agent can do; the values are those of the action space."""

    WAIT = 0
    INJECT = 1
    REFRESH = 2
    NAP = 3
    SLEEP = 4
    PRUNE = 5


@dataclass(frozen=True)
class Choice:
    """An action and how far it goes.

    Attributes:
        action: The operator.
        facts: Facts that it writes at most; 0 for one that writes none.
        ticks: Ticks that it takes.
    """

    action: Action
    facts: int
    ticks: int


@dataclass(frozen=True)
class Task:
    """What a choice comes to in an episode as it stands.

    Attributes:
        choice: The choice.
        edits_left: Edits that it may spend.
        facts: Facts that INJECT writes.
        keys: Facts that REFRESH re-solves.
    """

    choice: Choice
    edits_left: int
    facts: Sequence[Fact] = ()
    keys: Sequence[Key] = ()


@dataclass(frozen=True)
class Outcome:
    """What an action did.

    Attributes:
        edits: Edits it spent.
        invalid: Whether it was forbidden or failed; then nothing was changed.
        error: Why it failed, if it was tried.
        night: The report of a night.
    """

    edits: int = 0
    invalid: bool = False
    error: str = ""
    night: SleepReport | None = None
