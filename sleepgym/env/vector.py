"""SleepVectorEnv: many episodes on one model, those that do alike in the same passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from sleepgym.env.batches import actions_of, require_running
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.together import act_together as act

Wrap = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]
"""Puts a wrapper around an environment, as its class does."""


class SleepVectorEnv(SyncVectorEnv):
    """A vector of :class:`~sleepgym.env.sleep_env.SleepEnv` whose memories are slots on one frozen base.

    Environment ``i`` lives through what a single environment with its seed and actions would live through: the same
    facts recalled, logits within rounding. What differs is the cost: targets of all facts to be written are optimised
    in one batch, all naps and all questions are asked in the same passes, and on an accelerator all sleepers train in
    one loop. (There, rounding grows from night to night; on a CPU, nights are those of a single environment.)
    ``gym.make_vec("SleepLLM-v0", num_envs=16)`` makes one. Autoreset, infos and seeds are those of
    :class:`gymnasium.vector.SyncVectorEnv`; an episode ends by its own clock. On every card,
    ``single_action_space.sample(mask=mask)`` takes each ``mask`` of ``infos["action_mask"]``.
    ``metadata["autoreset_mode"]`` says when an ended episode makes way for the next, ``NEXT_STEP`` unless told
    otherwise.

    On a CPU, shared passes are as much arithmetic as separate ones: slots save memory there, and processes save time.
    ``gym.make_vec(..., vectorization_mode="async")`` makes processes, with a base and one thread in each; take as many
    as there are cores. On an accelerator, take slots.

    Args:
        num_envs: Number of episodes.
        autoreset_mode: When an episode that has ended makes way for the next.
        max_episode_steps: Steps (not ticks) after which an episode is truncated in any case; None for no such limit.
        wrappers: Put around every environment, the first one innermost. One that changes actions costs time: what was
            done together is taken back and done again alone.
        share_nights: Whether sleepers train in one loop; None: unless the model is on a CPU.
        env_wrappers: The same as ``wrappers``, under a name that ``gym.make_vec`` passes on: its own argument
            ``wrappers`` is for its own vectors, and refused where an environment brings one.
        arguments: For every environment; see :class:`SleepEnv`.

    Raises:
        ValueError: There are no environments, or both arguments for wrappers are given.
        TypeError: Wrappers are no sequence of functions.
        UnknownArgumentError: An argument is none of an environment; a TypeError as well.
    """

    metadata = {**SleepEnv.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        wrappers: Sequence[Wrap] = (),
        share_nights: bool | None = None,
        env_wrappers: Sequence[Wrap] = (),
        **arguments: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"expected at least one environment, found num_envs={num_envs}")
        if wrappers and env_wrappers:
            raise ValueError("expected wrappers or env_wrappers, found both; they are the same, give one of them")
        around = _checked(wrappers or env_wrappers)
        self.share_nights = share_nights

        def make() -> gym.Env[Any, Any]:
            env: gym.Env[Any, Any] = SleepEnv(**arguments)
            if max_episode_steps is not None:
                env = TimeLimit(env, max_episode_steps)
            for wrapper in around:
                env = wrapper(env)
            return env

        super().__init__([make] * num_envs, autoreset_mode=autoreset_mode)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action per environment.

        Raises:
            ActionError: Actions are not in the action space; no environment has moved.
            gymnasium.error.ResetNeeded: An environment was not reset, or not after its episode ended, with autoreset
                disabled; no environment has moved.
        """
        chosen = actions_of(actions, self.action_space, self.num_envs, self.single_action_space)
        ended = np.flatnonzero(self._autoreset_envs).tolist()
        if self.autoreset_mode == AutoresetMode.DISABLED:
            require_running(ended)
        # With NEXT_STEP, an environment that is about to be reset does not act.
        resting = ended if self.autoreset_mode == AutoresetMode.NEXT_STEP else []
        acting = [i for i in range(self.num_envs) if i not in resting]
        envs = self._sleepers()
        act_together([envs[i] for i in acting], [chosen[i] for i in acting], self.share_nights)
        return super().step(chosen)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[num_envs, actions]``; see :meth:`SleepEnv.action_masks`."""
        return np.stack([env.action_masks() for env in self._sleepers()])

    def _sleepers(self) -> list[SleepEnv]:
        return [cast(SleepEnv, env.unwrapped) for env in self.envs]


def _checked(wrappers: Any) -> tuple[Wrap, ...]:
    if callable(wrappers) or not isinstance(wrappers, Iterable) or not all(map(callable, around := tuple(wrappers))):
        raise TypeError(
            f"expected a sequence of wrappers such as [FlattenLedger], each a function of an environment, found "
            f"{wrappers!r}"
        )
    return around


def act_together(envs: Sequence[SleepEnv], actions: Iterable[Any], share_nights: bool | None = None) -> None:
    """Brings about what the actions do, and asks what will be asked until the next ones.

    The environments' own steps then find their outcomes, and the answers to their questions, ready. The time it takes
    is divided evenly between them.

    Args:
        envs: On one base.
        actions: What each environment's ``step`` will be given. If it is given another one, as by a wrapper that
            changes actions, it takes back what was done and does that.
        share_nights: Whether sleepers train in one loop; None: unless the model is on a CPU.

    Raises:
        ActionError: An action is not in its environment's action space; nothing has happened.
        ValueError: The environments are not on one base; nothing has happened.
    """
    running = [(env, env.choices.of(action)) for env, action in zip(envs, actions, strict=True) if not env.over]
    if len(running) < 2:
        return
    start = time.perf_counter()
    with running[0][0].base.lm.guard.usual():
        act([(env.episode, choice) for env, choice in running], share_nights)
    share = (time.perf_counter() - start) / len(running)
    for env, _ in running:
        env.seconds += share
