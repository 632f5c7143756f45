"""Players: schedulers and policies in one text form, for all command lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from sleepgym.env.wrappers import FlattenLedger, PadLedger
from sleepgym.evaluation import Maker
from sleepgym.leaderboard.own import PlayerNameError as PlayerNameError
from sleepgym.leaderboard.own import names_own, own_scheduler
from sleepgym.schedulers import Predictor, known_schedulers, scheduler_named
from sleepgym.schedulers.named import EVERY_RULE, LOOK_AHEAD, RANDOM, spelled_out
from sleepgym.training.policy_card import Algorithm, PolicyCard, PolicyError, load_policy, read_policy

ALGORITHMS: Mapping[str, Algorithm] = {
    "dqn": "DQN",
    "maskable-ppo": "MaskablePPO",
    "ppo": "PPO",
    "recurrent-ppo": "RecurrentPPO",
}
"""Algorithms by the prefix that names a policy without a card, as in ``ppo:PATH``."""

Wrap = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]
"""Function that wraps an environment so that its observations are those that a player expects."""


def identity(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Returns the environment unwrapped."""
    return env


@dataclass(frozen=True)
class Player:
    """Scheduler or policy to evaluate, with the wrappers that it needs.

    Attributes:
        name: Text form that it was parsed from.
        scheduler: Scheduler, policy, or factory of one per episode.
        wrap: Wraps environments so that their observations are those that it expects.
        policy: SHA-256 of the policy file; empty for a hand-written scheduler.
        rule: Text form of a hand-written scheduler with all fields, and of a user's own with the hash of its source;
            empty for a policy.
        card: Policy card; None for a hand-written scheduler or a policy without a card.
    """

    name: str
    scheduler: Predictor | Maker
    wrap: Wrap = identity
    policy: str = ""
    rule: str = ""
    card: PolicyCard | None = None

    @property
    def about(self) -> str:
        """Description for readers: the rule, the policy card, or else the name."""
        return self.rule or (self.name if self.card is None else self.card.about())


def policy_name(path: Path, parts: int = 2) -> str:
    """Returns what a policy is called in tables and folders: ``ppo-best`` for ``runs/ppo/best.zip``.

    Args:
        path: File of the policy.
        parts: How much of its path counts.
    """
    return "-".join(path.with_suffix("").parts[-parts:])


def player_named(text: str, env: gym.Env[Any, Any], device: str = "cpu") -> Player:
    """Parses the text form of a player and loads it.

    - ``night-owl`` or ``night-owl:load_at=0.05``: a scheduler, see :func:`~sleepgym.schedulers.scheduler_named`;
    - ``runs/ppo/best.zip``: a policy of Stable-Baselines3 with a policy card beside it;
    - ``siesta:Siesta`` or ``path/to/siesta.py:Siesta``: a user's own scheduler, its class, or a function, see
      :func:`~sleepgym.leaderboard.own.own_scheduler`;
    - ``maskable-ppo:best.zip``: a policy without a card, with one of :data:`ALGORITHMS`;
    - a folder: a checkpoint of RLlib as saved by ``agents/rllib_ppo.py`` (extra ``rllib``).

    A policy file is code: loading it unpickles parts of it, which can execute anything, and importing a module runs it.
    Load only files from people that you trust.

    Args:
        text: Text form of the player.
        env: Environment like those that it will be evaluated in, without wrappers that change observations or actions.
        device: Device of a policy's network.

    Raises:
        PlayerNameError: The text names no player.
        SchedulerNameError: A scheduler has no such field, or a value is invalid.
        PolicyError: A file is missing, is no policy, or is for another environment.
    """
    kind, _, rest = text.partition(":")
    if kind in (*EVERY_RULE, RANDOM, LOOK_AHEAD):
        return Player(text, scheduler_named(text), rule=spelled_out(text))
    if kind in ALGORITHMS:
        return _policy(text, Path(rest), read_policy(Path(rest), ALGORITHMS[kind], device=device), None, env)
    path = Path(text)
    if path.suffix == ".zip" and (":" not in text or path.is_file()):
        return _policy(text, path, *load_policy(path, device=device), env)
    if path.is_dir():
        # Ray is an extra, and takes long to load.
        from sleepgym.training.rllib import flat_and_masked, load_rllib_policy

        policy = load_rllib_policy(path)
        return Player(text, policy, flat_and_masked, policy.sha256)
    if names_own(text):
        plays, rule = own_scheduler(text)
        return Player(text, plays, rule=rule)
    raise PlayerNameError(
        f"expected a scheduler, or the path of a policy that ends in .zip, found {text!r}; known schedulers are "
        f"{known_schedulers()}; a policy without a card is named after its algorithm, as in maskable-ppo:PATH; known "
        f"algorithms are {', '.join(ALGORITHMS)}; a scheduler of your own is named after its module or file, as in "
        "siesta:Siesta or path/to/siesta.py:Siesta"
    )


def _policy(text: str, path: Path, policy: BaseAlgorithm, card: PolicyCard | None, env: gym.Env[Any, Any]) -> Player:
    return Player(text, policy, view_of(policy, env), hashlib.sha256(path.read_bytes()).hexdigest(), card=card)


def view_of(policy: BaseAlgorithm, env: gym.Env[Any, Any]) -> Wrap:
    """Returns the wrapper that gives an environment the spaces that a policy was trained with.

    Args:
        policy: Policy with the spaces of its training.
        env: Environment without wrappers that change observations or actions.

    Returns:
        :func:`identity` for dictionary observations, :class:`FlattenLedger` for vectors, :class:`PadLedger` if the
        ledger is smaller than in training.

    Raises:
        PolicyError: No wrapper gives these spaces.
    """
    if policy.action_space == env.action_space:
        if policy.observation_space == env.observation_space:
            return identity
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
    """Returns the number of ledger rows of an observation space; 0 without a ledger."""
    ledger = space.spaces.get("ledger") if isinstance(space, gym.spaces.Dict) else None
    return ledger.shape[0] if ledger is not None and ledger.shape else 0


def _shape(space: gym.Space[Any] | None) -> str:
    """Formats a space as its shape, since its bounds would be too long for a message."""
    if isinstance(space, gym.spaces.Dict):
        return "{" + ", ".join(f"{name}: {_shape(part)}" for name, part in space.items()) + "}"
    return str(list(space.shape)) if space is not None and space.shape is not None else str(space)
