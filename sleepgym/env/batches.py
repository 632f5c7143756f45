"""Checks that vectors of every kind make before any of their environments moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.env.spaces import action_error


def actions_of(actions: Any, batch: spaces.Space[Any], count: int, single: spaces.Space[Any]) -> NDArray[Any]:
    """Returns the actions of a step as an array.

    Args:
        actions: One per environment.
        batch: Action space of the vector.
        count: Number of environments.
        single: Action space of each.

    Raises:
        ActionError: They are not in the action space.
    """
    try:
        chosen = np.asarray(actions)
    except ValueError:  # a ragged list
        chosen = np.asarray(None)
    if not batch.contains(chosen):
        raise action_error(f"expected {count} actions in {single}", actions)
    return chosen


def require_running(ended: Sequence[int]) -> None:
    """Checks that no episode has ended, where nothing resets those that have.

    Args:
        ended: Environments whose episodes have ended.

    Raises:
        gymnasium.error.ResetNeeded: There are any.
    """
    if ended:
        raise gym.error.ResetNeeded(
            f"expected running episodes, found that those of environments {list(ended)} have ended; "
            "call reset(options={'reset_mask': terminated | truncated})"
        )
