"""Policies that explore, so that records of episodes have every action in many situations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.schedulers.base import Mask, Observation, Scheduler
from sleepgym.schedulers.named import SchedulerMaker, SchedulerNameError, scheduler_named

MIX = "mix:"
"""How the names of random policies begin; the weights of WAIT, INJECT, REFRESH, NAP, SLEEP and PRUNE follow."""


@dataclass
class Mix(Scheduler):
    """Draws from the allowed actions by weights; never takes those of cards with notes alone.

    Source: of this project.

    Attributes:
        weights: Weight of each action.
        rng: Source of its draws.

    Raises:
        ValueError: There is not one weight per action.
    """

    weights: tuple[float, ...]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        if len(self.weights) != len(Action):
            names = ", ".join(Action.__members__)
            raise ValueError(f"expected a weight for each of {names}, found {list(self.weights)}")

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        mask = mask[: len(Action)]
        allowed = np.array(self.weights) * mask
        allowed = allowed if allowed.any() else mask.astype(float)
        return Action(int(self.rng.choice(len(Action), p=allowed / allowed.sum())))


@dataclass
class Wandering(Scheduler):
    """Follows a rule, and takes a random action instead in a share of the steps.

    Source: epsilon-greedy exploration (Sutton and Barto 2018, section 2.2).

    Attributes:
        rule: The rule.
        share: Share of the steps.
        rng: Source of its draws.
    """

    rule: Scheduler
    share: float
    rng: np.random.Generator

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        if self.rng.random() < self.share:
            return OPERATORS[int(self.rng.choice(len(mask), p=mask / mask.sum()))]
        return self.rule.act(observation, mask)


def explorer_named(text: str) -> Scheduler | SchedulerMaker:
    """Parses the text form of a scheduler, or of a policy that explores.

    - ``mix:3,4,2,1,0.2,1`` is a :class:`Mix` with these weights.
    - ``night-owl~0.2`` takes a random action instead in a fifth of the steps.
    - All else is read by :func:`~sleepgym.schedulers.named.scheduler_named`.

    Args:
        text: Text form.

    Returns:
        The scheduler, or a factory for those that draw, from the seed of each episode.

    Raises:
        SchedulerNameError: The name or a number is unknown or invalid.
    """
    name, wanders, share = text.partition("~")
    if not wanders and not name.startswith(MIX):
        return scheduler_named(name)
    weights = _weights(name) if name.startswith(MIX) else None
    rule = scheduler_named(name) if weights is None else None
    epsilon = _number(text, share) if wanders else 0.0

    def make(env: object, seed: int) -> Scheduler:
        rng = np.random.default_rng([seed, *text.encode()])
        if weights is not None:
            own: Scheduler = Mix(weights, rng)
        else:
            own = rule if isinstance(rule, Scheduler) else rule(env, seed)  # type: ignore[arg-type, misc]
        return Wandering(own, epsilon, rng) if wanders else own

    return make


def _weights(name: str) -> tuple[float, ...]:
    weights = tuple(_number(name, part) for part in name.removeprefix(MIX).split(","))
    if len(weights) != len(Action):
        raise SchedulerNameError(f"expected a weight for each of {', '.join(Action.__members__)}, found {name!r}")
    return weights


def _number(text: str, part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise SchedulerNameError(f"expected numbers in {text!r}, found {part!r}") from None
