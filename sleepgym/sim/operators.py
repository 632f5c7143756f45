"""Operators on many episodes: what each action changes at once, before its ticks pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import Action
from sleepgym.sim.arrays import gathered, without
from sleepgym.sim.response import Response, Situation
from sleepgym.sim.rules import (
    at_entries,
    at_facts,
    can_be_written,
    edits_left,
    known_degraded,
    smallest,
    to_hold,
    to_train,
)
from sleepgym.sim.state import NOBODY, Ledger, Mind, State

CHANGED: Mapping[Action, tuple[str, ...]] = {
    Action.INJECT: ("clock", "facts", "ledger", "mind"),
    Action.REFRESH: ("clock", "ledger", "mind"),
    Action.SLEEP: ("clock", "facts", "ledger", "mind"),
    Action.PRUNE: ("facts", "ledger"),
}
"""Parts of the state that actions change which are performed on copies of their episodes."""


def perform(at: Situation, response: Response, action: Action, size: NDArray[np.int32]) -> NDArray[np.bool_]:
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
    return np.zeros(len(at.state), bool)


def inject(at: Situation, response: Response, limit: NDArray[np.int32]) -> None:
    """Writes the facts that have waited longest, at most ``limit`` and as many as edits are left."""
    state, facts, ledger = at.state, at.state.facts, at.state.ledger
    able = can_be_written(at.setting, state)
    chosen = able & (np.cumsum(able, 1) <= np.minimum(limit, edits_left(state, at.edit_budget))[:, None])
    row, place = np.nonzero(chosen)
    fact = facts.inbox[row, place]
    written = np.zeros(facts.current.shape, bool)
    written[row, fact] = True
    state.mind.put(slice(None), response.inject(at, written))
    # New facts get the next free entries, in the order in which they waited.
    held = gathered(facts.entry, np.maximum(facts.inbox, 0))
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
    facts.inbox[:] = without(facts.inbox, chosen, NOBODY)
    state.clock.edits_used += chosen.sum(1, dtype=np.int32)


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
