"""SleepVectorEnv: many episodes on one model, those that do alike in the same passes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from sleepgym.env.actions import Action, perform_together
from sleepgym.env.examiner import examine_together
from sleepgym.env.sleep_env import SleepEnv


class SleepVectorEnv(SyncVectorEnv):
    """A vector of :class:`~sleepgym.env.sleep_env.SleepEnv` whose memories are slots on one frozen base.

    Environment ``i`` lives through what a single environment with its seed and actions would live through: the same
    facts recalled, logits within rounding. What differs is the cost: targets of all facts to be written are optimised
    in one batch, all naps and all questions are asked in the same passes, and all sleepers train in one loop.
    ``gym.make_vec("SleepLLM-v0", num_envs=16)`` makes one. Autoreset, infos and seeds are those of
    :class:`gymnasium.vector.SyncVectorEnv`; an episode ends by its own clock.

    Args:
        num_envs: Number of episodes.
        autoreset_mode: When an episode that has ended makes way for the next.
        arguments: For every environment; see :class:`SleepEnv`.

    Raises:
        ValueError: There are no environments.
    """

    def __init__(
        self, num_envs: int = 1, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, **arguments: Any
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"expected at least one environment, found num_envs={num_envs}")
        super().__init__([partial(SleepEnv, **arguments)] * num_envs, autoreset_mode=autoreset_mode)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action per environment.

        Raises:
            ValueError: Actions are not in the action space; no environment has moved.
        """
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or not all(self.single_action_space.contains(a) for a in chosen):
            raise ValueError(f"expected {self.num_envs} actions in 0..{len(Action) - 1}, found {actions!r}")
        # An environment that is about to be reset does not act.
        resting = (
            self._autoreset_envs if self.autoreset_mode == AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, bool)
        )
        acting = [i for i in range(self.num_envs) if not resting[i]]
        act_together([cast(SleepEnv, self.envs[i]) for i in acting], [Action(int(chosen[i])) for i in acting])
        return super().step(chosen)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[num_envs, actions]``."""
        return np.stack([cast(SleepEnv, env).action_masks() for env in self.envs])


def act_together(envs: Sequence[SleepEnv], actions: Sequence[Action]) -> None:
    """Brings about what the actions do, and asks what will be asked until the next ones.

    The environments' own steps then find their outcomes, and the answers to their questions, ready.
    """
    running = [(env.episode, action) for env, action in zip(envs, actions, strict=True) if not env.over]
    if len(running) < 2:
        return
    episodes = [episode for episode, _ in running]
    for episode in episodes:
        episode.learner.state.tick = episode.tick
    outcomes = perform_together(
        [episode.operators for episode in episodes],
        [action for _, action in running],
        [episode.edits_left for episode in episodes],
    )
    for episode, outcome in zip(episodes, outcomes, strict=True):
        episode.performed = outcome
    examine_together([episode.examiner for episode in episodes], [episode.asked() for episode in episodes])
