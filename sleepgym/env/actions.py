"""The six actions: when each is allowed, and what it asks of the learner."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
from sleepgym.sleeper import SleepingLM, audit_together, sleep_together


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


def perform_together(
    operators: Sequence[Operators], actions: Sequence[Action], edits_left: Sequence[int]
) -> list[Outcome]:
    """Does the actions of several episodes on one base, those of a kind in the same passes.

    Each comes out as :meth:`Operators.perform` would have left it alone: targets of all facts to be written are
    optimised in one batch, all naps ask in the same passes, and all sleepers train in one loop.

    Args:
        operators: One per episode.
        actions: What each is to do.
        edits_left: What each may spend.
    """
    outcomes: dict[int, Outcome] = {}
    allowed = {
        i: action
        for i, (each, action, left) in enumerate(zip(operators, actions, edits_left, strict=True))
        if each.mask(left)[action]
    }
    learners = {
        kind: {i: operators[i].learner for i, action in allowed.items() if action == kind}
        for kind in (Action.NAP, Action.SLEEP)
    }
    # Whatever fails here fails again below, where each is on its own and its error is its own.
    with suppress(EditError, FactError):
        new = [f for i, action in allowed.items() if action == Action.INJECT for f in operators[i].batch(edits_left[i])]
        if new:
            operators[0].learner.base.editor.targets(new)
    if len(learners[Action.NAP]) > 1:
        audit_together(list(learners[Action.NAP].values()))
        outcomes |= {i: Outcome() for i in learners[Action.NAP]}
    if len(sleepers := learners[Action.SLEEP]) > 1:
        with suppress(SleepError):
            nights = sleep_together(list(sleepers.values()), edits=[edits_left[i] for i in sleepers])
            outcomes |= {i: Outcome(n.edits, night=n) for i, n in zip(sleepers, nights, strict=True)}
    return [
        outcomes[i] if i in outcomes else each.perform(action, left)
        for i, (each, action, left) in enumerate(zip(operators, actions, edits_left, strict=True))
    ]
