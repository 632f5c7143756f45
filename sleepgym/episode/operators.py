"""Operators: validity, resolution and execution of actions, as functions of an episode's state and a choice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sleepgym.consolidation.spec import SleepError
from sleepgym.editing.spec import EditError
from sleepgym.episode import routing
from sleepgym.episode.actions import LOOK_UPS, Action, Choice, NoteAction, Operator, Outcome, Task
from sleepgym.episode.card import Card
from sleepgym.episode.state import EpisodeState
from sleepgym.facts.fact import Fact, FactError
from sleepgym.memory.ledger import Key, LedgerFullError
from sleepgym.sleeper import SleepingLM

FAILURES = (EditError, FactError, LedgerFullError, SleepError)
"""Errors that make an action invalid; the learner is unchanged after them. ``info["error_code"]`` counts from 1."""


def batch(state: EpisodeState, card: Card, limit: int) -> list[Fact]:
    """Returns the facts that INJECT would write, at most ``limit``.

    They are what waits, oldest first; on a card with notes what waits or is noted, most popular first.
    """
    ledger = state.learner.ledger
    waiting = None if card.notes is None else routing.untaught(state)
    return state.inbox.batch(limit, ledger.keys(), ledger.capacity - len(ledger), waiting)


def degraded(state: EpisodeState) -> list[Key]:
    """Returns the keys of the facts that are known to be degraded and still true, lowest margin first."""
    current, ledger = state.inbox.current, state.learner.ledger
    return [key for key in ledger.degraded if current[key].fact == ledger[key].fact]


def allowed(state: EpisodeState, card: Card, action: Operator) -> bool:
    """Returns whether an action is allowed, that is, would have an effect."""
    ledger = state.learner.ledger
    match action:
        case Action.WAIT:
            return True
        case Action.INJECT:
            return bool(batch(state, card, min(1, state.edits_left)))
        case Action.REFRESH:
            return state.edits_left > 0 and bool(degraded(state))
        case Action.NAP | Action.SLEEP:
            return len(ledger) > 0
        case Action.PRUNE:
            return any(entry.stage == card.sleep.last_stage for entry in ledger.values())
        case NoteAction.NOTE:
            return bool(routing.to_note(state, card))
    return action != state.notes.answering


def mask(state: EpisodeState, card: Card) -> NDArray[np.bool_]:
    """Returns the action mask, bool ``[actions]`` in the order of the card's operators."""
    return np.array([allowed(state, card, action) for action in card.operators])


def task_of(state: EpisodeState, card: Card, choice: Choice) -> Task | None:
    """Returns the task of a choice within the edit budget; None if the choice is not allowed."""
    left = state.edits_left
    writes = min(choice.facts, left)
    match choice.action:
        case Action.INJECT:
            facts = batch(state, card, writes)
            return Task(choice, left, facts=facts) if facts else None
        case Action.REFRESH:
            keys = degraded(state)[: max(0, writes)]
            return Task(choice, left, keys=keys) if keys else None
        case NoteAction.NOTE:
            notes = routing.to_note(state, card)
            return Task(choice, left, notes=notes) if notes else None
        case Action.NAP | Action.SLEEP if card.notes is not None and allowed(state, card, choice.action):
            return Task(choice, left, facts=routing.outdated(state)[: min(card.budget.refresh, max(0, left))])
    return Task(choice, left) if allowed(state, card, choice.action) else None


def night_length(card: Card, choice: Choice) -> float:
    """Returns the length of a night relative to ``ticks.sleep`` of the card."""
    return choice.ticks / card.ticks.sleep


def perform(learner: SleepingLM, state: EpisodeState, card: Card, task: Task | None) -> Outcome:
    """Performs a task; on failure the learner is unchanged and the outcome is invalid.

    Args:
        learner: Learner that performs the task; its state is ``state.learner``.
        state: State of the episode; inbox and learner are changed.
        card: Card of the environment, for the usual length of a night.
        task: Task to perform; None for a choice that is not allowed.
    """
    if task is None:
        return Outcome(invalid=True)
    before = learner.state
    try:
        return _performed(learner, state, card, task)
    except FAILURES as error:
        if task.facts:  # an audit may have taught them before it failed
            learner.state = before
        code = next(place for place, kind in enumerate(FAILURES, start=1) if isinstance(error, kind))
        return Outcome(invalid=True, error=f"{type(error).__name__}: {error}", error_code=code)


def _performed(learner: SleepingLM, state: EpisodeState, card: Card, task: Task) -> Outcome:
    match task.choice.action:
        case Action.INJECT:
            report = learner.inject(task.facts)
            state.inbox.mark_written(task.facts)
            return Outcome(edits=report.edits)
        case Action.REFRESH:
            return Outcome(edits=learner.refresh(task.keys).edits)
        case Action.NAP:
            taught = _taught_anew(learner, task)
            learner.audit()
            state.inbox.mark_written(task.facts)
            return Outcome(edits=taught)
        case Action.SLEEP:
            taught = _taught_anew(learner, task)
            night = learner.sleep(edits=task.edits_left - taught, length=night_length(card, task.choice))
            state.inbox.mark_written(task.facts)
            return Outcome(edits=taught + night.edits, night=night)
        case Action.PRUNE:
            learner.prune()
        case NoteAction.NOTE:
            routing.note(state, card, task.notes)
        case look_up if look_up in LOOK_UPS:
            state.notes.answering = NoteAction(look_up)
    return Outcome()


def _taught_anew(learner: SleepingLM, task: Task) -> int:
    """Teaches what an audit found otherwise in the notes than in the weights; returns the edits that it took."""
    return learner.inject(task.facts).edits if task.facts else 0
