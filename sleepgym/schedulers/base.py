"""What all schedulers share: they answer ``predict`` as Stable-Baselines3 models do, so one loop evaluates both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import LEDGER_FEATURES, SINCE_DAYS, stat
from sleepgym.episode.actions import Action

Observation = Mapping[str, NDArray[np.float32]]
Mask = NDArray[np.bool_]

CROWDED = 0.8
"""How full the ledger may be before room is made in it, as a share of its capacity."""


class Scheduler(ABC):
    """A policy for SleepEnv."""

    @abstractmethod
    def act(self, observation: Observation, mask: Mask) -> Action:
        """Chooses an allowed action."""

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Action and (unused) state, for one observation or a batch of them.

        Args:
            observation: As the environment returns it; with a leading axis, as a vector environment does.
            state: Passed through.
            episode_start: Ignored.
            deterministic: Ignored; randomness, where there is any, is the scheduler's own.
            action_masks: Allowed actions; if left out, what the observation tells about them. Of a card with
                parameters, those of the operator are read, which come first.

        Returns:
            Values of :class:`~sleepgym.episode.actions.Action`, ``[]`` or ``[rows]``, and the state.
        """
        if observation["stats"].ndim == 1:
            mask = allowed(observation) if action_masks is None else np.asarray(action_masks, dtype=bool).reshape(-1)
            mask = mask[: len(Action)]
            return np.asarray(self.act(observation, mask), dtype=np.int64), state
        rows = len(observation["stats"])
        masks = [None] * rows if action_masks is None else np.asarray(action_masks).reshape(rows, -1)
        chosen = [
            self.predict({k: v[i] for k, v in observation.items()}, action_masks=masks[i])[0] for i in range(rows)
        ]
        return np.array(chosen, dtype=np.int64), state


def allowed(observation: Observation) -> Mask:
    """The action mask as far as an observation shows it."""
    written = _column(observation, "present") * (1 - _column(observation, "pending")) > 0
    fill, budget = stat(observation, "ledger_fill"), stat(observation, "budget_left")
    mask = np.zeros(len(Action), dtype=bool)
    mask[Action.WAIT] = True
    mask[Action.INJECT] = stat(observation, "pending") > 0 and budget > 0 and fill < 1
    mask[Action.REFRESH] = stat(observation, "degraded") > 0 and budget > 0
    mask[[Action.NAP, Action.SLEEP]] = fill > 0
    mask[Action.PRUNE] = bool((written & (_column(observation, "stage") == 1)).any())
    return mask


def _column(observation: Observation, name: str) -> NDArray[np.float32]:
    return observation["ledger"][:, list(LEDGER_FEATURES).index(name)]


def first_allowed(mask: Mask, *wanted: Action) -> Action:
    """The first wanted action that is allowed, else WAIT."""
    return next((action for action in wanted if mask[action]), Action.WAIT)


def keep_up(observation: Observation, mask: Mask) -> Action:
    """What most schedulers do while awake: make room, write what waits, repair what is known broken.

    Args:
        observation: Of one episode.
        mask: Allowed actions.

    Returns:
        PRUNE if the ledger is crowded, else INJECT, else REFRESH, whichever is allowed first, else WAIT.
    """
    if stat(observation, "ledger_fill") > CROWDED and mask[Action.PRUNE]:
        return Action.PRUNE
    return first_allowed(mask, Action.INJECT, Action.REFRESH)


def days_passed(observation: Observation, name: str, days: float) -> bool:
    """Whether as many days have passed since ``since_sleep`` or ``since_audit``."""
    # Rounded to float32 in the observation: without the tolerance a period could come one tick late.
    return stat(observation, name) * SINCE_DAYS >= days - 1e-4


def check_days(name: str, days: float) -> None:
    """Observations stop counting at two days: a longer period would never be over.

    Raises:
        ValueError: It is longer than that, or negative.
    """
    if not 0 <= days <= SINCE_DAYS:
        raise ValueError(f"expected {name} in 0..{SINCE_DAYS}, as far as observations count days, found {days}")
