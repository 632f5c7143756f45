"""All of an episode that changes: it can be copied, put back, saved and compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sleepgym.episode.history import History
from sleepgym.episode.inbox import Inbox
from sleepgym.facts.fact import Fact
from sleepgym.memory.state import State


@dataclass
class Answers:
    """What was found out about one version of a memory.

    Attributes:
        version: The version; -1 before the first question.
        ratio: Perplexity relative to the bare model, if it was measured.
        correct: Whether facts were answered correctly.
        forward_passes: Passes that it took, those for earlier versions included.
    """

    version: int = -1
    ratio: float | None = None
    correct: dict[Fact, bool] = field(default_factory=dict)
    forward_passes: int = 0

    def copy(self) -> Answers:
        """Independent answers, equal in everything."""
        return replace(self, correct=dict(self.correct))


@dataclass
class EpisodeState:
    """The state of an episode; its card, its stream and its model do not change.

    Copies are cheap: terms, entries, facts and arrivals are immutable and shared.

    Attributes:
        learner: Memory, ledger and random generator.
        inbox: What has arrived and waits.
        history: What happened at each tick.
        answers: What was asked of the memory as it is.
        tick: The present tick.
        edits_used: Edits spent.
        sleeps: Nights.
        naps: Naps.
        slept_at: Tick at which the last night ended; 0 before the first.
        audited_at: Tick at which the last nap or night ended; 0 before the first.
        lately_served: Exponential mean of the served recall.
        asked: Questions so far, relative to a tick at the peak of traffic.
        answered: Those of them that were answered correctly.
    """

    learner: State
    inbox: Inbox
    history: History
    answers: Answers = field(default_factory=Answers)
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
        """The plain numbers by name."""
        parts = ("learner", "inbox", "history", "answers")
        return {name: value for name, value in vars(self).items() if name not in parts}

    def copy(self) -> EpisodeState:
        """An independent state, equal in everything."""
        parts = {name: getattr(self, name).copy() for name in ("learner", "inbox", "history", "answers")}
        return replace(self, **parts)
