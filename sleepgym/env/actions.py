"""The six actions: when each is allowed, and what it asks of the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sleepgym.consolidation.spec import SleepError
from sleepgym.editing import EditError
from sleepgym.env.card import Card
from sleepgym.env.inbox import Inbox
from sleepgym.facts.fact import Fact, FactError
from sleepgym.ledger import Key, LedgerFullError
from sleepgym.reports import SleepReport
from sleepgym.sleeper import SleepingLM


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


FAILURES = (EditError, FactError, LedgerFullError, SleepError)
"""What an operator may run into; the learner is then as it was."""


@dataclass(frozen=True)
class Task:
    """What a choice comes to on a learner as it stands.

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


class Operators:
    """Turns choices into calls of a learner, within an edit budget that no choice can exceed.

    Args:
        learner: Whose memory is written.
        inbox: What waits to be written.
        card: How many ticks the night takes that its section ``sleep`` describes.
    """

    def __init__(self, learner: SleepingLM, inbox: Inbox, card: Card) -> None:
        self.learner, self.inbox, self.card = learner, inbox, card

    def batch(self, limit: int) -> list[Fact]:
        """Facts that INJECT would write, at most as many."""
        ledger = self.learner.state.ledger
        return self.inbox.batch(limit, ledger.keys(), ledger.capacity - len(ledger))

    def degraded(self) -> list[Key]:
        """Facts known to be degraded, the worst first; those that are no longer true are not worth an edit."""
        current, ledger = self.inbox.current, self.learner.state.ledger
        return [key for key in ledger.degraded if current[key].fact == ledger[key].fact]

    def allowed(self, action: Action, edits_left: int) -> bool:
        """Whether an action would do something."""
        ledger = self.learner.state.ledger
        match action:
            case Action.WAIT:
                return True
            case Action.INJECT:
                return bool(self.batch(min(1, edits_left)))
            case Action.REFRESH:
                return edits_left > 0 and bool(self.degraded())
            case Action.NAP | Action.SLEEP:
                return len(ledger) > 0
            case Action.PRUNE:
                return any(e.stage == self.learner.sleep_spec.last_stage for e in ledger.values())

    def mask(self, edits_left: int) -> NDArray[np.bool_]:
        """Which actions would do something, in the order of :class:`Action`."""
        return np.array([self.allowed(action, edits_left) for action in Action])

    def night_length(self, choice: Choice) -> float:
        """How long a night is, relative to the one that the card describes."""
        return choice.ticks / self.card.ticks.sleep

    def task(self, choice: Choice, edits_left: int) -> Task | None:
        """What a choice comes to now; None if it is not allowed."""
        writes = min(choice.facts, edits_left)
        match choice.action:
            case Action.INJECT:
                facts = self.batch(writes)
                return Task(choice, edits_left, facts=facts) if facts else None
            case Action.REFRESH:
                keys = self.degraded()[:writes]
                return Task(choice, edits_left, keys=keys) if keys else None
        return Task(choice, edits_left) if self.allowed(choice.action, edits_left) else None

    def perform(self, task: Task | None) -> Outcome:
        """Does it. A failure leaves the learner as it was."""
        if task is None:
            return Outcome(invalid=True)
        try:
            return self._perform(task)
        except FAILURES as error:
            return Outcome(invalid=True, error=f"{type(error).__name__}: {error}")

    def _perform(self, task: Task) -> Outcome:
        learner = self.learner
        match task.choice.action:
            case Action.INJECT:
                report = learner.inject(task.facts)
                self.inbox.mark_written(task.facts)
                return Outcome(edits=report.edits)
            case Action.REFRESH:
                return Outcome(edits=learner.refresh(task.keys).edits)
            case Action.NAP:
                learner.audit()
            case Action.SLEEP:
                night = learner.sleep(edits=task.edits_left, length=self.night_length(task.choice))
                return Outcome(edits=night.edits, night=night)
            case Action.PRUNE:
                learner.prune()
        return Outcome()
