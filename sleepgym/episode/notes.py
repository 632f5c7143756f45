"""Notes of an episode: which facts are written down, in which version, and how questions are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.actions import NoteAction
from sleepgym.episode.card_sections import NotesCard
from sleepgym.episode.inbox import Inbox
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key

if TYPE_CHECKING:
    from sleepgym.episode.reading import Readings

_MAPPINGS = ("told", "archived", "read")
"""Fields of notes that are no scalars."""


@dataclass
class Notes:
    """Notes, and what was looked up in them.

    Attributes:
        told: Version that is noted of each noted fact, in the order of their first notes.
        archived: Latest version in the archive of each fact whose note went there.
        answering: How questions are answered.
        look_ups: Exponential mean of the share of questions that are looked up.
        looked_up: Number of questions that were looked up so far, in units of a tick at peak traffic.
        tokens_read: Number of tokens that notes added to their contexts, in the same units.
        read: Number of answers that were read correctly, by the tokens that their notes added, in the same units. What
            these answers would have been worth at other prices follows from it.
    """

    told: dict[Key, Fact] = field(default_factory=dict)
    archived: dict[Key, Fact] = field(default_factory=dict)
    answering: NoteAction = NoteAction.LOOK_UP_NEVER
    look_ups: float = 0.0
    looked_up: float = 0.0
    tokens_read: float = 0.0
    read: dict[int, float] = field(default_factory=dict)

    def archive(self, keys: Sequence[Key]) -> None:
        """Puts notes into the archive, where they are not looked up."""
        for key in keys:
            self.archived[key] = self.told.pop(key)

    def count(self, asked: NDArray[np.float64], right: NDArray[np.bool_], tokens: NDArray[np.float64]) -> None:
        """Counts questions that are looked up.

        Args:
            asked: Number of look-ups of each fact, ``[facts]``.
            right: Whether its note is read correctly, and tells what is current, ``[facts]``.
            tokens: Tokens that its note adds to a context, ``[facts]``.
        """
        self.looked_up += float(asked.sum())
        self.tokens_read += float(asked @ tokens)
        for added, amount in zip(tokens[right].astype(int).tolist(), asked[right].tolist(), strict=True):
            if amount:
                self.read[added] = self.read.get(added, 0.0) + amount

    def put(self, facts: Sequence[Fact]) -> None:
        """Writes facts down; a newer version supersedes the note of an older one, in its place."""
        self.told.update({fact.key: fact for fact in facts})

    @property
    def counters(self) -> dict[str, Any]:
        """Scalar fields by name."""
        return {name: value for name, value in vars(self).items() if name not in _MAPPINGS}

    def copy(self) -> Notes:
        """Returns an independent copy."""
        return replace(self, told=dict(self.told), archived=dict(self.archived), read=dict(self.read))


def look_up_price(card: NotesCard, noted: NDArray[np.bool_], tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the share of the worth of an answer that a look-up of each fact takes, 0 without a note, ``[...]``.

    Args:
        card: Prices.
        noted: Whether there is a note of each fact, bool ``[...]``.
        tokens: Tokens that its note adds to a context; 0 without a note, ``[...]``.
    """
    return np.minimum(1.0, noted * card.look_up_price + tokens * card.token_price)


@dataclass(frozen=True, eq=False)
class NotedFacts:
    """What notes tell of all facts that have arrived, in order of first arrival.

    Attributes:
        noted: Whether there is a note of each, in whatever version, bool ``[facts]``.
        right: Whether its note tells the current version, and the bare model reads it from there, bool ``[facts]``.
        taught: Whether the weights were taught what is noted, or what is current, bool ``[facts]``.
        price: Share of the worth of an answer that a look-up takes, ``[facts]``; 0 without a note.
        tokens: Tokens that its note adds to a context, ``[facts]``; 0 without a note.
        doubtful: Facts whose questions are looked up only if the weights are unsure.
    """

    noted: NDArray[np.bool_]
    right: NDArray[np.bool_]
    taught: NDArray[np.bool_]
    price: NDArray[np.float64]
    tokens: NDArray[np.float64]
    doubtful: tuple[Fact, ...]

    @classmethod
    def of(cls, inbox: Inbox, told: dict[Key, Fact], readings: Readings, card: NotesCard) -> NotedFacts:
        """Lays notes out.

        Args:
            inbox: Arrived and written facts.
            told: Version that is noted of each noted fact.
            readings: What the bare model reads in notes.
            card: Prices.
        """
        current = [arrival.fact for arrival in inbox.current.values()]
        notes = [told.get(fact.key) for fact in current]
        taught = [inbox.written.get(fact.key) in (fact, note) for fact, note in zip(current, notes, strict=True)]
        noted = np.array([note is not None for note in notes], np.bool_)
        tokens = np.array([0 if note is None else readings.tokens[note] for note in notes], np.float64)
        return cls(
            noted=noted,
            # An earlier version is no answer, as a guess at a fact that was not written is none.
            right=np.array(
                [note == fact and readings.right[fact] for fact, note in zip(current, notes, strict=True)], bool
            ),
            taught=np.array(taught, np.bool_),
            price=look_up_price(card, noted, tokens),
            tokens=tokens,
            doubtful=tuple(
                f for f, is_noted, is_taught in zip(current, noted, taught, strict=True) if is_noted and is_taught
            ),
        )
