"""Policies as people write them: an algorithm and a path, as in ``maskable-ppo:runs/ppo/best.zip``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from sleepgym.env.wrappers import FlattenLedger, PadLedger
from sleepgym.leaderboard.playing import as_it_is
from sleepgym.training.policy_card import Algorithm, PolicyError, read_policy

ALGORITHMS: Mapping[str, Algorithm] = {
    "dqn": "DQN",
    "maskable-ppo": "MaskablePPO",
    "ppo": "PPO",
    "recurrent-ppo": "RecurrentPPO",
}
"""What can stand before the colon, and the class that saved the policy."""


def policy_named(text: str, device: str = "cpu") -> tuple[BaseAlgorithm, str]:
    """Loads the policy that a text names; unlike :func:`~sleepgym.training.load_policy`, without a card beside it.

    A policy file is code: Stable-Baselines3 unpickles parts of it, and what is unpickled can do anything. Load only
    files that you or people you trust have made.

    Args:
        text: ``ALGORITHM:PATH``.
        device: Where its network is to be.

    Returns:
        The policy, and the SHA-256 of its file.

    Raises:
        PolicyError: The algorithm is unknown, or the file is missing or no policy of it.
    """
    algorithm, _, name = text.partition(":")
    if algorithm not in ALGORITHMS:
        raise PolicyError(f"expected ALGORITHM:PATH with one of {', '.join(ALGORITHMS)}, found {text!r}")
    path = Path(name)
    policy = read_policy(path, ALGORITHMS[algorithm], device=device)
    return policy, hashlib.sha256(path.read_bytes()).hexdigest()


def view_of(policy: BaseAlgorithm, env: gym.Env[Any, Any]) -> Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]:
    """What shows a policy an environment as it saw the one that it was trained in.

    Args:
        policy: Knows the spaces that it was trained with.
        env: Without wrappers that change observations or actions.

    Returns:
        What to wrap such environments in: nothing for dictionaries, :class:`FlattenLedger` for vectors,
        :class:`PadLedger` where the ledger is smaller than it was in training.

    Raises:
        PolicyError: It was trained with other spaces.
    """
    if policy.action_space == env.action_space:
        if policy.observation_space == env.observation_space:
            return as_it_is
        if policy.observation_space == FlattenLedger(env).observation_space:
            return FlattenLedger
        if 0 < _rows(env.observation_space) < (rows := _rows(policy.observation_space)):
            padded = partial(PadLedger, rows=rows)
            if padded(env).observation_space == policy.observation_space:
                return padded
    raise PolicyError(
        f"expected a policy for observations {_shape(env.observation_space)}, as they are or as one vector, and "
        f"actions {env.action_space}, found one for {_shape(policy.observation_space)} and {policy.action_space}; "
        "play it where it was trained"
    )


def _rows(space: gym.Space[Any] | None) -> int:
    """Rows of the ledger, if the space has one."""
    ledger = space.spaces.get("ledger") if isinstance(space, gym.spaces.Dict) else None
    return ledger.shape[0] if ledger is not None and ledger.shape else 0


def _shape(space: gym.Space[Any] | None) -> str:
    """A space without its bounds, which would fill pages."""
    if isinstance(space, gym.spaces.Dict):
        return "{" + ", ".join(f"{name}: {_shape(part)}" for name, part in space.items()) + "}"
    return str(list(space.shape)) if space is not None and space.shape is not None else str(space)
