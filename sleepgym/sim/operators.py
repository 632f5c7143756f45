"""Operators on many episodes: what each action changes at once, before its ticks pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import Action, NoteAction, Operator
from sleepgym.sim import routing
from sleepgym.sim.arrays import gathered, without
from sleepgym.sim.dice import derived
from sleepgym.sim.response import Response, Situation
from sleepgym.sim.rules import (
    at_entries,
    at_facts,
    batch,
    edits_left,
    known_degraded,
    room,
    smallest,
    to_hold,
    to_train,
)
from sleepgym.sim.state import NOBODY, Ledger, Mind, State

WRITTEN = ("clock", "facts", "ledger", "mind")
"""Parts of the state that change when the weights are taught."""

CHANGED: Mapping[Operator, tuple[str, ...]] = {
    Action.INJECT: WRITTEN,
    Action.REFRESH: ("clock", "ledger", "mind"),
    Action.SLEEP: ("clock", "facts", "ledger", "mind"),
    Action.PRUNE: ("facts", "ledger"),
    NoteAction.NOTE: ("facts", "notes"),
}
"""Parts of the state that actions change which are performed on copies of their episodes."""


_TAUGHT = 1 << 40
"""Number that no step has, for the random numbers of what an audit teaches anew: a night follows in the same step."""


def perform(at: Situation, response: Response, action: Operator, size: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Performs one action, which the masks allow and :data:`CHANGED` lists, in all of the given episodes.

    Args:
        at: The episodes, whose state is changed.
        response: Stands in for the model.
        action: The action.
        size: Maximum number of facts that it writes, or the ticks that a night takes, ``[rows]``.

    Returns:
        Which of them were nights that undid themselves, bool ``[rows]``.
    """
    match action:
        case Action.INJECT:
            inject(at, response, size)
        case Action.REFRESH:
            refresh(at, response, size)
        case Action.SLEEP:
            return sleep(at, response, size)
        case Action.PRUNE:
            prune(at)
        case NoteAction.NOTE:
            note(at)
    return np.zeros(len(at.state), bool)


def inject(at: Situation, response: Response, limit: NDArray[np.int32]) -> None:
    """Writes facts, at most ``limit`` and as many as edits are left.

    They are what has waited longest; on a card with notes what waits or is noted, most popular first.
    """
    state = at.state
    waiting = state.facts.inbox
    if at.setting.card.notes is not None:
        waiting = routing.by_popularity(state, at.popularity, routing.untaught(state))
    limit = np.minimum(limit, edits_left(state, at.edit_budget))
    _write(at, response, batch(waiting, state.facts.entry >= 0, room(at.setting, state), limit))


def teach_anew(at: Situation, response: Response) -> None:
    """Writes what notes tell and the ledger holds in an earlier version, before an audit; there is some, and an edit.

    Args:
        at: The episodes, whose state is changed.
        response: Stands in for the model.
    """
    state = at.state
    order = routing.by_popularity(state, at.popularity, routing.outdated(state))
    limit = np.minimum(at.setting.card.budget.refresh, edits_left(state, at.edit_budget))
    dice = state.clock.dice
    state.clock.dice = derived(dice, np.full(len(dice), _TAUGHT))
    _write(at, response, np.where(np.arange(order.shape[1]) < limit[:, None], order, np.int32(NOBODY)))
    state.clock.dice = dice


def to_teach_anew(state: State, edit_budget: NDArray[np.int32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns those of some episodes in which an audit teaches anything anew.

    Args:
        state: State of all episodes.
        edit_budget: Edits that each allows, ``[rows]``.
        rows: Episodes to be audited.
    """
    audited = state.rows(rows)
    return rows[routing.outdated(audited).any(1) & (edits_left(audited, edit_budget[rows]) > 0)]


def note(at: Situation) -> None:
    """Writes down what waits, and what the weights were taught since it was noted."""
    state, facts = at.state, at.state.facts
    order = routing.to_note(at.setting, state, at.popularity)
    routing.note(at.setting, state, at.popularity, order)
    noted = np.zeros(facts.current.shape, bool)
    row, place = np.nonzero(order >= 0)
    noted[row, order[row, place]] = True
    _no_longer_wait(state, noted)


def _write(at: Situation, response: Response, order: NDArray[np.int32]) -> None:
    """Writes facts in an order, each in its current version; -1 in places without one, ``[rows, width]``."""
    state, facts, ledger = at.state, at.state.facts, at.state.ledger
    chosen = order >= 0
    row, place = np.nonzero(chosen)
    fact = order[row, place]
    written = np.zeros(facts.current.shape, bool)
    written[row, fact] = True
    state.mind.put(slice(None), response.inject(at, written))
    # New facts get the next free entries, in the order in which they are written.
    held = gathered(facts.entry, np.maximum(order, 0))
    is_new = chosen & (held < 0)
    entry = np.where(held < 0, ledger.fill[:, None] - 1 + np.cumsum(is_new, 1), held)[row, place]
    ledger.fact[row, entry] = fact
    ledger.stage[row, entry] = 0
    ledger.scale[row, entry] = 1.0
    ledger.margin[row, entry] = 0.0
    ledger.audited_at[row, entry] = NOBODY
    ledger.writes[row, entry] += 1
    ledger.written_at[row, entry] = state.clock.tick[row]
    ledger.trained_at[row, entry] = 0
    ledger.held[row, entry] = 0
    facts.entry[row, fact] = entry
    facts.written[row, fact] = facts.current[row, fact]
    facts.held_at[row, fact] = NOBODY
    _no_longer_wait(state, written)
    state.clock.edits_used += chosen.sum(1, dtype=np.int32)


def _no_longer_wait(state: State, gone: NDArray[np.bool_]) -> None:
    """Takes facts out of the inbox, bool ``[rows, facts]``."""
    inbox = state.facts.inbox
    inbox[:] = without(inbox, (inbox >= 0) & gathered(gone, np.maximum(inbox, 0)), NOBODY)


def refresh(at: Situation, response: Response, limit: NDArray[np.int32]) -> None:
    """Solves the worst of the facts that are known to be degraded again, at most ``limit`` and what edits are left."""
    state, ledger = at.state, at.state.ledger
    writes = np.minimum(limit, edits_left(state, at.edit_budget))
    chosen = smallest(ledger.margin, known_degraded(state.facts, ledger), writes)
    state.mind.put(slice(None), response.refresh(at, chosen))
    _solved_again(ledger, chosen)
    ledger.scale[chosen] = 1.0
    state.clock.edits_used += chosen.sum(1, dtype=np.int32)


def audit(state: State, rows: NDArray[np.int64]) -> None:
    """Notes in ledgers what the model answers.

    Args:
        state: State of all episodes, which is changed.
        rows: Episodes to audit.
    """
    ledger = state.ledger.rows(rows)
    _audit(ledger, state.mind.rows(rows), state.clock.tick[rows])
    state.ledger.margin[rows], state.ledger.audited_at[rows] = ledger.margin, ledger.audited_at


def sleep(at: Situation, response: Response, ticks: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Audits, refreshes, trains, and moves facts between stages; a harmful night undoes itself.

    Args:
        at: The episodes.
        response: Stands in for the model.
        ticks: Length of each night.

    Returns:
        Which nights were undone.
    """
    setting, card, state = at.setting, at.setting.card, at.state
    draft, spec = state.ledger.copy(), setting.card.sleep
    _audit(draft, state.mind, state.clock.tick)
    refreshed = np.zeros(draft.fact.shape, bool)
    if spec.refresh:
        worn = draft.present & draft.is_degraded & (draft.stage == 0)
        refreshed = smallest(draft.margin, worn, edits_left(state, at.edit_budget))
        _solved_again(draft, refreshed)
    nights = state.clock.nights + 1
    trained = to_train(setting, draft, nights)
    held = to_hold(setting, state.facts, draft, trained)
    steps = np.maximum(1, np.rint(ticks / card.ticks.sleep * spec.steps)).astype(np.int32)
    night = response.night(at, refreshed, trained, held, steps)
    draft.trained_at[trained] = np.broadcast_to(nights[:, None], trained.shape)[trained]
    draft.held[:] = np.where(night.passed, draft.held + 1, 0)
    draft.stage[:], draft.scale[:] = night.stage, night.scale
    _audit(draft, night.mind, state.clock.tick)
    _clear(draft)
    kept = np.flatnonzero(~night.undone)
    state.ledger.put(kept, draft.rows(kept))
    state.mind.put(kept, night.mind.rows(kept))
    settled = held[kept] & (state.facts.held_at[kept] >= 0)
    state.facts.held_at[kept] = np.where(settled, nights[kept, None], state.facts.held_at[kept])
    state.clock.nights[kept] = nights[kept]
    state.clock.edits_used[kept] += refreshed[kept].sum(1, dtype=np.int32)
    state.clock.rank[kept] = night.rank[kept]
    return night.undone


def prune(at: Situation) -> None:
    """Takes the facts of the last stage out of the ledger; they settle, and slow weights answer as before."""
    state, facts, ledger = at.state, at.state.facts, at.state.ledger
    gone = ledger.present & (ledger.stage == at.setting.card.sleep.last_stage)
    facts.held_at[:] = np.where(at_facts(gone, facts, False), at_facts(ledger.trained_at, facts, 0), facts.held_at)
    closed = {name: without(array, gone, 0) for name, array in vars(ledger).items()}
    absent = np.arange(ledger.fact.shape[1]) >= (ledger.fill - gone.sum(1))[:, None]
    for name, array in closed.items():
        getattr(state.ledger, name)[:] = array
    ledger.fact[absent] = ledger.audited_at[absent] = NOBODY
    row, entry = np.nonzero(ledger.present)
    facts.entry[:] = NOBODY
    facts.entry[row, ledger.fact[row, entry]] = entry


def _solved_again(ledger: Ledger, chosen: NDArray[np.bool_]) -> None:
    """Notes a refresh: the margin from before it is out of date."""
    ledger.stage[chosen] = 0
    ledger.held[chosen] = 0
    ledger.margin[chosen] = 0.0
    ledger.audited_at[chosen] = NOBODY
    ledger.writes[chosen] += 1


def _audit(ledger: Ledger, mind: Mind, tick: NDArray[np.int32]) -> None:
    present = ledger.present
    ledger.margin[:] = np.where(present, at_entries(mind.chat, ledger), 0)
    ledger.audited_at[:] = np.where(present, tick[:, None], NOBODY)


def _clear(ledger: Ledger) -> None:
    """Zeros what is beyond the last entry, after operations on whole arrays."""
    absent = ~ledger.present
    for array in (ledger.stage, ledger.scale, ledger.held):
        array[absent] = 0
