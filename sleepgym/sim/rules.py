"""What an action is about: the rules of :mod:`sleepgym.episode.operators` for many episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.arrays import gathered
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import NOBODY, Facts, Ledger, Mind, State

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


def answered(
    setting: Setting,
    facts: Facts,
    about_new: NDArray[np.float64],
    known: NDArray[np.float64],
    is_asked: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Returns the worth of the answers to all questions of a tick, ``[rows]``.

    Args:
        setting: Numbers of the card.
        facts: Facts of the episodes.
        about_new: Worth of the answers about arrived facts, ``[rows]``.
        known: Worth of those about pretrained facts, ``[rows]``.
        is_asked: Whether pretrained facts are asked, bool ``[rows]``.
    """
    share = setting.card.stream.known_share
    both = np.where(is_asked, (1 - share) * about_new + share * known, about_new)
    return np.where((facts.current >= 0).any(1), both, np.where(is_asked, known, 1.0))


def is_recalled(facts: Facts, mind: Mind) -> Bools:
    """Returns which facts would be answered correctly: written in their current version, and recalled in chat."""
    return (facts.written >= 0) & (facts.written == facts.current) & (mind.chat > 0)


def known_degraded(facts: Facts, ledger: Ledger) -> Bools:
    """Returns which entries are known to be degraded and still true, bool ``[rows, entries]``."""
    return ledger.is_degraded & at_entries(facts.written == facts.current, ledger)


def edits_left(state: State, edit_budget: Numbers) -> NDArray[np.int32]:
    """Returns the edits that may still be spent, ``[rows]``."""
    return (edit_budget - state.clock.edits_used).astype(np.int32)


def room(setting: Setting, state: State) -> NDArray[np.int64]:
    """Returns the number of further facts that the ledger has room for, ``[rows]``."""
    return setting.card.budget.capacity - state.ledger.fill


def batch(order: NDArray[np.int32], held: Bools, room: Numbers, limit: Numbers) -> NDArray[np.int32]:
    """Returns the facts to write next, in their order; -1 in the places of others, ``[rows, width]``.

    The rule of :meth:`sleepgym.episode.inbox.Inbox.batch`: a fact that is there already needs no room.

    Args:
        order: What waits, the next one first; -1 in empty places, ``[rows, width]``.
        held: Facts that are there already, bool ``[rows, facts]``.
        room: Number of further facts that there is room for, ``[rows]``.
        limit: Maximum number of facts, ``[rows]``.
    """
    there = order >= 0
    is_held = there & gathered(held, np.maximum(order, 0))
    able = is_held | (there & (np.cumsum(there & ~is_held, 1) <= room[:, None]))
    return np.where(able & (np.cumsum(able, 1) <= limit[:, None]), order, np.int32(NOBODY))


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
