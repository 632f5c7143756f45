"""SimPlanner: a planner on branches of simulated episodes. It knows their streams, and so is a reference only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import structured
from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.schedulers.base import Observation, keep_up
from sleepgym.schedulers.own import Predictor, SchedulerTypeError, as_scheduler
from sleepgym.sim.response import Response
from sleepgym.sim.rollouts import Rollouts
from sleepgym.sim.setting import Setting
from sleepgym.sim.snapshot import Snapshot


class Branching(Protocol):
    """Simulated episodes that can branch: :class:`Rollouts`, or :class:`~sleepgym.sim.vector.SimVectorEnv`."""

    setting: Setting
    response: Response

    def snapshot(self) -> Snapshot:
        """Returns this moment."""


@dataclass(frozen=True)
class SimPlanner:
    """Rollout policy in the sim: tries actions, follows a base rule from there on, and takes the best.

    As :class:`~sleepgym.schedulers.LookAhead` it sees the true stream, but what the model will answer is drawn anew for
    its branches: it knows their law and not their outcome. All actions of a decision are tried under the same draws, so
    that their differences are less noisy. Its score is a simulated score.

    Source: Bertsekas 2013, "Rollout algorithms for discrete optimization".

    Attributes:
        rule: Base scheduler of the rollouts, or a trained policy, which decides by the observation alone.
        others: Further ones: that each of them takes over is tried as well, and chosen if that is best.
        width: Maximum number of actions tried: the rule's own, SLEEP, the routine action, NAP, and the others, those of
            notes last.
        draws: Branches per action.
        ticks: Ticks that a branch is played for; None for the rest of the episode. What comes long after an action
            depends little on it, and only adds noise.
        every: Interval of decisions at which actions other than the rule's are tried.
        caution: Standard errors that are taken off the gain of an action over the rule's own: the best of several noisy
            means is too good to be true.
        without: Actions that are never taken, to see what they are worth; not WAIT.
        seed: Seed of the draws.

    Raises:
        ValueError: A width, a number of draws or of ticks or an interval is below 1, or it is to do without WAIT.
        SchedulerTypeError: A rule does not decide by the observation alone.
    """

    rule: Predictor | Callable[..., Any]
    others: Sequence[Predictor | Callable[..., Any]] = ()
    width: int = 6
    draws: int = 16
    ticks: int | None = None
    every: int = 1
    caution: float = 1.0
    without: Sequence[Operator] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = {"width": self.width, "draws": self.draws, "ticks": self.ticks, "every": self.every}
        if any(number is not None and number < 1 for number in numbers.values()):
            raise ValueError(f"expected numbers of at least 1, found {numbers}")
        if Action.WAIT in self.without:
            raise ValueError("expected actions to do without, found WAIT, which is always allowed")
        for rule in (self.rule, *self.others):
            if not hasattr(as_scheduler(rule), "predict"):
                raise SchedulerTypeError(
                    f"expected a rule that decides by the observation alone, found {rule!r}; "
                    "give a Scheduler, a policy, or a function of (observation, mask)"
                )

    def on(self, sim: Branching) -> SimPlanning:
        """Returns the policy that plans for some simulated episodes.

        Args:
            sim: The episodes, which are never changed.
        """
        return SimPlanning(self, sim)


class _Option(NamedTuple):
    """What is tried: an action, and the rule that decides from then on."""

    action: Operator
    rule: int


class SimPlanning:
    """Policy of a :class:`SimPlanner` for some simulated episodes, all of which it plans for at once.

    Args:
        planner: Rule and numbers.
        sim: The episodes.
    """

    def __init__(self, planner: SimPlanner, sim: Branching) -> None:
        self.planner, self.sim = planner, sim
        self._rules = [as_scheduler(rule) for rule in (planner.rule, *planner.others)]
        self._decisions = 0

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Chooses an operator for every episode.

        Args:
            observation: Observations of all episodes, at the present moment.
            state: Returned unchanged.
            episode_start: Ignored.
            deterministic: Ignored.
            action_masks: Allowed actions, ``[rows, actions]``.

        Raises:
            ValueError: There are no masks.
        """
        if action_masks is None:
            raise ValueError("expected action_masks, found none; pass those of the episodes")
        operators = len(self.sim.setting.card.operators)
        seen, masks = structured(observation), self._left(np.asarray(action_masks, bool)[:, :operators])
        own = np.array([self._chosen(rule, seen, masks) for rule in range(len(self._rules))])
        chosen = own[0].copy()
        if self._decisions % self.planner.every == 0:
            moment = self.sim.snapshot()
            running = np.flatnonzero(~moment.ended)
            options = [self._options(seen, masks, row, own[:, row]) for row in running.tolist()]
            values = self._values(moment, running, options)
            for row, tried, value in zip(running, options, values, strict=True):
                chosen[row] = tried[self._best(value)].action
        self._decisions += 1
        return chosen, state

    def _left(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns masks without the actions that are never taken."""
        left = masks.copy()
        left[:, list(self.planner.without)] = False
        return left

    def _chosen(self, rule: int, seen: Observation, masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.array(self._rules[rule].predict(seen, deterministic=True, action_masks=masks)[0], np.int64)

    def _options(self, seen: Observation, masks: NDArray[np.bool_], row: int, own: NDArray[np.int64]) -> list[_Option]:
        """Returns what is tried in an episode: the rule's own action first, then others, then the other rules.

        Args:
            seen: Observations of all episodes.
            masks: Allowed actions of all episodes.
            row: The episode.
            own: What each rule would do, ``[rules]``.
        """
        routine = keep_up({name: part[row] for name, part in seen.items()}, masks[row])
        every = OPERATORS[: masks.shape[1]]
        order = dict.fromkeys([OPERATORS[int(own[0])], Action.SLEEP, routine, Action.NAP, *every])
        first = [_Option(action, 0) for action in order if masks[row][action]][: self.planner.width]
        return [*first, *(_Option(OPERATORS[int(action)], rule) for rule, action in enumerate(own) if rule)]

    def _best(self, value: NDArray[np.float64]) -> int:
        """Returns the option that gains most over the first, the rule's own choice, which wins ties.

        Args:
            value: Returns, ``[options, draws]``.
        """
        gain = value - value[0]
        error = gain.std(1) / np.sqrt(self.planner.draws)
        return int(np.argmax(gain.mean(1) - self.planner.caution * error))

    def _values(
        self, moment: Snapshot, running: NDArray[np.int64], options: list[list[_Option]]
    ) -> list[NDArray[np.float64]]:
        """Returns for every episode the returns of its options, ``[options, draws]``."""
        draws = self.planner.draws
        counts = [len(tried) for tried in options]
        drawn = moment.rows(np.repeat(running, draws), self.planner.seed + self._decisions)
        of_option = np.repeat(np.arange(len(running)), counts)
        branches = Rollouts(
            self.sim.setting,
            self.sim.response,
            drawn.rows((of_option[:, None] * draws + np.arange(draws)).ravel()),
        )
        each = [option for tried in options for option in tried]
        first = np.repeat([option.action for option in each], draws)
        returns = self._played_out(branches, first, np.repeat([option.rule for option in each], draws))
        returns = returns.reshape(-1, draws)
        return np.split(returns, np.cumsum(counts)[:-1])

    def _played_out(
        self, branches: Rollouts, actions: NDArray[np.int64], rules: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Returns the sum of the rewards of first actions and, from then on, of rules, ``[branches]``."""
        horizon = self.sim.setting.card.horizon if self.planner.ticks is None else self.planner.ticks
        end = branches.state.clock.tick + horizon
        returns = branches.step(actions).rewards.total
        while True:
            branches.over |= branches.state.clock.tick >= end
            running = np.flatnonzero(~branches.over)
            if not len(running):
                break
            masks = self._left(branches.masks)
            for rule in np.unique(rules[running]).tolist():
                rows = running[rules[running] == rule]
                actions[rows] = self._chosen(rule, branches.observe(rows), masks[rows])
            returns += branches.step(actions, masks).rewards.total
        return returns
