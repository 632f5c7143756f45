"""Routing between notes and weights in many episodes: the rules of :mod:`sleepgym.episode.routing`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.rules import Bools, at_facts, batch
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import NOBODY, Facts, State

Order = NDArray[np.int32]
"""Facts in an order, by number; -1 beyond the last, ``[rows, facts]``."""


def waiting(facts: Facts) -> Bools:
    """Returns which facts are in the inbox, bool ``[rows, facts]``."""
    out = np.zeros(facts.current.shape, bool)
    row, place = np.nonzero(facts.inbox >= 0)
    out[row, facts.inbox[row, place]] = True
    return out


def from_notes(state: State, waits: Bools) -> Bools:
    """Returns which facts the weights can be taught from notes, bool ``[rows, facts]``.

    Args:
        state: State of the episodes.
        waits: See :func:`waiting`; they are none of these.
    """
    facts, told = state.facts, state.notes.told
    return (told >= 0) & (told == facts.current) & (facts.written != facts.current) & ~waits


def untaught(state: State) -> Bools:
    """Returns which facts the weights can be taught, bool ``[rows, facts]``: what waits, and what is noted."""
    waits = waiting(state.facts)
    return waits | from_notes(state, waits)


def outdated(state: State) -> Bools:
    """Returns which facts notes tell as they are and the ledger in an earlier version, bool ``[rows, facts]``."""
    return from_notes(state, waiting(state.facts)) & (state.facts.entry >= 0)


def only_noted(state: State) -> Bools:
    """Returns which facts are noted, do not wait, and are not in the ledger, bool ``[rows, facts]``."""
    return from_notes(state, waiting(state.facts)) & (state.facts.entry < 0)


def notable(state: State) -> Bools:
    """Returns what NOTE would write down if there were room for all, bool ``[rows, facts]``."""
    facts, told = state.facts, state.notes.told
    return waiting(facts) | ((told >= 0) & (told != facts.current) & (facts.written == facts.current))


def can_be_noted(setting: Setting, state: State) -> NDArray[np.bool_]:
    """Returns where NOTE would write anything, bool ``[rows]``."""
    found = notable(state)
    return (found & state.notes.noted).any(1) | (found.any(1) & (note_room(setting, state) > 0))


def note_room(setting: Setting, state: State) -> NDArray[np.int64]:
    """Returns the number of further notes that there is room for, once what can go is in the archive, ``[rows]``."""
    return notes_left(setting, state) + np.count_nonzero(to_archive(setting, state), axis=1)


def notes_left(setting: Setting, state: State) -> NDArray[np.int64]:
    """Returns the number of further notes that there is room for now, ``[rows]``."""
    assert setting.card.notes is not None
    return setting.card.notes.capacity - np.count_nonzero(state.notes.noted, axis=1)


def to_archive(setting: Setting, state: State) -> Bools:
    """Returns whose notes can go into the archive, bool ``[rows, facts]``; see ``sleepgym.episode.routing``."""
    facts, notes = state.facts, state.notes
    last = at_facts(state.ledger.stage == setting.card.sleep.last_stage, facts, False)
    held = (last | (facts.held_at >= 0)) & ~waiting(facts)
    return held & notes.noted & (facts.written == notes.told)


def by_popularity(state: State, popularity: NDArray[np.float64], chosen: Bools) -> Order:
    """Orders facts, most popular first; of equal ones, what waits before what is noted, the oldest first.

    Args:
        state: State of the episodes.
        popularity: Popularity of each fact, ``[rows, facts]``.
        chosen: Facts to order, bool ``[rows, facts]``.
    """
    inbox, since = state.facts.inbox, state.notes.place.copy()
    row, place = np.nonzero(inbox >= 0)
    since[row, inbox[row, place]] = place - inbox.shape[1]
    return _ordered(chosen, -popularity, since)


def to_note(setting: Setting, state: State, popularity: NDArray[np.float64]) -> Order:
    """Returns what NOTE writes down, in the order in which new notes are made."""
    order, notes = by_popularity(state, popularity, notable(state)), state.notes
    return batch(order, notes.noted, note_room(setting, state), np.full(len(state), order.shape[1]))


def note(setting: Setting, state: State, popularity: NDArray[np.float64], order: Order) -> None:
    """Writes facts down, and makes room where there is none; the inbox stays as it is.

    Args:
        setting: Numbers of the card.
        state: State of the episodes, whose notes are changed.
        popularity: Popularity of each fact, ``[rows, facts]``.
        order: See :func:`to_note`.
    """
    notes, facts = state.notes, state.facts
    row, place = np.nonzero(order >= 0)
    fact = order[row, place]
    is_new = np.zeros(order.shape, bool)
    is_new[row, place] = notes.told[row, fact] < 0
    _archive(setting, state, popularity, is_new.sum(1) - notes_left(setting, state))
    # New notes come after all others, in the order in which they are made.
    after = np.where(notes.noted, notes.place, NOBODY).max(1, initial=NOBODY)
    numbers = (after[:, None] + np.cumsum(is_new, 1)).astype(np.int32)
    new_row, new_place = np.nonzero(is_new)
    notes.place[new_row, order[new_row, new_place]] = numbers[new_row, new_place]
    notes.told[row, fact] = facts.current[row, fact]


def _archive(setting: Setting, state: State, popularity: NDArray[np.float64], missing: NDArray[np.int64]) -> None:
    """Puts as many notes into the archive as there is room missing, the least popular first."""
    if (missing <= 0).all():
        return
    notes = state.notes
    order = _ordered(to_archive(setting, state), popularity, notes.place)
    row, place = np.nonzero((order >= 0) & (np.arange(order.shape[1]) < missing[:, None]))
    fact = order[row, place]
    notes.told[row, fact], notes.archived[row, fact] = NOBODY, True


def _ordered(chosen: Bools, value: NDArray[np.float64], since: NDArray[np.int32]) -> Order:
    """Returns facts by ascending value, and those of equal value by ``since``."""
    order = np.lexsort((since, np.where(chosen, value, np.inf)), axis=1).astype(np.int32)
    there = np.arange(order.shape[1]) < np.count_nonzero(chosen, axis=1)[:, None]
    return np.where(there, order, np.int32(NOBODY))
