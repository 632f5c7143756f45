"""State of many episodes as arrays: clock, inbox, ledger, and what the model would answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.arrays import Arrays
from sleepgym.sim.dice import Keys
from sleepgym.sim.setting import Setting

NOBODY = -1
"""No fact, no version, no entry, no tick."""

PARTS = ("clock", "facts", "ledger", "mind", "notes")
"""Parts of a state, in order."""


@dataclass
class Clock(Arrays):
    """Counters of episodes, ``[rows]`` each; see :class:`~sleepgym.episode.state.EpisodeState`.

    Attributes:
        tick: Current tick.
        steps: Actions so far.
        edits_used: Edits spent.
        sleeps: Number of nights.
        naps: Number of naps.
        nights: Nights that were not undone.
        slept_at: Tick at which the last night ended.
        audited_at: Tick at which the last nap or night ended.
        lately_served: Exponential mean of the probability that a question is answered correctly.
        asked: Questions so far, in units of a tick at peak traffic.
        answered: Correctly answered questions so far.
        lost: Arrivals that a full inbox dropped.
        rank: Rank of the adapter; 0 before the first night.
        dice: Key of the episode's random numbers.
    """

    tick: NDArray[np.int32]
    steps: NDArray[np.int32]
    edits_used: NDArray[np.int32]
    sleeps: NDArray[np.int32]
    naps: NDArray[np.int32]
    nights: NDArray[np.int32]
    slept_at: NDArray[np.int32]
    audited_at: NDArray[np.int32]
    lately_served: NDArray[np.float64]
    asked: NDArray[np.float64]
    answered: NDArray[np.float64]
    lost: NDArray[np.int32]
    rank: NDArray[np.int32]
    dice: Keys

    @classmethod
    def fresh(cls, dice: Keys) -> Clock:
        """Returns the counters of episodes that begin."""
        rows = len(dice)
        tick, steps, edits, sleeps, naps, nights, slept, audited, lost, rank = np.zeros((10, rows), np.int32)
        sums = np.ones(rows), np.zeros(rows), np.zeros(rows)
        return cls(tick, steps, edits, sleeps, naps, nights, slept, audited, *sums, lost, rank, dice.copy())


@dataclass
class Facts(Arrays):
    """Facts of the stream in order of first arrival, ``[rows, facts]``, and the inbox, ``[rows, pending]``.

    Attributes:
        current: Newest version that has arrived; -1 before the first.
        arrived_at: Tick at which it arrived.
        written: Version that was written last; -1 if none was.
        entry: Place of the fact in the ledger; -1 if it is not there.
        held_at: Number of the last night that trained a settled fact or held its answer; -1 if it is not settled.
        inbox: Facts that wait to be written, oldest first; -1 beyond the last.
    """

    current: NDArray[np.int32]
    arrived_at: NDArray[np.int32]
    written: NDArray[np.int32]
    entry: NDArray[np.int32]
    held_at: NDArray[np.int32]
    inbox: NDArray[np.int32]

    @classmethod
    def fresh(cls, setting: Setting, rows: int) -> Facts:
        """Returns those of episodes before the first arrival."""
        shape = (rows, setting.facts)
        return cls(
            current=np.full(shape, NOBODY, np.int32),
            arrived_at=np.zeros(shape, np.int32),
            written=np.full(shape, NOBODY, np.int32),
            entry=np.full(shape, NOBODY, np.int32),
            held_at=np.full(shape, NOBODY, np.int32),
            inbox=np.full((rows, setting.card.budget.pending), NOBODY, np.int32),
        )


@dataclass
class Ledger(Arrays):
    """Entries in the order in which their facts were first written, ``[rows, entries]``; zeros beyond the last.

    Attributes:
        fact: Fact of each entry; -1 beyond the last.
        stage: Consolidation stage.
        scale: Scale of its edit.
        margin: Margin (nats) at the last audit; 0 if there is none.
        audited_at: Tick of the last audit since it was written; -1 before the first.
        writes: Edits spent on it.
        written_at: Tick of its first write.
        trained_at: Number of the last night that trained it, from 1; 0 before the first.
        held: Nights in a row after which slow weights recalled it alone.
    """

    fact: NDArray[np.int32]
    stage: NDArray[np.int32]
    scale: NDArray[np.float64]
    margin: NDArray[np.float32]
    audited_at: NDArray[np.int32]
    writes: NDArray[np.int32]
    written_at: NDArray[np.int32]
    trained_at: NDArray[np.int32]
    held: NDArray[np.int32]

    @classmethod
    def fresh(cls, setting: Setting, rows: int) -> Ledger:
        """Returns empty ledgers."""
        shape = (rows, setting.entries)
        stage, writes, written_at, trained_at, held = np.zeros((5, *shape), np.int32)
        fact, audited_at = np.full((2, *shape), NOBODY, np.int32)
        scale, margin = np.zeros(shape), np.zeros(shape, np.float32)
        return cls(fact, stage, scale, margin, audited_at, writes, written_at, trained_at, held)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which entries there are, bool ``[rows, entries]``."""
        return self.fact >= 0

    @property
    def fill(self) -> NDArray[np.int64]:
        """Number of entries, ``[rows]``."""
        return np.count_nonzero(self.fact >= 0, axis=1)

    @property
    def is_degraded(self) -> NDArray[np.bool_]:
        """Which entries the last audit found not recalled, bool ``[rows, entries]``."""
        return (self.audited_at >= 0) & ~(self.margin > 0)


@dataclass
class Mind(Arrays):
    """What the model would answer now: the truth, which the ledger shows as of the last audit only.

    Attributes:
        raw: Margin (nats) of each fact's written version when its prompt is completed, ``[rows, facts]``.
        chat: The same when it is asked in chat, ``[rows, facts]``.
        ratio: Perplexity relative to the bare model, ``[rows]``.
        known: Share of the pretrained facts that are answered correctly, ``[rows]``.
        sure: Whether it is sure of its own answer about each fact that it was taught, whatever that answer is; on
            cards with notes only, bool ``[rows, facts]``, or ``[rows, 0]``.
    """

    raw: NDArray[np.float32]
    chat: NDArray[np.float32]
    ratio: NDArray[np.float64]
    known: NDArray[np.float64]
    sure: NDArray[np.bool_]

    @classmethod
    def fresh(cls, setting: Setting, rows: int) -> Mind:
        """Returns the bare model, which recalls all pretrained facts that are asked."""
        raw, chat = np.zeros((2, rows, setting.facts), np.float32)
        return cls(raw, chat, np.ones(rows), np.ones(rows), np.zeros((rows, setting.notable), bool))


@dataclass
class Notes(Arrays):
    """Notes, and what was looked up in them; see :class:`sleepgym.episode.notes.Notes`. Empty on cards without them.

    Attributes:
        told: Version that is noted of each fact; -1 without a note, ``[rows, facts]``.
        place: Notes are in the order of these numbers; of no meaning without a note, ``[rows, facts]``.
        archived: Whether a note of it is in the archive, bool ``[rows, facts]``.
        answering: How questions are answered: place in :data:`~sleepgym.episode.actions.LOOK_UPS`, ``[rows]``.
        look_ups: Exponential mean of the share of questions that are looked up, ``[rows]``.
        looked_up: Questions that were looked up so far, in units of a tick at peak traffic, ``[rows]``.
        tokens_read: Tokens that notes added to their contexts, in the same units, ``[rows]``.
    """

    told: NDArray[np.int32]
    place: NDArray[np.int32]
    archived: NDArray[np.bool_]
    answering: NDArray[np.int32]
    look_ups: NDArray[np.float64]
    looked_up: NDArray[np.float64]
    tokens_read: NDArray[np.float64]

    @classmethod
    def fresh(cls, setting: Setting, rows: int) -> Notes:
        """Returns empty notes, which are not looked up."""
        shape = (rows, setting.notable)
        told, place = np.full(shape, NOBODY, np.int32), np.zeros(shape, np.int32)
        return cls(told, place, np.zeros(shape, bool), np.zeros(rows, np.int32), *np.zeros((3, rows)))

    @property
    def noted(self) -> NDArray[np.bool_]:
        """Whether there is a note of each fact, in whatever version, bool ``[rows, facts]``."""
        return self.told >= 0


@dataclass
class State:
    """State of many episodes.

    Attributes:
        clock: Counters.
        facts: Facts and inbox.
        ledger: Written facts.
        mind: What the model would answer.
        notes: Notes; empty on a card without them.
    """

    clock: Clock
    facts: Facts
    ledger: Ledger
    mind: Mind
    notes: Notes

    @classmethod
    def fresh(cls, setting: Setting, dice: Keys) -> State:
        """Returns episodes before the first arrival.

        Args:
            setting: Numbers of the card.
            dice: Key of each episode's random numbers.
        """
        rows = len(dice)
        parts = Facts.fresh(setting, rows), Ledger.fresh(setting, rows), Mind.fresh(setting, rows)
        return cls(Clock.fresh(dice), *parts, Notes.fresh(setting, rows))

    def __len__(self) -> int:
        return len(self.clock)

    def rows(self, rows: NDArray[np.int64] | slice) -> State:
        """Returns some episodes: copies for an index array, views for a slice."""
        return State(*(getattr(self, name).rows(rows) for name in PARTS))

    def put(self, rows: NDArray[np.int64], other: State, parts: Sequence[str] = PARTS) -> None:
        """Overwrites episodes.

        Args:
            rows: Episodes to overwrite.
            other: Their new states, in this order.
            parts: What has changed in them.
        """
        for name in parts:
            getattr(self, name).put(rows, getattr(other, name))

    def copy(self) -> State:
        """Returns an independent copy."""
        return State(*(getattr(self, name).copy() for name in PARTS))
