"""Spacing: which facts a night trains and which settled facts it holds, since it need not go over everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sleepgym.memory.ledger import Entry, Key
from sleepgym.memory.settled import Settled


def due(entry: Entry, night: int, spacing: int) -> bool:
    """Returns whether a night trains a fact.

    A fact is trained every night until slow weights hold it, and then after 1, 2, 4, ... nights, as its hold proves
    lasting: the usual spaced repetition. One that fails a gate starts over.

    Args:
        entry: The fact and what nights have seen of it.
        night: Number of the night, counted from 1.
        spacing: Maximum number of nights between two trainings.
    """
    interval = min(2 ** max(0, entry.held - 1), spacing)
    return entry.held == 0 or night - entry.trained_at >= interval


def to_train(entries: Mapping[Key, Entry], night: int, spacing: int, limit: int) -> list[Key]:
    """Returns the keys of the facts to train: those that slow weights do not hold first, then the longest untrained.

    Args:
        entries: Facts in the ledger.
        night: Number of the night, counted from 1.
        spacing: Maximum number of nights between two trainings of a fact.
        limit: Maximum number of facts.
    """
    chosen = [key for key, entry in entries.items() if due(entry, night, spacing)]
    return sorted(chosen, key=lambda key: (entries[key].held > 0, entries[key].trained_at))[:limit]


def to_hold(settled: Iterable[Settled], limit: int) -> list[Settled]:
    """Returns the facts whose answers a night holds, at most ``limit``, those trained or held longest ago first."""
    return sorted(settled, key=lambda each: each.held_at)[:limit]
