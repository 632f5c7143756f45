"""Players: schedulers and policies, named by a text in one way everywhere."""

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
from sleepgym.errors import SleepGymError
from sleepgym.evaluation import Maker, Predictor
from sleepgym.schedulers import known_schedulers, scheduler_named
from sleepgym.schedulers.named import LOOK_AHEAD, RANDOM, RULES, spelled_out
from sleepgym.training.policy_card import Algorithm, PolicyCard, PolicyError, read_policy

ALGORITHMS: Mapping[str, Algorithm] = {
    "dqn": "DQN",
    "maskable-ppo": "MaskablePPO",
    "ppo": "PPO",
    "recurrent-ppo": "RecurrentPPO",
}
"""What can stand before the colon of a policy without a card, and the class that saved it."""

Wrap = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]
"""Shows a player an environment as it wants to see it."""


class PlayerNameError(SleepGymError, ValueError):
    """A text names no player."""


def identity(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wraps nothing."""
    return env


@dataclass(frozen=True)
class Player:
    """A scheduler or a policy, ready to be evaluated.

    Attributes:
        name: Text that named it.
        scheduler: What decides.
        wrap: Shows it the environment as it wants to see it.
        policy: SHA-256 of its file; empty for a hand-written scheduler.
        rule: A hand-written scheduler with all of its numbers; empty for a policy.
        card: What lies beside a policy, if anything does.
    """

    name: str
    scheduler: Predictor | Maker
    wrap: Wrap = identity
    policy: str = ""
    rule: str = ""
    card: PolicyCard | None = None

    @property
    def about(self) -> str:
        """What a reader wants to know of it."""
        return self.rule or (self.name if self.card is None else self.card.about())


def player_named(text: str, env: gym.Env[Any, Any], device: str = "cpu") -> Player:
    """The player that a text names.

    - ``night-owl`` or ``night-owl:load_at=0.05``: a scheduler, see :func:`~sleepgym.schedulers.scheduler_named`;
    - ``runs/ppo/best.zip``: a policy of Stable-Baselines3; the card beside it says how it was trained;
    - ``maskable-ppo:best.zip``: one without a card, after one of :data:`ALGORITHMS`;
    - a folder: a checkpoint of RLlib, as ``agents/rllib_ppo.py`` keeps it (extra ``rllib``).

    A policy file is code: loading it unpickles parts of it, and what is unpickled can do anything. Name only files that
    you or people you trust have made.

    Args:
        text: The name.
        env: Made as those are that it is going to play in, without wrappers that change observations or actions.
        device: Where a policy's network is to be.

    Raises:
        PlayerNameError: Nothing is called so.
        SchedulerNameError: A scheduler has no such number.
        PolicyError: A file is missing, no policy, or for another environment.
    """
    kind, _, rest = text.partition(":")
    if kind in (*RULES, RANDOM, LOOK_AHEAD):
        return Player(text, scheduler_named(text), rule=spelled_out(text))
    if kind in ALGORITHMS:
        return _policy(text, Path(rest), ALGORITHMS[kind], None, env, device)
    path = Path(text)
    if path.suffix == ".zip" and (":" not in text or path.is_file()):
        card = PolicyCard.read(path)
        return _policy(text, path, card.algorithm, card, env, device)
    if path.is_dir():
        # Ray is an extra, and takes long to load.
        from sleepgym.training.rllib import flat_and_masked, load_rllib_policy

        policy = load_rllib_policy(path)
        return Player(text, policy, flat_and_masked, policy.sha256)
    raise PlayerNameError(
        f"expected a scheduler, or the path of a policy that ends in .zip, found {text!r}; known schedulers are "
        f"{known_schedulers()}; a policy without a card is named after its algorithm, as in maskable-ppo:PATH; known "
        f"algorithms are {', '.join(ALGORITHMS)}"
    )


def _policy(
    text: str, path: Path, algorithm: Algorithm, card: PolicyCard | None, env: gym.Env[Any, Any], device: str
) -> Player:
    policy = read_policy(path, algorithm, device=device)
    return Player(text, policy, view_of(policy, env), hashlib.sha256(path.read_bytes()).hexdigest(), card=card)


def view_of(policy: BaseAlgorithm, env: gym.Env[Any, Any]) -> Wrap:
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
    """Rows of the ledger, if the space has one."""
    ledger = space.spaces.get("ledger") if isinstance(space, gym.spaces.Dict) else None
    return ledger.shape[0] if ledger is not None and ledger.shape else 0


def _shape(space: gym.Space[Any] | None) -> str:
    """A space without its bounds, which would fill pages."""
    if isinstance(space, gym.spaces.Dict):
        return "{" + ", ".join(f"{name}: {_shape(part)}" for name, part in space.items()) + "}"
    return str(list(space.shape)) if space is not None and space.shape is not None else str(space)
