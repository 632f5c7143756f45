"""Mutable state of an episode, which can be copied, restored, saved and compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sleepgym.episode.history import History
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.notes import Notes
from sleepgym.episode.reading import Readings
from sleepgym.facts.fact import Fact
from sleepgym.memory.state import State

_PARTS = ("learner", "inbox", "history", "answers", "notes")
"""Fields of a state that are no scalars."""


@dataclass
class Answers:
    """Measurements of one version of a memory.

    Attributes:
        version: Version of the memory; -1 before the first question.
        ratio: Perplexity relative to the bare model; None if not measured.
        correct: Whether each probed fact was answered correctly.
        sure: Whether the model was sure of its answer about each fact, on a card with notes.
        readings: What the bare model reads in notes; None if not measured. It follows from the stream.
        forward_passes: Number of passes so far, those for earlier versions included.
    """

    version: int = -1
    ratio: float | None = None
    correct: dict[Fact, bool] = field(default_factory=dict)
    forward_passes: int = 0
    sure: dict[Fact, bool] = field(default_factory=dict)
    readings: Readings | None = None

    def copy(self) -> Answers:
        """Returns an independent copy."""
        return replace(self, correct=dict(self.correct), sure=dict(self.sure))


@dataclass
class EpisodeState:
    """State of an episode; card, stream and model are constant and not part of it.

    Copies are cheap: terms, entries, facts and arrivals are immutable and shared.

    Attributes:
        learner: State of the learner.
        inbox: Arrived and pending facts.
        history: Record of the ticks that have passed.
        answers: Measurements of the current version of the memory.
        notes: Notes; without any on a card without them.
        tick: Current tick.
        edits_used: Edits spent.
        sleeps: Number of nights.
        naps: Number of naps.
        slept_at: Tick at which the last night ended; 0 before the first.
        audited_at: Tick at which the last nap or night ended; 0 before the first.
        lately_served: Exponential mean of the probability that a question is answered correctly.
        asked: Number of questions so far, in units of a tick at peak traffic.
        answered: Number of correctly answered questions so far, in the same units.
    """

    learner: State
    inbox: Inbox
    history: History
    answers: Answers = field(default_factory=Answers)
    notes: Notes = field(default_factory=Notes)
    tick: int = 0
    edits_used: int = 0
    sleeps: int = 0
    naps: int = 0
    slept_at: int = 0
    audited_at: int = 0
    lately_served: float = 1.0
    asked: float = 0.0
    answered: float = 0.0

    @property
    def edits_left(self) -> int:
        """Edits that may still be spent."""
        return self.history.rhythm.edit_budget - self.edits_used

    @property
    def counters(self) -> dict[str, float]:
        """Scalar fields by name."""
        return {name: value for name, value in vars(self).items() if name not in _PARTS}

    def copy(self) -> EpisodeState:
        """Returns an independent copy."""
        return replace(self, **{name: getattr(self, name).copy() for name in _PARTS})
