"""Base class of schedulers, with the ``predict`` method of Stable-Baselines3 models, and shared rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import SINCE_DAYS, column, operators_of, stat, stats_column, structured
from sleepgym.env.spaces import ActionTypeError, action_error
from sleepgym.episode.actions import LOOK_UPS, OPERATORS, Action, NoteAction, Operator

Observation = Mapping[str, NDArray[np.float32]]
"""Observation of one episode: ``ledger [rows, features]`` and ``stats [features]``."""
Mask = NDArray[np.bool_]
"""Allowed operators, ``[actions]``."""

CROWDED = 0.8
"""Share of the ledger's capacity above which facts are pruned."""

ROUNDING = 1e-4
"""What observations in float32 may be off by, which could delay an action by one tick."""


class Scheduler(ABC):
    """Hand-written policy for SleepEnv.

    A user's own scheduler derives from this class and defines ``act``. Observations are always passed as dictionaries:
    vectors, as returned with ``flat=True`` or by ``FlattenLedger``, are split into their parts first.
    """

    @property
    def name(self) -> str:
        """Name in errors and warnings."""
        return type(self).__name__

    @abstractmethod
    def act(self, observation: Observation, mask: Mask) -> Operator:
        """Chooses an allowed action.

        Args:
            observation: Observation of one episode; :func:`~sleepgym.env.observation.stat` reads it by name.
            mask: Allowed operators, ``[actions]``.
        """

    def predict(
        self,
        observation: Observation | NDArray[np.float32],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Chooses an action for one observation or for each of a batch.

        Args:
            observation: Observation of the environment, a dictionary or a vector, or a batch of them with a leading
                axis.
            state: Returned unchanged.
            episode_start: Ignored.
            deterministic: Ignored; a scheduler that draws at random has a seed of its own.
            action_masks: Allowed actions, ``[actions]`` or ``[rows, actions]``; by default :func:`allowed`. On a card
                with parameters, the mask of the operator comes first, and the rest is ignored.

        Returns:
            Values of :class:`~sleepgym.episode.actions.Action` (on cards with notes also of
            :class:`~sleepgym.episode.actions.NoteAction`), ``[]`` or ``[rows]``, and the state.

        Raises:
            ActionError: ``act`` returned what is no action.
            ActionTypeError: The same, and of a type that no action has.
            ObservationError: The observation is none of a SleepEnv.
        """
        seen = structured(observation)
        operators = operators_of(seen)
        if seen["stats"].ndim == 1:
            mask = allowed(seen) if action_masks is None else np.asarray(action_masks, dtype=bool).reshape(-1)
            own = mask[: len(operators)]
            return np.asarray(self._checked(self.act(seen, own), len(own)), dtype=np.int64), state
        rows = len(seen["stats"])
        if action_masks is None:
            masks = np.array([allowed(_row(seen, i)) for i in range(rows)], bool)
        else:
            masks = np.asarray(action_masks, dtype=bool).reshape(rows, -1)[:, : len(operators)]
        return self.choose(seen, masks), state

    def choose(self, observation: Observation, masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Chooses an action for each of a batch of observations, ``[rows]``; by default one after the other.

        Args:
            observation: Observations of all rows.
            masks: Allowed operators, ``[rows, actions]``.

        Raises:
            ActionError: See :meth:`predict`.
        """
        chosen = [self._checked(self.act(_row(observation, i), mask), len(mask)) for i, mask in enumerate(masks)]
        return np.array(chosen, dtype=np.int64)

    def _checked(self, chosen: Any, count: int) -> int:
        if isinstance(chosen, (int, np.integer)) and not isinstance(chosen, bool) and 0 <= chosen < count:
            return int(chosen)
        if isinstance(chosen, np.ndarray) and chosen.ndim == 0:
            return self._checked(chosen[()], count)
        names = ", ".join(f"{action.value} {action.name}" for action in OPERATORS[:count])
        expected = f"expected an Action from {self.name} ({names})"
        if chosen is None:
            raise ActionTypeError(f"{expected}, found None; let every path through it return one")
        if isinstance(chosen, (bool, np.bool_)):
            raise ActionTypeError(f"{expected}, found {chosen!r}, a truth value; return Action.WAIT for doing nothing")
        raise action_error(expected, chosen)


def _row(observation: Observation, row: int) -> Observation:
    return {name: part[row] for name, part in observation.items()}


def allowed(observation: Observation) -> Mask:
    """Returns the action mask as far as an observation determines it, bool ``[actions]``."""
    written = column(observation, "present") * (1 - column(observation, "pending")) > 0
    fill, budget = stat(observation, "ledger_fill"), stat(observation, "budget_left")
    operators = operators_of(observation)
    mask = np.zeros(len(operators), dtype=bool)
    mask[Action.WAIT] = True
    mask[Action.INJECT] = stat(observation, "pending") > 0 and budget > 0 and fill < 1
    mask[Action.REFRESH] = stat(observation, "degraded") > 0 and budget > 0
    mask[[Action.NAP, Action.SLEEP]] = fill > 0
    mask[Action.PRUNE] = bool((written & (column(observation, "stage") == 1)).any())
    if len(operators) > len(Action):
        mask[Action.INJECT] = bool((column(observation, "pending") > 0).any()) and budget > 0 and fill < 1
        mask[NoteAction.NOTE] = stat(observation, "pending") > 0 or bool((column(observation, "stale") > 0).any())
        mask[list(LOOK_UPS)] = np.arange(len(LOOK_UPS)) != round(stat(observation, "answering") * (len(LOOK_UPS) - 1))
    return mask


def first_allowed(mask: Mask, *actions: Operator) -> Operator:
    """Returns the first of the given actions that is allowed, else WAIT."""
    return next((action for action in actions if mask[action]), Action.WAIT)


def keep_up(observation: Observation, mask: Mask) -> Operator:
    """Chooses a routine action while awake: prune, write pending facts, or refresh degraded ones.

    Args:
        observation: Observation of one episode.
        mask: Allowed operators, ``[actions]``.

    Returns:
        PRUNE if the ledger is crowded, else INJECT, else REFRESH, whichever is allowed first, else WAIT.
    """
    return first_allowed(mask, *prune_if_crowded(observation), Action.INJECT, Action.REFRESH)


def prune_if_crowded(observation: Observation) -> tuple[Action, ...]:
    """Returns PRUNE if the ledger is crowded, else nothing."""
    return (Action.PRUNE,) if stat(observation, "ledger_fill") > CROWDED else ()


def is_rich(observation: Observation, reserve: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns whether more of the budget is left than a multiple of what even spending would have left.

    Args:
        observation: Observation of one episode, or of several, ``[rows]``.
        reserve: The multiple; a number for all, or one per row.
    """
    return stats_column(observation, "budget_left") > reserve * (1 - stats_column(observation, "progress"))


def days_passed(observation: Observation, name: str, days: float) -> bool:
    """Returns whether a feature of elapsed time has reached a number of days.

    Args:
        observation: Observation of one episode.
        name: ``"since_sleep"`` or ``"since_audit"``.
        days: Number of days.
    """
    return stat(observation, name) * SINCE_DAYS >= days - ROUNDING


def check_days(name: str, days: float) -> None:
    """Checks a number of days: observations clip elapsed time at two days, so that a longer period would never end.

    Args:
        name: Name of the field, for the message.
        days: Number of days.

    Raises:
        ValueError: The number is negative or above two.
    """
    if not 0 <= days <= SINCE_DAYS:
        raise ValueError(f"expected {name} in 0..{SINCE_DAYS}, as far as observations count days, found {days}")
