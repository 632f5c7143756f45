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

    def night_length(self, choice: Choice) -> float:
        """How long a night is, relative to the one that the card describes."""
        return choice.ticks / self.card.ticks.sleep

    def perform(self, choice: Choice, edits_left: int) -> Outcome:
        """Does it. A failure leaves the learner as it was."""
        if not self.mask(edits_left)[choice.action]:
            return Outcome(invalid=True)
        try:
            return self._perform(choice, edits_left)
        except (EditError, FactError, LedgerFullError, SleepError) as error:
            return Outcome(invalid=True, error=f"{type(error).__name__}: {error}")

    def _perform(self, choice: Choice, edits_left: int) -> Outcome:
        learner, writes = self.learner, min(choice.facts, edits_left)
        match choice.action:
            case Action.INJECT:
                facts = self.batch(writes)
                report = learner.inject(facts)
                self.inbox.mark_written(facts)
                return Outcome(edits=report.edits)
            case Action.REFRESH:
                return Outcome(edits=learner.refresh(self.degraded()[:writes]).edits)
            case Action.NAP:
                learner.audit()
            case Action.SLEEP:
                night = learner.sleep(edits=edits_left, length=self.night_length(choice))
                return Outcome(edits=night.edits, night=night)
            case Action.PRUNE:
                learner.prune()
        return Outcome()


def perform_together(
    operators: Sequence[Operators], choices: Sequence[Choice], edits_left: Sequence[int]
) -> list[Outcome]:
    """Does what several episodes on one base have chosen, what is of a kind in the same passes.

    Each comes out as :meth:`Operators.perform` would have left it alone: targets of all facts to be written are
    optimised in one batch, all naps ask in the same passes, and, unless the model is on a CPU, all sleepers of equally
    long nights train in one loop.

    Args:
        operators: One per episode.
        choices: What each is to do.
        edits_left: What each may spend.
    """
    outcomes: dict[int, Outcome] = {}
    alike: dict[tuple[Action, float], list[int]] = {}
    for i, (each, choice, left) in enumerate(zip(operators, choices, edits_left, strict=True)):
        if each.mask(left)[choice.action]:
            length = each.night_length(choice) if choice.action == Action.SLEEP else 0.0
            alike.setdefault((choice.action, length), []).append(i)
    for (action, length), members in alike.items():
        learners = [operators[i].learner for i in members]
        # Whatever fails here fails again below, where each is on its own and its error is its own.
        with suppress(EditError, FactError, SleepError):
            if action == Action.INJECT:
                new = [f for i in members for f in operators[i].batch(min(choices[i].facts, edits_left[i]))]
                learners[0].base.editor.targets(new)
            elif len(members) > 1 and action == Action.NAP:
                audit_together(learners)
                outcomes |= {i: Outcome() for i in members}
            elif len(members) > 1 and action == Action.SLEEP and learners[0].lm.device.type != "cpu":
                # One night fills a CPU. Sixteen in one loop outgrow its caches, and take half as long again as alone.
                nights = sleep_together(learners, edits=[edits_left[i] for i in members], length=length)
                outcomes |= {i: Outcome(n.edits, night=n) for i, n in zip(members, nights, strict=True)}
    return [
        outcomes[i] if i in outcomes else each.perform(choice, left)
        for i, (each, choice, left) in enumerate(zip(operators, choices, edits_left, strict=True))
    ]
