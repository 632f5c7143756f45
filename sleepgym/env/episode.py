"""One episode without Gymnasium: the clock that ties stream, inbox, learner, budget and score together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.actions import Action, Choice, Operators, Outcome, Task
from sleepgym.env.card import Card
from sleepgym.env.examiner import Answers, Examiner, examine_together
from sleepgym.env.history import History, Standing
from sleepgym.env.inbox import Inbox
from sleepgym.env.observation import View, load_of, sleep_pressure
from sleepgym.env.reward import Reward, Tick, question_weights, served
from sleepgym.env.stream import Stream
from sleepgym.facts.fact import Fact
from sleepgym.ledger import Key
from sleepgym.sleeper import SleepingLM
from sleepgym.state import State


@dataclass(frozen=True)
class Step:
    """What an action brought: its outcome, the ticks it took, and the reward's terms."""

    outcome: Outcome
    ticks: tuple[Tick, ...]
    reward_terms: dict[str, float]


@dataclass
class Counts:
    """The clock of an episode and what it adds up.

    Attributes:
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

    tick: int = 0
    edits_used: int = 0
    sleeps: int = 0
    naps: int = 0
    slept_at: int = 0
    audited_at: int = 0
    lately_served: float = 1.0
    asked: float = 0.0
    answered: float = 0.0


@dataclass(frozen=True)
class Paused:
    """An episode put aside between two steps: all of it that changes, and nothing of the model."""

    state: State
    inbox: Inbox
    history: History
    answers: Answers
    counts: Counts


@dataclass(frozen=True)
class Performed:
    """An action whose effect is there, and whose ticks have not passed yet.

    Attributes:
        choice: What was chosen.
        outcome: What it did.
        before: The episode before it; None if there is no need to go back.
    """

    choice: Choice
    outcome: Outcome
    before: Paused | None = None


class Episode:
    """Everything mutable about an episode.

    At every tick the facts of that tick arrive; the agent acts; the action's effect is there at once, and then
    questions are asked for as many ticks as the action takes, while further facts arrive.

    Args:
        card: Every number.
        stream: Arrivals and traffic.
        learner: A learner that was taught nothing.
        bare_perplexity: Perplexity of its model without a memory.
    """

    def __init__(self, card: Card, stream: Stream, learner: SleepingLM, bare_perplexity: float) -> None:
        self.card, self.stream, self.learner = card, stream, learner
        self.inbox = Inbox(card.budget.pending)
        self.examiner = Examiner(learner, bare_perplexity, card.episode.perplexity_rows)
        self.operators = Operators(learner, self.inbox, card)
        self.reward = Reward.of(card)
        self.history = History(stream.rhythm)
        self.counts = Counts()
        self.performed: Performed | None = None
        """The first half of a step, until its second half follows."""
        self.inbox.arrive(stream.arrivals[0])

    # ---------------------------------------------------------------- queries

    @property
    def tick(self) -> int:
        """The present tick."""
        return self.counts.tick

    @property
    def edits_used(self) -> int:
        """Edits spent."""
        return self.counts.edits_used

    @property
    def edits_left(self) -> int:
        """Edits that may still be spent."""
        return self.stream.rhythm.edit_budget - self.edits_used

    @property
    def truncated(self) -> bool:
        """Whether the clock has run out."""
        return self.tick >= self.stream.horizon

    @property
    def collapsed(self) -> bool:
        """Whether the model is damaged beyond the card's limit."""
        return self.examiner.perplexity_ratio() > self.card.episode.max_perplexity_ratio

    @property
    def score(self) -> float:
        """Share of all questions so far that were answered correctly; what a collapse leaves unasked is wrong."""
        lost = sum(self.stream.traffic[self.tick :]) if self.collapsed else 0.0
        asked = self.counts.asked + lost
        return self.counts.answered / asked if asked else 1.0

    def mask(self) -> NDArray[np.bool_]:
        """Which actions are allowed."""
        return self.operators.mask(self.edits_left)

    def correct(self) -> NDArray[np.bool_]:
        """For each fact that has arrived, whether it would be answered correctly now."""
        answerable = np.array([self.inbox.is_answerable(key) for key in self.inbox.current], dtype=bool)
        answerable[answerable] = self.examiner.correct(self._answerable())
        return answerable

    def asked(self) -> list[Fact]:
        """Facts whose answers are needed as long as memory stays as it is."""
        return [*self._answerable(), *self.stream.known]

    def _answerable(self) -> list[Fact]:
        return [arrival.fact for key, arrival in self.inbox.current.items() if self.inbox.is_answerable(key)]

    def recall(self) -> float:
        """True recall over all facts that have arrived; 1 before the first."""
        correct = self.correct()
        return float(correct.mean()) if len(correct) else 1.0

    def standings(self) -> str:
        """How the facts that have arrived stand, a letter of :class:`Standing` for each, in order of first arrival."""
        inbox = self.inbox

        def standing(key: Key, right: bool) -> Standing:
            if inbox.is_answerable(key):
                return Standing.RIGHT if right else Standing.WRONG
            if key in inbox.written:
                return Standing.OUTDATED
            return Standing.WAITING if key in inbox.pending else Standing.LOST

        return "".join(map(standing, inbox.current, self.correct().tolist()))

    def pressure(self) -> float:
        """Sleep pressure, 0 to 1."""
        awake = self.tick - self.counts.slept_at
        return sleep_pressure(self.card.pressure, load_of(self.learner.state), awake, self.examiner.perplexity_ratio())

    def prospect(self, until: int) -> float:
        """Reward from now until a tick if nothing were done and nothing arrived: what the model as it is would earn."""
        if self.collapsed:
            return 0.0
        ratio, correctness = self.examiner.perplexity_ratio(), self._served()
        traffic = self.stream.traffic[self.tick : until]
        return sum(self.reward([Tick(level, correctness, ratio) for level in traffic]).values())

    def view(self) -> View:
        """What the observation is made of."""
        return View(
            tick=self.tick,
            stream=self.stream,
            inbox=self.inbox,
            state=self.learner.state,
            edits_left=self.edits_left,
            degraded=len(self.operators.degraded()),
            perplexity_ratio=self.examiner.perplexity_ratio(),
            served=self.counts.lately_served,
            slept_at=self.counts.slept_at,
            audited_at=self.counts.audited_at,
        )

    # --------------------------------------------------------- pause, resume

    def pause(self) -> Paused:
        """The episode as it is now; what happens in it later does not show there.

        Cheap: terms, entries, facts and arrivals are immutable, so that only dictionaries and lists are copied.
        """
        state, answers = self.learner.state.copy(), self.examiner.answers()
        return Paused(state, self.inbox.copy(), self.history.copy(), answers, replace(self.counts))

    def resume(self, paused: Paused) -> None:
        """Goes on from where an episode with the same card and stream was put aside, any number of times."""
        self.learner.state = paused.state.copy()
        self.inbox, self.history = paused.inbox.copy(), paused.history.copy()
        self.operators = Operators(self.learner, self.inbox, self.card)
        self.examiner.resume(paused.answers)
        self.counts, self.performed = replace(paused.counts), None

    # ------------------------------------------------------------------- step

    def step(self, choice: Choice) -> Step:
        """Does what was chosen and lets its ticks pass; those beyond the horizon are not lived through.

        If several episodes have acted together, the choice has been performed already. Should another one arrive (a
        wrapper may have changed it on the way), what was performed is taken back, and the one that arrived is done.
        """
        if self.performed is not None and self.performed.choice != choice:
            self.take_back()
        if self.performed is None:
            outcome = self.operators.perform(self.task(choice))
            self.performed = Performed(choice, outcome)
            # All that the ticks will ask, at once: memory stays as it is until the next action.
            examine_together([self.examiner], [self.asked()])
        return self._elapse()

    def task(self, choice: Choice) -> Task | None:
        """What a choice comes to now; None if it is not allowed."""
        self.learner.state.tick = self.tick
        return self.operators.task(choice, self.edits_left)

    def take_back(self) -> None:
        """Undoes an action whose ticks have not passed yet, if there is one."""
        if self.performed is not None and self.performed.before is not None:
            self.resume(self.performed.before)
        self.performed = None

    def _elapse(self) -> Step:
        """Lets the ticks of the performed action pass."""
        assert self.performed is not None
        choice, outcome, self.performed = self.performed.choice, self.performed.outcome, None
        self.counts.edits_used += outcome.edits
        if outcome.invalid:
            choice = Choice(Action.WAIT, 0, self.card.ticks.wait)
        name = choice.action.name
        offline = name.lower() in self.card.ticks.offline
        ticks = []
        for passed in range(min(choice.ticks, self.stream.horizon - self.tick)):
            ticks.append(self._pass_tick(name, offline, outcome.invalid and passed == 0))
        if name in (Action.NAP.name, Action.SLEEP.name):
            self.counts.audited_at = self.tick
            self.counts.naps += name == Action.NAP.name
        if name == Action.SLEEP.name:
            self.counts.slept_at = self.tick
            self.counts.sleeps += 1
        return Step(outcome, tuple(ticks), self.reward(ticks))

    def _pass_tick(self, doing: str, offline: bool, invalid: bool) -> Tick:
        traffic = self.stream.traffic[self.tick]
        ratio = self.examiner.perplexity_ratio()
        correctness = 0.0 if offline else self._served()
        self.counts.asked += traffic
        self.counts.answered += traffic * correctness
        memory = self.card.episode.served_memory_ticks
        self.counts.lately_served += (correctness - self.counts.lately_served) / memory
        self.history.append(
            doing=doing,
            offline=offline,
            arrivals=len(self.stream.arrivals[self.tick]),
            standings=self.standings(),
            served=correctness,
            budget_left=self.edits_left / self.stream.rhythm.edit_budget,
            pressure=self.pressure(),
            perplexity_ratio=ratio,
        )
        self.counts.tick += 1
        if not self.truncated:
            self.inbox.arrive(self.stream.arrivals[self.tick])
        return Tick(traffic, correctness, ratio, invalid)

    def _served(self) -> float:
        spec, arrived = self.card.stream, self.inbox.current.values()
        weights = np.empty(0)
        if arrived:
            weights = question_weights(
                np.array([arrival.popularity for arrival in arrived]),
                np.array([float(self.tick - arrival.tick) for arrival in arrived]),
                spec.recency_boost,
                spec.recency_ticks,
            )
        return served(weights, self.correct(), self.examiner.correct(self.stream.known), spec.known_share)
