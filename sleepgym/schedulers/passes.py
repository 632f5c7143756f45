"""Schedulers of FastWeights environments: how many passes over a window, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.fastweights.card import PassesCard
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.features import observed, seen

WAIT = 0
"""The action of no passes."""


class PassScheduler(ABC):
    """A hand-written policy for FastWeights environments, with the ``predict`` method of Stable-Baselines3 models."""

    @abstractmethod
    def act(self, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
        """Chooses an allowed action.

        Args:
            observation: Observation of one episode; :func:`~sleepgym.env.fastweights.features.seen` reads it by name.
            mask: Which actions are allowed, ``[actions]``.
        """

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Chooses an action for one observation or for each of a batch; state, start and determinism are ignored.

        Args:
            observation: ``[features]`` or ``[rows, features]``.
            state: Returned as it is.
            episode_start: Ignored.
            deterministic: Ignored.
            action_masks: ``[actions]`` or ``[rows, actions]``.

        Raises:
            ValueError: There is no mask.
        """
        if action_masks is None:
            raise ValueError("expected action_masks, found None; pass info['action_mask'] or env.action_masks()")
        rows, masks = np.atleast_2d(observation), np.atleast_2d(np.asarray(action_masks, bool))
        chosen = np.array([self.act(row, mask) for row, mask in zip(rows, masks, strict=True)], np.int64)
        return (chosen if observation.ndim > 1 else chosen[0]), state


@dataclass(frozen=True)
class FixedPasses(PassScheduler):
    """Makes so many passes as soon as a window comes.

    Source: Lee et al. 2026, arXiv 2605.26099, where N is a constant of the model.

    Attributes:
        passes: N.
        card: What there is to choose from.
    """

    passes: int
    card: PassesCard

    def act(self, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
        """See :meth:`PassScheduler.act`."""
        return largest(self.passes - made(observation, self.card), mask, self.card)


@dataclass(frozen=True)
class UntilSettled(PassScheduler):
    """Makes one pass after the other until S stops changing.

    Source: of this project; as fixed points are found in deep equilibrium models (Bai et al. 2019).

    Attributes:
        change: Norm of the change of S at which it stops, as x / (1 + x).
        card: What there is to choose from.
    """

    change: float
    card: PassesCard

    def act(self, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
        """See :meth:`PassScheduler.act`."""
        settled = made(observation, self.card) > 0 and seen(observation, "change") < self.change
        return WAIT if settled else largest(1, mask, self.card)


@dataclass(frozen=True)
class WhileWrong(PassScheduler):
    """Makes one pass at once, and further ones as long as public questions are answered badly, but not hopelessly.

    With ``patience`` below 1 it is aware of traffic: further passes wait for a quiet tick, unless the window has no
    more time left than that.

    Source: of this project.

    Attributes:
        loss: Loss at which it stops, relative to that of a guess.
        card: What there is to choose from.
        most: Passes over a window, at most.
        unasked: Passes over a window that comes before anything public can be asked.
        hopeless: Loss from which on no further pass is tried, relative to that of a guess.
        patience: Time left up to which it waits for a quiet tick, relative to the window's whole time; 1 to never wait.
        quiet: Traffic of a quiet tick at most.
    """

    loss: float
    card: PassesCard
    most: int = 4
    unasked: int = 1
    hopeless: float = 1.0
    patience: float = 1.0
    quiet: float = 0.5

    def act(self, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
        """See :meth:`PassScheduler.act`."""
        passes, loss = made(observation, self.card), seen(observation, "loss")
        if loss >= 1 and seen(observation, "window") < 1:
            return largest(self.unasked - passes, mask, self.card)
        if passes and (passes >= self.most or not self.loss <= loss < self.hopeless):
            return WAIT
        wait = seen(observation, "traffic") > self.quiet and seen(observation, "left") > self.patience
        return WAIT if passes and wait else largest(1, mask, self.card)


@dataclass(frozen=True)
class Rollouts(PassScheduler):
    """A planner that tries out every action in its environment, and goes on by the best of several rules.

    It knows what is to come in the present document: what is asked, how deep, and when. So it bounds what rules can
    reach, and is no player. Its value of an action is the return up to the end of the document.

    Source: rollout algorithms with several base policies (Bertsekas 2020, "Rollout, Policy Iteration, and Distributed
    Reinforcement Learning", section 2.3).

    Attributes:
        env: Environment that it plays in.
        rules: Rules to go on by.
    """

    env: FastWeightsEnv
    rules: Sequence[PassScheduler]

    def act(self, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
        """See :meth:`PassScheduler.act`."""
        values = [
            max(self._value(action, rule) for rule in self.rules) if allowed else -np.inf
            for action, allowed in enumerate(mask)
        ]
        return int(np.argmax(values))

    def _value(self, action: int, rule: PassScheduler) -> float:
        life = self.env.life.branch()
        document = life.stream.place(life.tick)[0]
        value, _ = life.step(action)
        while not life.over and life.stream.place(life.tick)[0] == document:
            value += life.step(rule.act(observed(life), life.mask()))[0]
        return value


def made(observation: NDArray[np.float32], card: PassesCard) -> int:
    """Passes over the window so far."""
    return round(seen(observation, "passes") * card.most)


def largest(passes: int, mask: NDArray[np.bool_], card: PassesCard) -> int:
    """The allowed action with most passes, but no more than some; they add up over steps."""
    return max(action for action, choice in enumerate(card.choices) if choice <= max(0, passes) and mask[action])
