"""LookAhead: a planner on forks of the real episode. It uses the true future, and so is a reference only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.schedulers.base import Mask, Observation, Scheduler, keep_up
from sleepgym.schedulers.own import SchedulerTypeError, as_scheduler, made

if TYPE_CHECKING:
    from sleepgym.env.sleep_env import SleepEnv


@dataclass
class LookAhead(Scheduler):
    """Rollout policy: tries several actions, follows a base rule after each, and takes the best.

    It is one step of policy improvement on the rule, with the true model and the true future of the episode: an upper
    reference for schedulers that have neither. With rollouts to the end of the episode, its return is at least that of
    the rule, up to rounding.

    Source: Bertsekas 2013, "Rollout algorithms for discrete optimization".

    Attributes:
        env: Environment that it acts in; it is forked and never changed.
        rule: Base scheduler of the rollouts.
        depth: Length of a rollout in ticks.
        width: Maximum number of actions tried: the rule's own, SLEEP, the routine action, NAP, and the others.
        every: Interval of decisions at which actions other than the rule's are tried.

    Raises:
        ValueError: An interval, depth or width is below 1.
        SchedulerTypeError: The rule does not decide by the observation alone.
    """

    env: SleepEnv
    rule: Scheduler | Callable[[Observation, Mask], Operator]
    depth: int = 16
    width: int = 4
    every: int = 2
    _decisions: int = field(default=0, init=False, repr=False, compare=False)
    _plan: Sequence[_Decision] = field(default=(), init=False, repr=False, compare=False)
    """Remaining decisions of a rollout to the episode's end that is being followed; empty if unknown."""

    def __post_init__(self) -> None:
        if self.depth < 1 or self.width < 1 or self.every < 1:
            raise ValueError(
                "expected an interval, a depth and a width of at least 1, "
                f"found {self.every}, {self.depth} and {self.width}"
            )
        rule = as_scheduler(self.rule)
        if callable(rule) and isinstance(self.rule, type):
            rule = made(rule, self.env, 0)
        if not isinstance(rule, Scheduler) and not hasattr(rule, "predict"):
            raise SchedulerTypeError(
                f"expected a rule that decides by the observation alone, found {self.rule!r}; "
                "give a Scheduler, or a function of (observation, mask)"
            )
        self._follow: Scheduler = rule

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        own = OPERATORS[int(self._follow.predict(observation, action_masks=mask)[0])]
        order = dict.fromkeys([own, Action.SLEEP, keep_up(observation, mask), Action.NAP, *OPERATORS[: len(mask)]])
        options = [action for action in order if mask[action]][: self.width]
        tried = self._decisions % self.every == 0 and len(options) > 1
        self._decisions += 1
        now = self.env.episode.tick
        known = self._plan if self._plan and self._plan[0].start == now else ()
        self._plan = known[1:]
        if not tried:
            return own if mask[own] else Action.WAIT
        unknown = options[1:] if known else options
        branches = [_Branch(self.env.fork()) for _ in unknown]
        _step(branches, unknown)
        until = now + self.depth
        while running := [branch for branch in branches if not branch.env.over and branch.tick < until]:
            _step(running, [branch.choice(self._follow) for branch in running])
        last = min(max(branch.tick for branch in branches) + self.depth // 2, self.env.card.horizon)
        values = [branch.value(last) for branch in branches]
        if known:
            values = [sum(decision.reward for decision in known), *values]
        # Ties are resolved in favour of the first option, the rule's own choice.
        best = int(np.argmax(values))
        if best or not known:
            chosen = branches[best - len(values)]
            # The branch followed the rule to the end: its rewards are those of the rule from the next decision on.
            self._plan = chosen.decisions[1:] if chosen.env.over else ()
        return options[best]


@dataclass(frozen=True)
class _Decision:
    """Decision of a branch: its tick, and its reward."""

    start: int
    reward: float


class _Branch:
    """Rollout on a fork of the environment."""

    def __init__(self, env: SleepEnv) -> None:
        self.env = env
        self.decisions: list[_Decision] = []
        self._observation: Observation = {}

    @property
    def tick(self) -> int:
        return self.env.episode.tick

    def choice(self, rule: Scheduler) -> Operator:
        return OPERATORS[int(rule.predict(self._observation, action_masks=self.env.action_masks())[0])]

    def step(self, action: Operator) -> None:
        start = self.tick
        self._observation, reward, *_ = self.env.step(self.env.choices.usual(action))
        self.decisions.append(_Decision(start, reward))

    def value(self, last: int) -> float:
        """Returns the rewards so far plus those until a tick with an unchanged model.

        The second term makes branches comparable, which end at different ticks, and values the state of the model
        beyond their end.
        """
        return sum(decision.reward for decision in self.decisions) + self.env.episode.prospect(last)


def _step(branches: Sequence[_Branch], actions: Sequence[Operator]) -> None:
    from sleepgym.env.vector import act_together  # brings torch, which other schedulers do without

    act_together(
        [branch.env for branch in branches],
        [branch.env.choices.usual(action) for branch, action in zip(branches, actions, strict=True)],
    )
    for branch, action in zip(branches, actions, strict=True):
        branch.step(action)
