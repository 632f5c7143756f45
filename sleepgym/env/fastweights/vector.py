"""FastWeightsVectorEnv: many episodes on one model, whose passes are made together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from sleepgym.env.batches import actions_of, require_running
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.life import digest


def digest_together(envs: Sequence[FastWeightsEnv], actions: Iterable[Any]) -> None:
    """Makes the passes of the next action of every environment in one batch; their next step does not make them again.

    Args:
        envs: Environments on one model; what has ended is left alone.
        actions: An action of each.

    Raises:
        ActionError: An action is not in the action space; no environment has changed.
    """
    actions = list(actions)
    for env, action in zip(envs, actions, strict=True):
        env.check(action)
    passes = [0 if env.life.over else env.life.passes_of(int(a)) for env, a in zip(envs, actions, strict=True)]
    busy = [(env, count) for env, count in zip(envs, passes, strict=True) if count]
    if len(busy) > 1:
        moments = digest([env.life for env, _ in busy], [count for _, count in busy])
        for (env, _), moment in zip(busy, moments, strict=True):
            env.ready = moment


class FastWeightsVectorEnv(SyncVectorEnv):
    """A vector of :class:`~sleepgym.env.fastweights.env.FastWeightsEnv` that makes its passes in one batch.

    Environment ``i`` lives through what a single environment with its seed and actions would, logits within rounding.
    Autoreset, infos and seeds are those of
    :class:`gymnasium.vector.SyncVectorEnv`.

    Args:
        num_envs: Number of episodes.
        autoreset_mode: When an episode that has ended makes way for the next.
        arguments: For every environment; see :class:`FastWeightsEnv`.

    Raises:
        ValueError: There are no environments.
        UnknownArgumentError: An argument is none of an environment; a TypeError as well.
    """

    metadata = {**FastWeightsEnv.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self, num_envs: int = 1, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, **arguments: Any
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"expected at least one environment, found num_envs={num_envs}")
        super().__init__([lambda: FastWeightsEnv(**arguments)] * num_envs, autoreset_mode=autoreset_mode)

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
        envs = self._singles()
        if self.autoreset_mode == AutoresetMode.DISABLED:
            require_running([number for number, env in enumerate(envs) if env.life.over])
        digest_together(envs, chosen)
        return super().step(chosen)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[num_envs, actions]``."""
        return np.stack([env.action_masks() for env in self._singles()])

    def _singles(self) -> list[FastWeightsEnv]:
        return [cast(FastWeightsEnv, env.unwrapped) for env in self.envs]
