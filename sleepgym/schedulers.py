"""Hand-written schedulers: what a learned one has to beat.

They look at the observation alone and answer ``predict`` as Stable-Baselines3 models do, so that one
evaluation loop serves both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.actions import Action
from sleepgym.env.observation import LEDGER_FEATURES, stat

Observation = Mapping[str, NDArray[np.float32]]
Mask = NDArray[np.bool_]

SINCE_DAYS = 2.0
"""Days that ``since_sleep`` and ``since_audit`` show as 1."""


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
            action_masks: Allowed actions; if left out, what the observation tells about them.
        """
        if observation["stats"].ndim == 1:
            mask = allowed(observation) if action_masks is None else np.asarray(action_masks, dtype=bool).reshape(-1)
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


def _first(mask: Mask, *wanted: Action) -> Action:
    """The first wanted action that is allowed, else WAIT."""
    return next((action for action in wanted if mask[action]), Action.WAIT)


def _keep_up(observation: Observation, mask: Mask) -> Action:
    """What every sensible scheduler does while awake: make room, write what waits, repair what is known broken."""
    if stat(observation, "ledger_fill") > 0.8 and mask[Action.PRUNE]:
        return Action.PRUNE
    return _first(mask, Action.INJECT, Action.REFRESH)


@dataclass
class RandomScheduler(Scheduler):
    """Draws evenly from the allowed actions.

    Attributes:
        seed: Of its draws.
    """

    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        return Action(int(self._rng.choice(np.flatnonzero(mask))))


@dataclass(frozen=True)
class NeverSleep(Scheduler):
    """Writes what waits and never sleeps.

    Attributes:
        nap_days: Days between naps, after which it refreshes what they find; None for no naps.
    """

    nap_days: float | None = None

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        busy = _keep_up(observation, mask)
        tired = self.nap_days is not None and stat(observation, "since_audit") * SINCE_DAYS >= self.nap_days
        return busy if busy != Action.WAIT or not tired else _first(mask, Action.NAP)


@dataclass(frozen=True)
class FixedPeriod(Scheduler):
    """Sleeps at fixed intervals, whatever the day brings.

    Attributes:
        days: Days between the end of a night and the beginning of the next, at most 2.
    """

    days: float = 0.75

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        # Rounded to float32 in the observation: without the tolerance a period could come one tick late.
        if mask[Action.SLEEP] and stat(observation, "since_sleep") * SINCE_DAYS >= self.days - 1e-4:
            return Action.SLEEP
        return _keep_up(observation, mask)


@dataclass(frozen=True)
class PressureRule(Scheduler):
    """Naps when sleep pressure is noticeable and sleeps when it is high: the reference rule.

    Attributes:
        nap_at: Pressure from which it naps.
        sleep_at: Pressure from which it sleeps.
        nap_days: Days between audits at least; pressure does not fall by napping.
        night_relief: How much lower both thresholds are at night, when few questions are missed.
    """

    nap_at: float = 0.4
    sleep_at: float = 0.8
    nap_days: float = 0.5
    night_relief: float = 0.0

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        pressure = stat(observation, "pressure") + self.night_relief * stat(observation, "night")
        if mask[Action.SLEEP] and pressure >= self.sleep_at:
            return Action.SLEEP
        busy = _keep_up(observation, mask)
        rested = stat(observation, "since_audit") * SINCE_DAYS < self.nap_days
        if busy == Action.WAIT and mask[Action.NAP] and pressure >= self.nap_at and not rested:
            return Action.NAP
        return busy
