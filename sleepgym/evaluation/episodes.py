"""Evaluation of schedulers on episodes, which run in parallel slots and share forward passes."""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sleepgym.env.spaces import ActionError, ActionTypeError, operator_of
from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.schedulers.base import Scheduler
from sleepgym.schedulers.own import Predictor, as_scheduler, made

if TYPE_CHECKING:
    from sleepgym.env.sleep_env import SleepEnv


def takes_masks(predictor: Predictor) -> bool:
    """Whether a policy is given masks: Stable-Baselines3's own models take none, sb3-contrib's and schedulers do."""
    return "action_masks" in inspect.signature(predictor.predict).parameters


Maker = Callable[["SleepEnv", int], Predictor]
"""Factory of a scheduler for one episode, called with its environment after the reset, and its seed."""

Decider = Predictor | Maker | Callable[[Any, Any], Any]
"""What can be evaluated: see :func:`~sleepgym.schedulers.own.as_scheduler`."""


@dataclass(frozen=True)
class EpisodeResult:
    """Result of an episode.

    Attributes:
        seed: Seed of the episode.
        score: Share of all questions that were answered correctly.
        recall: True recall over all arrived facts at the end.
        edits_used: Edits spent.
        budget: Edit budget.
        sleeps: Number of nights.
        naps: Number of naps.
        ppl_ratio: Perplexity at the end relative to the bare model.
        seconds: Measured time of the environment, in seconds; time of shared passes is divided evenly.
        episode_return: Undiscounted sum of rewards.
        collapsed: Whether the episode terminated because of perplexity.
        actions: Actions in order, as passed to ``step``; with the seed, they reproduce the episode.
        degraded: Number of facts that the last audit found degraded and that are still true.
        invalid: Number of steps that were not allowed or failed.
    """

    seed: int
    score: float
    recall: float
    edits_used: int
    budget: int
    sleeps: int
    naps: int
    ppl_ratio: float
    seconds: float
    episode_return: float
    collapsed: bool
    actions: tuple[int | tuple[int, ...], ...]
    degraded: int = 0
    invalid: int = 0


def run_episode(
    env: gym.Env[Any, Any],
    scheduler: Decider,
    seed: int,
    on_step: Callable[[Mapping[str, Any]], None] = lambda info: None,
) -> EpisodeResult:
    """Runs one episode to its end.

    Args:
        env: SleepEnv, wrapped or not.
        scheduler: Scheduler or policy to evaluate; see :func:`evaluate`.
        seed: Seed of the episode.
        on_step: Called with the info of every step.

    Raises:
        TypeError: The environment is no SleepEnv, or a wrapper changes actions.
        SchedulerTypeError: The scheduler is none of the supported forms; a TypeError.
        ActionError: The scheduler returned an invalid action; a ValueError.
    """
    [(_, result)] = _play([env], scheduler, [seed], on_step)
    return result


def evaluate(
    make_env: Callable[[], gym.Env[Any, Any]],
    scheduler: Decider,
    seeds: Sequence[int],
    slots: int = 16,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Runs one episode per seed; equal seeds make schedulers comparable.

    Episodes run in parallel slots and share forward passes. Results equal those of running each alone: the same facts
    recalled, rewards up to rounding. When an episode ends, the next seed takes its slot.

    Actions that the mask forbids are played, change nothing, and are counted in :attr:`EpisodeResult.invalid`. If a
    hand-written scheduler chooses one, a warning says so, once.

    Args:
        make_env: Factory of a SleepEnv, wrapped or not; called once per slot that is needed.
        scheduler: Scheduler, policy, or function of ``(observation, mask)`` that returns an action, shared by all
            slots; or a factory of one scheduler per episode, as ``lambda env, seed: RandomScheduler(seed)`` or
            ``lambda env, seed: LookAhead(env, rule)``; or a class, of which an instance is made per episode. Random
            schedulers need a factory to be independent of the number of slots, and planners to have their own
            environment. See :func:`~sleepgym.schedulers.own.as_scheduler`.
        seeds: Seeds of the episodes.
        slots: Maximum number of parallel episodes.
        on_episode: Called with each result when its episode ends; the order may differ from that of the seeds.

    Returns:
        Results in the order of the seeds.

    Raises:
        TypeError: The environment is no SleepEnv, or a wrapper changes actions.
        ValueError: ``slots`` is below 1.
        SchedulerTypeError: The scheduler is none of the supported forms; a TypeError.
        ActionError: The scheduler returned an invalid action; a ValueError.
    """
    if slots < 1:
        raise ValueError(f"expected at least one slot to play in, found slots={slots}")
    envs: list[gym.Env[Any, Any]] = []
    results: dict[int, EpisodeResult] = {}
    try:
        envs.extend(make_env() for _ in range(min(slots, len(seeds))))
        for index, result in _play(envs, scheduler, seeds):
            results[index] = result
            on_episode(result)
    finally:
        for env in envs:
            env.close()
    return [results[index] for index in range(len(seeds))]


class _Slot:
    """Environment with its current episode and the chooser of its actions."""

    chooser: _Chooser

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env, self.inner = env, _sleep_env(env)
        self.over = True

    def begin(self, index: int, seed: int) -> None:
        """Starts an episode."""
        self.index, self.seed = index, seed
        self.observation, self.info = self.env.reset(seed=seed)
        self.over = False
        self.action: NDArray[Any] = self.inner.choices.usual(Action.WAIT)
        self.actions: list[int | tuple[int, ...]] = []
        self.episode_return, self.invalid = 0.0, 0

    def step(self) -> None:
        """Steps the environment with the chosen action."""
        self.observation, reward, self.terminated, truncated, self.info = self.env.step(self.action)
        self.over = self.terminated or truncated
        action = self.action.tolist()
        self.actions.append(tuple(action) if isinstance(action, list) else action)
        self.episode_return += float(reward)
        self.invalid += bool(self.info["invalid_action"])

    def result(self) -> EpisodeResult:
        """Returns the result of the finished episode."""
        info = self.info
        return EpisodeResult(
            seed=self.seed,
            score=float(info["score"]),
            recall=float(info["recall"]),
            edits_used=int(info["edits_used"]),
            budget=int(info["edits_used"] + info["edits_left"]),
            sleeps=int(info["sleeps"]),
            naps=int(info["naps"]),
            ppl_ratio=float(info["ppl_ratio"]),
            seconds=self.inner.seconds,
            episode_return=self.episode_return,
            collapsed=self.terminated,
            actions=tuple(self.actions),
            degraded=int(info["degraded"]),
            invalid=self.invalid,
        )


class _Chooser:
    """Scheduler with the slots that it acts in and its recurrent state."""

    def __init__(self, scheduler: Predictor, slots: Sequence[_Slot], mistakes: _Mistakes) -> None:
        self._scheduler, self._slots, self._mistakes = scheduler, slots, mistakes
        self._name = scheduler.name if isinstance(scheduler, Scheduler) else type(scheduler).__name__
        self._state: Any = None
        self._takes_masks = takes_masks(scheduler)

    def choose(self) -> None:
        """Sets the next action of every slot.

        Raises:
            ValueError: The scheduler did not return one valid action per slot.
        """
        slots = self._slots
        masks = np.stack([slot.inner.action_masks() for slot in slots])
        # Finished slots keep their rows: a recurrent state has a row per slot, on an axis that depends on the model.
        answer = self._scheduler.predict(
            _stack([slot.observation for slot in slots]),
            self._state,
            episode_start=np.array([not slot.actions for slot in slots]),
            deterministic=True,
            **({"action_masks": masks} if self._takes_masks else {}),
        )
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ActionTypeError(
                f"expected predict() of {self._name} to return actions and a state, found {answer!r}; "
                "return (actions, state)"
            )
        answer, self._state = answer
        try:
            rows = np.atleast_1d(np.asarray(answer))
        except ValueError:  # a ragged list
            rows = np.atleast_1d(np.asarray(None))
        chosen = [
            action for slot, row in zip(slots, rows, strict=False) if (action := _action(slot.inner, row)) is not None
        ]
        if not len(rows) == len(chosen) == len(slots):
            raise ActionError(
                f"expected {len(slots)} actions in {slots[0].inner.action_space} from "
                f"{self._name}, found {answer!r}; its predict() is given a batch of observations "
                "and must answer with an action for each"
            )
        for slot, action, mask in zip(slots, chosen, masks, strict=True):
            slot.action = action
            if not slot.over and not mask[operator := operator_of(action)] and isinstance(self._scheduler, Scheduler):
                self._mistakes.warn(self._name, operator, slot)


class _Mistakes:
    """Warns of forbidden actions, once for all episodes that are played together."""

    def __init__(self) -> None:
        self._told = False

    def warn(self, name: str, action: Operator, slot: _Slot) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"expected allowed actions from {name}, found {action.name} in the episode of seed {slot.seed} at tick "
                f"{slot.inner.episode.tick}, where the mask forbids it; such steps change nothing, cost a penalty and "
                "are counted in EpisodeResult.invalid; look at mask[Action] before choosing",
                stacklevel=5,
            )


def _action(env: SleepEnv, answer: Any) -> NDArray[Any] | None:
    """Converts a scheduler's answer into an action of the environment; None if it is invalid.

    On a card with parameters, an operator alone is completed by the card's usual parameters.
    """
    if env.action_space.contains(answer):
        return np.asarray(answer)
    operators = gym.spaces.Discrete(len(env.card.operators))
    return env.choices.usual(OPERATORS[int(answer)]) if operators.contains(answer) else None


def _play(
    envs: Sequence[gym.Env[Any, Any]],
    scheduler: Decider,
    seeds: Sequence[int],
    on_step: Callable[[Mapping[str, Any]], None] = lambda info: None,
) -> Iterator[tuple[int, EpisodeResult]]:
    """Yields the index of each seed with the result of its episode, in the order in which episodes end."""
    from sleepgym.env.vector import act_together  # brings torch, which statistics and simulated episodes do without

    slots = [_Slot(env) for env in envs]
    pending = deque(enumerate(seeds))
    plays, mistakes = as_scheduler(scheduler), _Mistakes()
    shared = _Chooser(plays, slots, mistakes) if isinstance(plays, Predictor) else None

    def begin(slot: _Slot) -> None:
        index, seed = pending.popleft()
        slot.begin(index, seed)
        # After the reset, so that the factory can read the episode.
        slot.chooser = shared or _Chooser(made(plays, slot.inner, seed), [slot], mistakes)

    for slot in slots:
        begin(slot)
    while running := [slot for slot in slots if not slot.over]:
        for chooser in dict.fromkeys(slot.chooser for slot in running):
            chooser.choose()
        act_together([slot.inner for slot in running], [slot.action for slot in running])
        for slot in running:
            slot.step()
            on_step(slot.info)
            if slot.over:
                yield slot.index, slot.result()
                if pending:
                    begin(slot)


def _sleep_env(env: gym.Env[Any, Any]) -> SleepEnv:
    """Returns the environment inside wrappers.

    Raises:
        TypeError: It is no SleepEnv; or a wrapper changes actions, which are performed before ``step`` is called.
    """
    from sleepgym.env.sleep_env import SleepEnv  # brings torch as well

    inner, layer = env.unwrapped, env
    if not isinstance(inner, SleepEnv):
        raise TypeError(f"expected a SleepEnv, wrapped or not, found {type(inner).__name__}")
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.ActionWrapper):
            raise TypeError(f"expected wrappers that leave actions alone, found {type(layer).__name__}; take it off")
        layer = layer.env
    return inner


def _stack(observations: Sequence[Any]) -> Mapping[str, NDArray[Any]] | NDArray[Any]:
    """Stacks observations along a new leading axis."""
    if isinstance(observations[0], Mapping):
        return {name: np.stack([observation[name] for observation in observations]) for name in observations[0]}
    return np.stack(observations)
