"""Episode: advances stream, inbox, learner, budget and score by one action at a time, without Gymnasium."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode import operators
from sleepgym.episode.actions import Action, Choice, NoteAction, Outcome, Task
from sleepgym.episode.card import Card
from sleepgym.episode.examiner import Examiner, examine_together
from sleepgym.episode.held_out import HeldOut
from sleepgym.episode.history import History
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.notes import NotedFacts, Notes
from sleepgym.episode.pressure import sleep_pressure
from sleepgym.episode.reading import Readings
from sleepgym.episode.reward import Reward, Tick, question_weights, served
from sleepgym.episode.state import EpisodeState
from sleepgym.episode.stream import Stream
from sleepgym.episode.tables import ArrivedFacts, Latest, WrittenFacts
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.memory.overlay import Memory
from sleepgym.sleeper import SleepingLM, prepare_together

_TOGETHER = 16
"""Facts whose targets are optimised in one pass."""


@dataclass(frozen=True)
class Performed:
    """First half of a step: an action that has taken effect, but whose ticks have not passed yet.

    Attributes:
        choice: The choice.
        outcome: Outcome of the action.
        before: State before the action, for :meth:`Episode.take_back`; None if it cannot be undone.
    """

    choice: Choice
    outcome: Outcome
    before: EpisodeState | None = None


@dataclass(frozen=True)
class Step:
    """Result of a step.

    Attributes:
        outcome: Outcome of the action.
        ticks: Ticks that passed.
        reward_terms: Terms of the reward by name, summed over the ticks.
    """

    outcome: Outcome
    ticks: tuple[Tick, ...]
    reward_terms: dict[str, float]


class Episode:
    """Episode of a learner on a stream.

    The facts of a tick arrive, then the agent acts. The action takes effect at once; then questions are asked for as
    many ticks as the action takes, while further facts arrive.

    Args:
        card: Settings of the environment.
        stream: Arrivals and traffic.
        learner: Learner without facts.
        held_out: Text that perplexity is measured on.

    Attributes:
        examiner: Probes of the learner's memory.
        reward: Reward of the card.
    """

    def __init__(self, card: Card, stream: Stream, learner: SleepingLM, held_out: HeldOut) -> None:
        self.card, self.stream, self.learner = card, stream, learner
        self.examiner = Examiner(learner, held_out)
        self.reward = Reward.of(card)
        self.performed: Performed | None = None
        """First half of a step whose second half is due; None otherwise."""
        inbox = Inbox(card.budget.pending)
        inbox.arrive(stream.arrivals[0])
        self._state = EpisodeState(learner.state, inbox, History(stream.rhythm), self.examiner.answers)
        # Derived: each is computed anew once parts of the state are others, so that nothing has to clear them.
        self._arrived = Latest[ArrivedFacts]()
        self._noted = Latest[NotedFacts]()
        self._written = Latest[WrittenFacts]()
        self._recalled = Latest[NDArray[np.bool_]]()
        self._known_recalled = Latest[NDArray[np.bool_]]()

    # ---------------------------------------------------------------- queries

    @property
    def state(self) -> EpisodeState:
        """Mutable state of the episode."""
        # Operators replace the learner's state object.
        self._state.learner = self.learner.state
        return self._state

    @property
    def inbox(self) -> Inbox:
        """Arrived and pending facts."""
        return self._state.inbox

    @property
    def history(self) -> History:
        """Record of the ticks that have passed."""
        return self._state.history

    @property
    def arrived(self) -> ArrivedFacts:
        """Facts that have arrived, as arrays."""
        inbox, told = self.inbox, self.notes.told
        parts = tuple(inbox.current.values()), tuple(inbox.pending), tuple(inbox.written.values()), tuple(told)
        return self._arrived.of(partial(ArrivedFacts.of, inbox, told), *parts)

    @property
    def notes(self) -> Notes:
        """Notes, and how questions are answered."""
        return self._state.notes

    @property
    def noted(self) -> NotedFacts:
        """What notes tell of the facts that have arrived, as arrays; on cards with notes only."""
        assert self.card.notes is not None
        inbox, told = self.inbox, self.notes.told
        parts = tuple(inbox.current.values()), tuple(inbox.written.values()), tuple(told.values())
        return self._noted.of(partial(NotedFacts.of, inbox, told, self.readings, self.card.notes), *parts)

    @property
    def readings(self) -> Readings:
        """What the bare model reads in the notes of the stream's facts."""
        answers = self.examiner.answers
        if answers.readings is None:
            answers.readings = Readings.of(self.learner.lm, self.stream)
        return answers.readings

    @property
    def written(self) -> WrittenFacts:
        """Facts of the ledger and the edits that hold them, as arrays."""
        state = self.learner.state
        parts = tuple(state.ledger.values()), state.memory, state.memory.version
        return self._written.of(partial(WrittenFacts.of, state), *parts)

    @property
    def tick(self) -> int:
        """Current tick."""
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
        """Whether the horizon is reached."""
        return self.tick >= self.stream.horizon

    @property
    def collapsed(self) -> bool:
        """Whether perplexity relative to the bare model exceeds the card's limit."""
        return self.examiner.perplexity_ratio() > self.card.episode.max_perplexity_ratio

    @property
    def score(self) -> float:
        """Share of the questions so far answered correctly; after a collapse, all later questions count as wrong."""
        lost = sum(self.stream.traffic[self.tick :]) if self.collapsed else 0.0
        asked = self._state.asked + lost
        return self._state.answered / asked if asked else 1.0

    def mask(self) -> NDArray[np.bool_]:
        """Returns the action mask, bool ``[actions]``."""
        return operators.mask(self.state, self.card)

    def degraded(self) -> list[Key]:
        """Returns the keys of the facts that are known to be degraded and still true, lowest margin first."""
        return operators.degraded(self.state)

    def correct(self) -> NDArray[np.bool_]:
        """Returns for each arrived fact whether it would be answered correctly now, bool ``[facts]``."""
        arrived = self.arrived
        correct = arrived.is_answerable.copy()
        ask = partial(self.examiner.correct, arrived.answerable)
        correct[correct] = self._recalled.of(ask, arrived.answerable, *self._measured)
        return correct if self.card.notes is None else np.where(self.looked_up(), self.noted.right, correct)

    def looked_up(self, offline: bool = False) -> NDArray[np.bool_]:
        """Returns for each arrived fact whether its question would be looked up, and a note found, bool ``[facts]``.

        Args:
            offline: Whether the weights answer nothing.
        """
        spec, answering = self.card.notes, self.notes.answering
        if spec is None or answering == NoteAction.LOOK_UP_NEVER or (offline and not spec.while_offline):
            return np.zeros(len(self.inbox.current), bool)
        noted = self.noted
        if answering == NoteAction.LOOK_UP_ALWAYS or offline:
            return noted.noted
        looked_up = noted.noted & ~noted.taught
        looked_up[noted.noted & noted.taught] = ~self.examiner.sure(noted.doubtful, spec.sure_nats)
        return looked_up

    def _known_correct(self) -> NDArray[np.bool_]:
        """Returns for each pretrained fact whether it would be answered correctly now, bool ``[known facts]``."""
        return self._known_recalled.of(partial(self.examiner.correct, self.stream.known), *self._measured)

    @property
    def _measured(self) -> tuple[Memory, int, int]:
        """What answers depend on beside the facts: the memory, its version, and the number of measurements so far."""
        memory = self.learner.state.memory
        return memory, memory.version, self.examiner.answers.forward_passes

    def asked(self) -> Sequence[Fact]:
        """Returns the facts to ask before ticks pass: answerable and pretrained ones; none while answers are kept."""
        answerable = self.arrived.answerable
        if self._recalled.holds(answerable, *self._measured) and self._known_recalled.holds(*self._measured):
            return ()
        return (*answerable, *self.stream.known)

    def recall(self) -> float:
        """Returns the true recall over all arrived facts; 1 before the first."""
        correct = self.correct()
        return np.count_nonzero(correct) / len(correct) if len(correct) else 1.0

    def standings(self) -> str:
        """Returns the status of the arrived facts, in order of first arrival; see :meth:`ArrivedFacts.standings`."""
        return self.arrived.standings(self.correct())

    def pressure(self) -> float:
        """Returns the sleep pressure, 0 to 1; see :func:`~sleepgym.episode.pressure.sleep_pressure`."""
        awake = self.tick - self._state.slept_at
        return sleep_pressure(self.card.pressure, self.written.load, awake, self.examiner.perplexity_ratio())

    def prospect(self, until: int) -> float:
        """Estimates the reward from now until a tick, for an unchanged model and no further arrivals.

        Args:
            until: Tick at which the sum ends, exclusive.
        """
        if self.collapsed:
            return 0.0
        ratio, correctness = self.examiner.perplexity_ratio(), self._served()
        traffic = self.stream.traffic[self.tick : until]
        return sum(self.reward([Tick(level, correctness, ratio) for level in traffic]).values())

    # --------------------------------------------------------- pause, resume

    def pause(self) -> EpisodeState:
        """Returns a copy of the state, independent of later steps."""
        return self.state.copy()

    def resume(self, state: EpisodeState) -> None:
        """Restores a state of an episode with the same card and stream; the state can be restored again."""
        self._state = state.copy()
        self.learner.state, self.examiner.answers = self._state.learner, self._state.answers
        self.performed = None

    # ------------------------------------------------------------------- step

    def step(self, choice: Choice) -> Step:
        """Performs a choice and lets its ticks pass, up to the horizon.

        If :func:`~sleepgym.episode.together.act_together` has performed the choice already, only its ticks pass. If it
        performed a different one, since a wrapper changed the action in between, that one is undone first.
        """
        if self.performed is not None and self.performed.choice != choice:
            self.take_back()
        if self.performed is None:
            task = self.task(choice)
            if task is not None and task.facts:
                # A failure of what is to be written recurs when it is, and is then reported.
                with suppress(*operators.FAILURES):
                    prepare_together([self.learner], [task.facts], [self.ahead(task)])
            outcome = operators.perform(self.learner, self.state, self.card, task)
            self.performed = Performed(choice, outcome)
            # All questions of these ticks in one pass, since memory does not change until the next action.
            examine_together([self.examiner], [self.asked()])
        return self._elapse()

    def task(self, choice: Choice) -> Task | None:
        """Returns the task of a choice in the present state; None if it is not allowed."""
        self.learner.state.tick = self.tick
        return operators.task_of(self.state, self.card, choice)

    def ahead(self, task: Task) -> list[Fact]:
        """Returns facts of the stream whose targets are worth optimising together with those of a task.

        They are the arrivals around those that it writes, in batches that depend on the stream alone: a batch costs a
        fraction of its facts one by one, and what an agent has done before changes no target.
        """
        places = {self._order[fact] // _TOGETHER for fact in task.facts if fact in self._order}
        return [fact for fact, place in self._order.items() if place // _TOGETHER in places]

    @cached_property
    def _order(self) -> dict[Fact, int]:
        """Place of each fact in the order of arrival."""
        arrivals = (arrival.fact for arrived in self.stream.arrivals for arrival in arrived)
        return {fact: place for place, fact in enumerate(dict.fromkeys(arrivals))}

    def take_back(self) -> None:
        """Undoes the first half of a step, if there is one with a state to go back to."""
        if self.performed is not None and self.performed.before is not None:
            self.resume(self.performed.before)
        self.performed = None

    def _elapse(self) -> Step:
        """Runs the second half of a step: lets the ticks of the performed action pass."""
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
        correctness = self._served(offline)
        if self.card.notes is not None:
            self._count_look_ups(traffic, offline)
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

    def _served(self, offline: bool = False) -> float:
        """Returns the worth of the answers to the questions of a tick, relative to right ones of the weights."""
        spec, weights = self.card.stream, self._weights()
        if self.card.notes is None:
            return 0.0 if offline else served(weights, self.correct(), self._known_correct(), spec.known_share)
        looked_up, known = self.looked_up(offline), self._known_correct()
        worth = weights * np.where(looked_up, 1 - self.noted.price, 1)
        correct = self.noted.right & looked_up if offline else self.correct()
        return served(worth, correct, known & (not offline), spec.known_share)

    def _count_look_ups(self, traffic: float, offline: bool) -> None:
        """Counts the questions of a tick that are looked up, and the tokens that their notes add."""
        notes, spec = self.notes, self.card.stream
        share = self._weights() * self.looked_up(offline) * (1 - spec.known_share if self.stream.known else 1)
        notes.count(traffic * share, self.noted.right, self.noted.tokens)
        notes.look_ups += (float(share.sum()) - notes.look_ups) / self.card.episode.served_memory_ticks

    def _weights(self) -> NDArray[np.float64]:
        """Returns the share of each arrived fact among the questions about arrived facts, ``[facts]``."""
        spec, arrived = self.card.stream, self.arrived
        if not len(arrived.popularity):
            return np.empty(0)
        age = self.tick - arrived.arrived_at
        return question_weights(arrived.popularity, age, spec.recency_boost, spec.recency_ticks)
