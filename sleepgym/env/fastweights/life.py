"""An episode without Gymnasium: windows pass by, are digested in passes, and questions are answered from S."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.env.fastweights.card import FastWeightsCard
from sleepgym.env.fastweights.stream import Stream
from sleepgym.fastweights.model import FastWeightModel
from sleepgym.fastweights.state import FastState


@dataclass(frozen=True)
class Digested:
    """What passes over a window leave.

    Attributes:
        passes: Number of passes since the window came.
        h: Residual stream after the last of them ``[1, tokens, width]``.
        state: S ``[1, ...]`` per layer.
        change: Norm of what the last pass changed of S.
    """

    passes: int
    h: Tensor
    state: FastState
    change: float


@dataclass(frozen=True)
class Tick:
    """A tick that has passed.

    Attributes:
        document: Number of the document.
        passes: Passes over its window so far.
        offline: Whether it was spent on a pass.
        traffic: Questions, relative to a busy tick.
        served: Share of them that were answered correctly.
    """

    document: int
    passes: int
    offline: bool
    traffic: float
    served: float


@dataclass(frozen=True)
class Moment:
    """All that changes in an episode.

    Attributes:
        digested: What the passes over the present window have left so far.
        right: Whether each question of the document would be answered correctly now ``[questions]``.
        loss: Cross-entropy of the public questions that can be asked, in nats; that of a guess if there are none.
        ticks: Ticks that have passed.
        actions: What was done in them.
        asked: Questions in them, relative to a busy tick.
        answered: Those of them that were answered correctly.
        slept: Ticks of them that were spent on passes.
    """

    digested: Digested
    right: NDArray[np.bool_]
    loss: float
    ticks: tuple[Tick, ...] = ()
    actions: tuple[int, ...] = ()
    asked: float = 0.0
    answered: float = 0.0
    slept: int = 0

    @property
    def score(self) -> float:
        """Share of all questions so far that were answered correctly; 0 before the first."""
        return self.answered / self.asked if self.asked else 0.0

    def after(self, tick: Tick) -> Moment:
        """The moment after one more tick, in which nothing but the clock and the sums has changed."""
        return replace(
            self,
            ticks=(*self.ticks, tick),
            asked=self.asked + tick.traffic,
            answered=self.answered + tick.traffic * tick.served,
            slept=self.slept + tick.offline,
        )


class Life:
    """An episode.

    Args:
        card: Settings.
        model: Model, which is never changed.
        stream: What happens.

    Attributes:
        now: All that changes; going back to an earlier one is going back in time.
    """

    def __init__(self, card: FastWeightsCard, model: FastWeightModel, stream: Stream) -> None:
        self.card, self.model, self.stream = card, model, stream
        self.now = Moment(self._unread(0, model.empty(1)), np.zeros(0, bool), math.nan)
        self.now = asked([self], [self.now])[0]

    @property
    def tick(self) -> int:
        """Clock."""
        return len(self.now.ticks)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.tick >= self.stream.horizon

    @property
    def slept(self) -> int:
        """Ticks spent on passes."""
        return self.now.slept

    @property
    def score(self) -> float:
        """Share of all questions so far that were answered correctly; 0 before the first."""
        return self.now.score

    @property
    def ticks_left(self) -> int:
        """Ticks until the present window is gone."""
        return self.stream.window_ticks - self.tick % self.stream.window_ticks

    def mask(self) -> NDArray[np.bool_]:
        """Which actions are allowed: waiting, and what the window's time and the most passes leave room for."""
        room = min(self.ticks_left, self.card.passes.most - self.now.digested.passes)
        return np.array([choice <= room for choice in self.card.passes.choices]) & (not self.over)

    def askable(self) -> NDArray[np.bool_]:
        """Which questions can be asked, those about windows that have come, ``[questions]``."""
        document, window = self.stream.place(self.tick)
        return (self.stream.documents[document].needs[0] <= window + 1).numpy()

    def branch(self) -> Life:
        """A second life on the same stream that goes on from here, for trying actions out."""
        other = object.__new__(Life)
        other.__dict__.update(vars(self))  # the present moment never changes: stepping makes a new one
        return other

    def passes_of(self, action: int) -> int:
        """Passes that an action makes: none if it is not allowed."""
        return self.card.passes.choices[action] if self.mask()[action] else 0

    def step(self, action: int, ready: Moment | None = None) -> tuple[float, bool]:
        """Waits for a tick, or makes passes for as many ticks.

        Args:
            action: Place in the card's choices.
            ready: The moment after some passes that have been made already, for when they are those of the action.

        Returns:
            Reward, and whether the action was not allowed, in which case it was a tick of waiting.
        """
        allowed, passes = bool(self.mask()[action]), self.passes_of(action)
        if passes:
            if ready is None or ready.digested.passes != self.now.digested.passes + passes:
                ready = digest([self], [passes])[0]
            self.now = ready
        reward = sum(self._pass_tick(offline=passes > 0) for _ in range(max(1, passes)))
        self.now = replace(self.now, actions=(*self.now.actions, action))
        return reward - (0.0 if allowed else self.card.reward.invalid), not allowed

    def _pass_tick(self, offline: bool) -> float:
        """Lets a tick pass, with the next window at its end if the present one's time is over; returns the reward."""
        askable = self.askable()
        served = 0.0 if offline or not askable.any() else float(self.now.right[askable].mean())
        traffic = float(self.stream.traffic[self.tick]) if askable.any() else 0.0
        tick = Tick(self.stream.place(self.tick)[0], self.now.digested.passes, offline, traffic, served)
        self.now = self.now.after(tick)
        if self.tick % self.stream.window_ticks == 0 and not self.over:
            _, window = self.stream.place(self.tick)
            state = self.now.digested.state if window else self.model.empty(1)
            self.now = asked([self], [replace(self.now, digested=self._unread(self.tick, state))])[0]
        return traffic * served

    def _unread(self, tick: int, state: FastState) -> Digested:
        """The window of a tick before its first pass."""
        document, window = self.stream.place(tick)
        tokens = self.stream.documents[document].windows[window].to(self.model.head.weight.device)
        with torch.no_grad():
            return Digested(0, self.model.begin_window(tokens), state, 0.0)


@torch.no_grad()
def asked(lives: Sequence[Life], moments: Sequence[Moment]) -> list[Moment]:
    """Answers all questions of the present documents of several episodes on one model, in one batch.

    Args:
        lives: Episodes, which are not changed.
        moments: A moment of each.

    Returns:
        The moments with what is answered correctly, each question in an answer window of its own.
    """
    model = lives[0].model
    device = model.head.weight.device
    places = [life.stream.place(len(now.ticks)) for life, now in zip(lives, moments, strict=True)]
    batches = [life.stream.documents[document] for life, (document, _) in zip(lives, places, strict=True)]
    queries = torch.cat([batch.queries.view(-1, 2) for batch in batches]).to(device)
    answers = torch.cat([batch.answers[0] for batch in batches]).to(device)
    counts = [batch.answers.shape[1] for batch in batches]
    # A sum over all rows would depend on how many there are: rows of one sequence are always asked together.
    rows = torch.arange(len(lives)).repeat_interleave(torch.tensor(counts)).to(device)
    logits = model.answer(queries, FastState.joined([now.digested.state for now in moments]).rows(rows))[:, 1]
    right = (logits.argmax(-1) == answers).cpu().numpy()
    losses = F.cross_entropy(logits, answers, reduction="none").cpu().numpy()
    found, end = [], 0
    for life, now, batch, (_, window), count in zip(lives, moments, batches, places, counts, strict=True):
        own = slice(end, end := end + count)
        public = (batch.needs[0] <= 1 + window).numpy()
        public[life.card.questions.public :] = False
        loss = float(losses[own][public].mean()) if public.any() else math.log(model.spec.vocabulary)
        found.append(replace(now, right=right[own], loss=loss))
    return found


@torch.no_grad()
def digest(lives: Sequence[Life], passes: Sequence[int]) -> list[Moment]:
    """Makes passes over the present windows of several episodes on one model, those of each round in one batch.

    Args:
        lives: Episodes, which are not changed.
        passes: Passes of each, at least one.

    Returns:
        The moment after them in each, at the same tick.
    """
    model = lives[0].model
    found = [life.now.digested for life in lives]
    for number in range(max(passes)):
        rows = [row for row, count in enumerate(passes) if count > number]
        before = FastState.joined([found[row].state for row in rows])
        h, after = model.step(torch.cat([found[row].h for row in rows]), before)
        change = after.distance(before).tolist()
        for place, row in enumerate(rows):
            state = after.rows(torch.tensor([place], device=h.device))
            found[row] = Digested(found[row].passes + 1, h[place : place + 1], state, change[place])
    moments = [replace(life.now, digested=digested) for life, digested in zip(lives, found, strict=True)]
    return asked(lives, moments)
