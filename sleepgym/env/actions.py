"""The six actions: when each is allowed, and what it asks of the learner."""

from __future__ import annotations

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


class Operators:
    """Turns actions into calls of a learner, within an edit budget that no action can exceed.

    Args:
        learner: Whose memory is written.
        inbox: What waits to be written.
        card: Batch sizes.
    """

    def __init__(self, learner: SleepingLM, inbox: Inbox, card: Card) -> None:
        self.learner, self.inbox, self.card = learner, inbox, card

    def batch(self, edits_left: int) -> list[Fact]:
        """Facts that INJECT would write."""
        ledger = self.learner.state.ledger
        limit = min(self.card.budget.inject, edits_left)
        return self.inbox.batch(limit, ledger.keys(), ledger.capacity - len(ledger))

    def degraded(self) -> list[Key]:
        """Facts known to be degraded, the worst first; those that are no longer true are not worth an edit."""
        current, ledger = self.inbox.current, self.learner.state.ledger
        return [key for key in ledger.degraded if current[key].fact == ledger[key].fact]

    def mask(self, edits_left: int) -> NDArray[np.bool_]:
        """Which actions would do something, in the order of :class:`Action`."""
        ledger = self.learner.state.ledger
        allowed = {
            Action.WAIT: True,
            Action.INJECT: bool(self.batch(edits_left)),
            Action.REFRESH: edits_left > 0 and bool(self.degraded()),
            Action.NAP: len(ledger) > 0,
            Action.SLEEP: len(ledger) > 0,
            Action.PRUNE: any(e.stage == self.learner.sleep_spec.last_stage for e in ledger.values()),
        }
        return np.array([allowed[action] for action in Action])

    def perform(self, action: Action, edits_left: int) -> Outcome:
        """Does it. A failure leaves the learner as it was."""
        if not self.mask(edits_left)[action]:
            return Outcome(invalid=True)
        try:
            return self._perform(action, edits_left)
        except (EditError, FactError, LedgerFullError, SleepError) as error:
            return Outcome(invalid=True, error=f"{type(error).__name__}: {error}")

    def _perform(self, action: Action, edits_left: int) -> Outcome:
        learner = self.learner
        match action:
            case Action.INJECT:
                facts = self.batch(edits_left)
                report = learner.inject(facts)
                self.inbox.mark_written(facts)
                return Outcome(edits=report.edits)
            case Action.REFRESH:
                keys = self.degraded()[: min(self.card.budget.refresh, edits_left)]
                return Outcome(edits=learner.refresh(keys).edits)
            case Action.NAP:
                learner.audit()
            case Action.SLEEP:
                night = learner.sleep(edits=edits_left)
                return Outcome(edits=night.edits, night=night)
            case Action.PRUNE:
                learner.prune()
        return Outcome()
