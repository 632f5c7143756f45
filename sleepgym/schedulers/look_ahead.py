"""LookAhead: tries every action on branches of the real episode. Not a contestant: it sees the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import act_together
from sleepgym.episode.actions import Action
from sleepgym.schedulers.base import Mask, Observation, Scheduler, keep_up


@dataclass
class LookAhead(Scheduler):
    """Does what turns out best when actions are tried and a rule takes over after each: a rollout policy.

    One step of policy improvement on the rule, with the true model and the true future of the episode. An upper
    reference for schedulers that have neither. Followed to the end of the episode, it earns no less than its rule, but
    for rounding.

    Source: Bertsekas 2013, "Rollout algorithms for discrete optimization".

    Attributes:
        env: The environment that it acts in; it is branched with ``fork`` and never touched.
        rule: Who acts after the first action.
        depth: Ticks that each branch is followed for.
        width: Most actions tried: the rule's own first, then a night, what waits to be done, a nap, and the others.
        every: Decisions from one at which others than the rule's are tried to the next.

    Raises:
        ValueError: A branch would not be followed at all, or none would be tried.
    """

    env: SleepEnv
    rule: Scheduler
    depth: int = 16
    width: int = 4
    every: int = 2
    _decisions: int = field(default=0, init=False, repr=False, compare=False)
    _plan: Sequence[_Decision] = field(default=(), init=False, repr=False, compare=False)
    """What following the rule from here to the end brings, as far as that is known from the decision before."""

    def __post_init__(self) -> None:
        if self.depth < 1 or self.width < 1 or self.every < 1:
            raise ValueError(
                "expected an interval, a depth and a width of at least 1, "
                f"found {self.every}, {self.depth} and {self.width}"
            )

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        own = Action(int(self.rule.predict(observation, action_masks=mask)[0]))
        order = dict.fromkeys([own, Action.SLEEP, keep_up(observation, mask), Action.NAP, *Action])
        options = [action for action in order if mask[action]][: self.width]
        tried = self._decisions % self.every == 0 and len(options) > 1
        self._decisions += 1
        now = self.env.episode.tick
        known = self._plan if self._plan and self._plan[0].start == now else ()
        self._plan = known[1:]
        if not tried:
            return own
        unknown = options[1:] if known else options
        branches = [_Branch(self.env.fork()) for _ in unknown]
        _step(branches, unknown)
        until = now + self.depth
        while running := [branch for branch in branches if not branch.env.over and branch.tick < until]:
            _step(running, [branch.choice(self.rule) for branch in running])
        last = min(max(branch.tick for branch in branches) + self.depth // 2, self.env.card.horizon)
        worths = [branch.worth(last) for branch in branches]
        if known:
            worths = [sum(made.reward for made in known), *worths]
        # Ties go to what comes first: the rule's own choice.
        best = int(np.argmax(worths))
        if best or not known:
            chosen = branches[best - len(worths)]
            # From the next decision on, the rule is followed there too: nothing of it has to be tried again.
            self._plan = chosen.decisions[1:] if chosen.env.over else ()
        return options[best]


@dataclass(frozen=True)
class _Decision:
    """A decision of a branch: when it was made, and what it earned."""

    start: int
    reward: float


class _Branch:
    """One future under way, and what it has earned."""

    def __init__(self, env: SleepEnv) -> None:
        self.env = env
        self.decisions: list[_Decision] = []
        self._observation: Observation = {}

    @property
    def tick(self) -> int:
        return self.env.episode.tick

    def choice(self, rule: Scheduler) -> Action:
        return Action(int(rule.predict(self._observation, action_masks=self.env.action_masks())[0]))

    def step(self, action: Action) -> None:
        start = self.tick
        self._observation, reward, *_ = self.env.step(self.env.choices.usual(action))
        self.decisions.append(_Decision(start, reward))

    def worth(self, last: int) -> float:
        """What it has earned, and would until a tick if the model stayed as it is.

        Branches end at different ticks, since actions take several; and what they have made of the model is worth
        something beyond their end.
        """
        return sum(made.reward for made in self.decisions) + self.env.episode.prospect(last)


def _step(branches: Sequence[_Branch], actions: Sequence[Action]) -> None:
    act_together(
        [branch.env for branch in branches],
        [branch.env.choices.usual(action) for branch, action in zip(branches, actions, strict=True)],
    )
    for branch, action in zip(branches, actions, strict=True):
        branch.step(action)
