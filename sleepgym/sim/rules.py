"""What is allowed and what an action is about: the rules of :mod:`sleepgym.episode.operators` for many episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import Action
from sleepgym.sim.arrays import gathered
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import Facts, Ledger, Mind, State

Bools = NDArray[np.bool_]
Numbers = NDArray[np.integer]


def at_entries(of_facts: NDArray[Any], ledger: Ledger) -> NDArray[Any]:
    """Returns for each entry what an array says of its fact, ``[rows, entries]``; beyond the last, of any fact.

    Args:
        of_facts: ``[rows, facts]``.
        ledger: The entries.
    """
    return gathered(of_facts, np.maximum(ledger.fact, 0))


def at_facts(of_entries: NDArray[Any], facts: Facts, absent: float) -> NDArray[Any]:
    """Returns for each fact what an array says of its entry, ``[rows, facts]``.

    Args:
        of_entries: ``[rows, entries]``.
        facts: The facts.
        absent: Value for facts that are not in the ledger.
    """
    found = gathered(of_entries, np.maximum(facts.entry, 0))
    return np.where(facts.entry >= 0, found, np.asarray(absent, of_entries.dtype))


def is_recalled(facts: Facts, mind: Mind) -> Bools:
    """Returns which facts would be answered correctly: written in their current version, and recalled in chat."""
    return (facts.written >= 0) & (facts.written == facts.current) & (mind.chat > 0)


def known_degraded(facts: Facts, ledger: Ledger) -> Bools:
    """Returns which entries are known to be degraded and still true, bool ``[rows, entries]``."""
    return ledger.is_degraded & at_entries(facts.written == facts.current, ledger)


def edits_left(state: State, edit_budget: Numbers) -> NDArray[np.int32]:
    """Returns the edits that may still be spent, ``[rows]``."""
    return (edit_budget - state.clock.edits_used).astype(np.int32)


def masks(setting: Setting, state: State, edit_budget: Numbers) -> Bools:
    """Returns the action masks, bool ``[rows, actions]`` in the order of :class:`Action`.

    Args:
        setting: Numbers of the card.
        state: State of the episodes.
        edit_budget: Edits allowed, ``[rows]``.
    """
    ledger, left, fill = state.ledger, edits_left(state, edit_budget) > 0, state.ledger.fill
    allowed = np.ones((len(state), len(Action)), bool)
    allowed[:, Action.INJECT] = left & can_be_written(setting, state).any(1)
    allowed[:, Action.REFRESH] = left & known_degraded(state.facts, ledger).any(1)
    allowed[:, Action.NAP] = allowed[:, Action.SLEEP] = fill > 0
    allowed[:, Action.PRUNE] = (ledger.present & (ledger.stage == setting.card.sleep.last_stage)).any(1)
    return allowed


def can_be_written(setting: Setting, state: State) -> Bools:
    """Returns which places of the inbox INJECT would write without a limit, bool ``[rows, pending]``.

    A new version of a fact in the ledger needs no room; others, oldest first, need a place each.
    """
    inbox = state.facts.inbox
    waits = inbox >= 0
    held = gathered(state.facts.entry, np.maximum(inbox, 0)) >= 0
    room = setting.card.budget.capacity - state.ledger.fill
    return waits & (held | (np.cumsum(waits & ~held, 1) <= room[:, None]))


def smallest(value: NDArray[np.floating] | Numbers, chosen: Bools, limit: Numbers) -> Bools:
    """Returns the entries of the smallest values among some, the earlier ones of equal value.

    Args:
        value: What to go by, ``[rows, entries]``.
        chosen: Entries to choose from, bool ``[rows, entries]``.
        limit: Maximum number, ``[rows]``.
    """
    out = chosen.copy()
    # Most rows have fewer than allowed, and need no sorting.
    crowded = np.flatnonzero(chosen.sum(1) > limit)
    if len(crowded):
        value = np.where(chosen[crowded], value[crowded], np.inf)
        order = np.argsort(value, axis=1, kind="stable")
        within = np.arange(value.shape[1]) < np.maximum(limit[crowded], 0)[:, None]
        picked = np.empty_like(within)
        np.put_along_axis(picked, order, within, 1)
        out[crowded] &= picked
    return out


def to_train(setting: Setting, ledger: Ledger, nights: Numbers) -> Bools:
    """Returns the entries that a night trains; see :func:`sleepgym.consolidation.spacing.to_train`.

    Args:
        setting: Numbers of the card.
        ledger: The entries.
        nights: Number of the night, from 1, ``[rows]``.
    """
    spec = setting.card.sleep
    interval = np.minimum(2 ** np.minimum(np.maximum(ledger.held - 1, 0), 30), spec.spacing)
    due = ledger.present & ((ledger.held == 0) | (nights[:, None] - ledger.trained_at >= interval))
    # Those that slow weights do not hold first, then the longest untrained.
    value = ledger.trained_at + np.where(ledger.held > 0, 1e6, 0.0)
    return smallest(value, due, np.full(len(due), spec.facts))


def to_hold(setting: Setting, facts: Facts, ledger: Ledger, trained: Bools) -> Bools:
    """Returns the facts whose answers a night holds, bool ``[rows, facts]``; see ``spacing.to_hold``.

    Args:
        setting: Numbers of the card.
        facts: The facts, of which settled ones are held.
        ledger: The entries, of which those that slow weights hold and that are not trained are held too.
        trained: Entries that the night trains, bool ``[rows, entries]``.
    """
    resting = at_facts((ledger.held > 0) & ~trained, facts, False)
    since = np.where(resting, at_facts(ledger.trained_at, facts, 0), facts.held_at)
    return smallest(since, resting | (facts.held_at >= 0), np.full(len(since), setting.card.sleep.settled))
