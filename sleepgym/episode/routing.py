"""Routing between notes and weights: which facts can go from where to where, as functions of an episode's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sleepgym.episode.card import Card
from sleepgym.episode.stream import Arrival
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key

if TYPE_CHECKING:
    from sleepgym.episode.state import EpisodeState


def untaught(state: EpisodeState) -> list[Arrival]:
    """Returns the facts that the weights can be taught: what waits, and what is noted; most popular first."""
    inbox, told = state.inbox, state.notes.told
    current = (inbox.current[key] for key, fact in told.items() if inbox.current[key].fact == fact)
    noted = (a for a in current if a.fact.key not in inbox.pending and inbox.written.get(a.fact.key) != a.fact)
    return _by_popularity([*inbox.pending.values(), *noted])


def outdated(state: EpisodeState) -> list[Fact]:
    """Returns the facts that notes tell as they are and the ledger in an earlier version; most popular first."""
    pending, ledger = state.inbox.pending, state.learner.ledger
    return [a.fact for a in untaught(state) if a.fact.key in ledger and a.fact.key not in pending]


def only_noted(state: EpisodeState) -> list[Arrival]:
    """Returns the facts that are noted, do not wait, and are not in the ledger; most popular first."""
    pending, ledger = state.inbox.pending, state.learner.ledger
    return [a for a in untaught(state) if a.fact.key not in ledger and a.fact.key not in pending]


def to_note(state: EpisodeState, card: Card) -> list[Fact]:
    """Returns the facts that NOTE would write down: what waits, and what the weights were taught since it was noted.

    Where there is not room for all of them, the most popular ones.
    """
    if card.notes is None:
        return []
    inbox, told = state.inbox, state.notes.told
    behind = (inbox.current[key] for key, fact in told.items() if inbox.current[key].fact != fact)
    rewritten = [arrival for arrival in behind if inbox.written.get(arrival.fact.key) == arrival.fact]
    room = card.notes.capacity - len(told) + len(to_archive(state, card))
    candidates = _by_popularity([*inbox.pending.values(), *rewritten])
    return inbox.batch(len(candidates), told.keys(), room, candidates)


def to_archive(state: EpisodeState, card: Card) -> list[Key]:
    """Returns the keys of the notes that can go into the archive, least popular first.

    These are notes of facts that slow weights hold alone, in the same version, and of which no newer one waits.
    """
    learner, inbox = state.learner, state.inbox
    held = {*learner.ledger.of_stage(card.sleep.last_stage), *learner.settled} - inbox.pending.keys()
    superfluous = (key for key, fact in state.notes.told.items() if key in held and inbox.written.get(key) == fact)
    return sorted(superfluous, key=lambda key: inbox.current[key].popularity)


def note(state: EpisodeState, card: Card, facts: Sequence[Fact]) -> None:
    """Writes facts down, which do not wait any longer then; makes room where there is none.

    Args:
        state: State of the episode; notes and inbox are changed.
        card: Card with notes, for their capacity.
        facts: See :func:`to_note`.
    """
    assert card.notes is not None
    notes = state.notes
    new = sum(fact.key not in notes.told for fact in facts)
    missing = len(notes.told) + new - card.notes.capacity
    notes.archive(to_archive(state, card)[: max(0, missing)])
    notes.put(facts)
    state.inbox.clear(facts)


def _by_popularity(arrivals: Iterable[Arrival]) -> list[Arrival]:
    return sorted(arrivals, key=lambda arrival: -arrival.popularity)
