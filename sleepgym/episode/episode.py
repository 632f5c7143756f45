"""One episode without Gymnasium: the clock that ties stream, inbox, learner, budget and score together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode import operators
from sleepgym.episode.actions import Action, Choice, Outcome, Task
from sleepgym.episode.card import Card
from sleepgym.episode.examiner import Examiner, examine_together
from sleepgym.episode.history import History, Standing
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.pressure import load_of, sleep_pressure
from sleepgym.episode.reward import Reward, Tick, question_weights, served
from sleepgym.episode.state import EpisodeState
from sleepgym.episode.stream import Stream
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.sleeper import SleepingLM


@dataclass(frozen=True)
class Performed:
    """The first half of a step: an action whose effect is there, and whose ticks have not passed yet.

    Attributes:
        choice: What was chosen.
        outcome: What it did.
        before: The episode before it; None if there is no need to go back.
    """

    choice: Choice
    outcome: Outcome
    before: EpisodeState | None = None


@dataclass(frozen=True)
class Step:
    """What an action brought: its outcome, the ticks it took, and the reward's terms."""

    outcome: Outcome
    ticks: tuple[Tick, ...]
    reward_terms: dict[str, float]


class Episode:
    """A learner in the stream of an episode.

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
        self.examiner = Examiner(learner, bare_perplexity, card.episode.perplexity_rows)
        self.reward = Reward.of(card)
        self.performed: Performed | None = None
        """The first half of a step, until its second half follows."""
        inbox = Inbox(card.budget.pending)
        inbox.arrive(stream.arrivals[0])
        self._state = EpisodeState(learner.state, inbox, History(stream.rhythm), self.examiner.answers)

    # ---------------------------------------------------------------- queries

    @property
    def state(self) -> EpisodeState:
        """All of the episode that changes."""
        # Operators of a learner put a new state in the place of the old one.
        self._state.learner = self.learner.state
        return self._state

    @property
    def inbox(self) -> Inbox:
        """What has arrived and waits."""
        return self._state.inbox

    @property
    def history(self) -> History:
        """What happened at each tick."""
        return self._state.history

    @property
    def tick(self) -> int:
        """The present tick."""
        return self._state.tick

    @property
    def edits_used(self) -> int:
        """Edits spent."""
        return self._state.edits_used

    @property
    def edits_left(self) -> int:
        """Edits that may still be spent."""
        return self._state.edits_left

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
        asked = self._state.asked + lost
        return self._state.answered / asked if asked else 1.0

    def mask(self) -> NDArray[np.bool_]:
        """Which actions are allowed."""
        return operators.mask(self.state, self.card)

    def degraded(self) -> list[Key]:
        """Facts known to be degraded and still true, the worst first."""
        return operators.degraded(self.state)

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
        awake = self.tick - self._state.slept_at
        return sleep_pressure(self.card.pressure, load_of(self.learner.state), awake, self.examiner.perplexity_ratio())

    def prospect(self, until: int) -> float:
        """Reward from now until a tick if nothing were done and nothing arrived: what the model as it is would earn."""
        if self.collapsed:
            return 0.0
        ratio, correctness = self.examiner.perplexity_ratio(), self._served()
        traffic = self.stream.traffic[self.tick : until]
        return sum(self.reward([Tick(level, correctness, ratio) for level in traffic]).values())

    # --------------------------------------------------------- pause, resume

    def pause(self) -> EpisodeState:
        """The episode as it is now; what happens in it later does not show there."""
        return self.state.copy()

    def resume(self, state: EpisodeState) -> None:
        """Goes on from where an episode with the same card and stream was paused, any number of times."""
        self._state = state.copy()
        self.learner.state, self.examiner.answers = self._state.learner, self._state.answers
        self.performed = None

    # ------------------------------------------------------------------- step

    def step(self, choice: Choice) -> Step:
        """Does what was chosen and lets its ticks pass; those beyond the horizon are not lived through.

        If several episodes have acted together, the choice has been performed already. Should another one arrive (a
        wrapper may have changed it on the way), what was performed is taken back, and the one that arrived is done.
        """
        if self.performed is not None and self.performed.choice != choice:
            self.take_back()
        if self.performed is None:
            outcome = operators.perform(self.learner, self.state, self.card, self.task(choice))
            self.performed = Performed(choice, outcome)
            # All that the ticks will ask, at once: memory stays as it is until the next action.
            examine_together([self.examiner], [self.asked()])
        return self._elapse()

    def task(self, choice: Choice) -> Task | None:
        """What a choice comes to now; None if it is not allowed."""
        self.learner.state.tick = self.tick
        return operators.task_of(self.state, self.card, choice)

    def take_back(self) -> None:
        """Undoes the first half of a step, if there is one that can be undone."""
        if self.performed is not None and self.performed.before is not None:
            self.resume(self.performed.before)
        self.performed = None

    def _elapse(self) -> Step:
        """The second half of a step: lets the ticks of the performed action pass."""
        assert self.performed is not None
        choice, outcome, self.performed = self.performed.choice, self.performed.outcome, None
        state = self.state
        state.edits_used += outcome.edits
        if outcome.invalid:
            choice = Choice(Action.WAIT, 0, self.card.ticks.wait)
        name = choice.action.name
        offline = name.lower() in self.card.ticks.offline
        ticks = []
        for passed in range(min(choice.ticks, self.stream.horizon - self.tick)):
            ticks.append(self._pass_tick(name, offline, outcome.invalid and passed == 0))
        if choice.action in (Action.NAP, Action.SLEEP):
            state.audited_at = self.tick
            state.naps += choice.action == Action.NAP
        if choice.action == Action.SLEEP:
            state.slept_at = self.tick
            state.sleeps += 1
        return Step(outcome, tuple(ticks), self.reward(ticks))

    def _pass_tick(self, doing: str, offline: bool, invalid: bool) -> Tick:
        state, traffic = self._state, self.stream.traffic[self.tick]
        ratio = self.examiner.perplexity_ratio()
        correctness = 0.0 if offline else self._served()
        state.asked += traffic
        state.answered += traffic * correctness
        state.lately_served += (correctness - state.lately_served) / self.card.episode.served_memory_ticks
        state.history.append(
            doing=doing,
            offline=offline,
            arrivals=len(self.stream.arrivals[self.tick]),
            standings=self.standings(),
            served=correctness,
            budget_left=self.edits_left / self.stream.rhythm.edit_budget,
            pressure=self.pressure(),
            perplexity_ratio=ratio,
        )
        state.tick += 1
        if not self.truncated:
            state.inbox.arrive(self.stream.arrivals[self.tick])
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
