"""One episode without Gymnasium: the clock that ties stream, inbox, learner, budget and score together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.actions import Action, Operators, Outcome
from sleepgym.env.card import Card
from sleepgym.env.examiner import Examiner, examine_together
from sleepgym.env.history import History
from sleepgym.env.inbox import Inbox
from sleepgym.env.observation import View
from sleepgym.env.reward import Reward, Tick, question_weights, served
from sleepgym.env.stream import Stream
from sleepgym.facts.fact import Fact
from sleepgym.sleeper import SleepingLM


@dataclass(frozen=True)
class Step:
    """What an action brought: its outcome, the ticks it took, and the reward's terms."""

    outcome: Outcome
    ticks: tuple[Tick, ...]
    reward_terms: dict[str, float]


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
        self.reward = Reward.of(card.reward)
        self.history = History(stream.rhythm)
        self.tick = 0
        self.edits_used = 0
        self.sleeps = 0
        self.naps = 0
        self.slept_at = 0
        self.audited_at = 0
        self.lately_served = 1.0
        self.performed: Outcome | None = None
        """What the next step's action has done already, where several episodes act together."""
        self._asked = 0.0
        self._answered = 0.0
        self.inbox.arrive(stream.arrivals[0])

    # ---------------------------------------------------------------- queries

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
        asked = self._asked + lost
        return self._answered / asked if asked else 1.0

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
            served=self.lately_served,
            slept_at=self.slept_at,
            audited_at=self.audited_at,
        )

    # ------------------------------------------------------------------- step

    def step(self, action: Action) -> Step:
        """Performs an action and lets its ticks pass; those beyond the horizon are not lived through."""
        outcome, self.performed = self.performed, None
        if outcome is None:
            self.learner.state.tick = self.tick
            outcome = self.operators.perform(action, self.edits_left)
        self.edits_used += outcome.edits
        name = Action.WAIT.name if outcome.invalid else action.name
        duration = int(getattr(self.card.ticks, name.lower()))
        offline = name.lower() in self.card.ticks.offline
        # All that the ticks will ask, at once: memory stays as it is until the next action.
        examine_together([self.examiner], [self.asked()])
        ticks = []
        for passed in range(min(duration, self.stream.horizon - self.tick)):
            ticks.append(self._pass_tick(name, offline, outcome.invalid and passed == 0))
        if name in (Action.NAP.name, Action.SLEEP.name):
            self.audited_at = self.tick
            self.naps += name == Action.NAP.name
        if name == Action.SLEEP.name:
            self.slept_at = self.tick
            self.sleeps += 1
        return Step(outcome, tuple(ticks), self.reward(ticks))

    def _pass_tick(self, doing: str, offline: bool, invalid: bool) -> Tick:
        traffic = self.stream.traffic[self.tick]
        ratio = self.examiner.perplexity_ratio()
        correctness = 0.0 if offline else self._served()
        self._asked += traffic
        self._answered += traffic * correctness
        memory = self.card.episode.served_memory_ticks
        self.lately_served += (correctness - self.lately_served) / memory
        self.history.append(
            doing=doing,
            arrivals=len(self.stream.arrivals[self.tick]),
            recall=self.recall(),
            served=correctness,
            budget_left=self.edits_left / self.stream.rhythm.edit_budget,
            perplexity_ratio=ratio,
        )
        self.tick += 1
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
