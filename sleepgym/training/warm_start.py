"""Warm starts: behaviour cloning of a hand-written scheduler before a policy learns from its own steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import operator_of
from sleepgym.episode.reward import Tick
from sleepgym.evaluation import Maker, Predictor, evaluate
from sleepgym.training.envs import Baselines, EnvSpec


@dataclass(frozen=True)
class Demonstrations:
    """What a teacher saw and did.

    Attributes:
        observations: Arrays ``[steps, ...]`` by name.
        masks: What was allowed, bool ``[steps, actions]``.
        actions: What the teacher chose, as the environment takes it: int64 ``[steps]``, or ``[steps, 3]`` on a card
            with parameters.
        baselines: What the teacher earned in each episode; see :class:`~sleepgym.training.envs.RelativeReward`.
    """

    observations: dict[str, NDArray[np.float32]]
    masks: NDArray[np.bool_]
    actions: NDArray[np.int64]
    baselines: Baselines

    def __len__(self) -> int:
        return len(self.actions)


class _RecordingTeacher:
    """A teacher that writes down what it is asked and answers."""

    def __init__(self, teacher: Predictor, env: SleepEnv) -> None:
        self.teacher, self.env, self.episode = teacher, env, env.episode
        self.observations: list[dict[str, NDArray[np.float32]]] = []
        self.masks: list[NDArray[np.bool_]] = []
        self.actions: list[NDArray[np.int64]] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """As the teacher."""
        actions, state = self.teacher.predict(observation, state, action_masks=action_masks)  # type: ignore[call-arg]
        self.observations.append(observation)
        self.masks.append(np.asarray(action_masks, bool))
        self.actions.append(np.stack([self._complete(action) for action in actions]))
        return actions, state

    def lessons(self, seed: int) -> Demonstrations:
        """The episode, once it has ended."""
        names = self.observations[0]
        return Demonstrations(
            {name: np.concatenate([one[name] for one in self.observations]) for name in names},
            np.concatenate(self.masks),
            np.concatenate(self.actions),
            {seed: self._baseline()},
        )

    def _baseline(self) -> NDArray[np.float64]:
        """What the teacher had earned by each tick."""
        history, traffic = self.episode.history, self.episode.stream.traffic
        ticks = map(Tick, traffic, history.served, history.perplexity_ratio)  # none after a collapse
        earned = [sum(self.episode.reward([tick]).values()) for tick in ticks]
        return np.cumsum([0.0, *earned, *[0.0] * (len(traffic) - len(earned))])

    def _complete(self, action: Any) -> NDArray[np.int64]:
        """On a card with parameters, teachers may name the operator alone."""
        if self.env.action_space.contains(action):
            return np.asarray(action, np.int64)
        return self.env.choices.usual(operator_of(action))


def demonstrate(spec: EnvSpec, teacher: Predictor | Maker, seeds: Sequence[int], slots: int = 16) -> Demonstrations:
    """Lets a scheduler play streams of the split ``train``.

    Args:
        spec: The environment; observations are dictionaries.
        teacher: Who plays: a scheduler, or a function that makes one for an episode.
        seeds: Of the streams, in the order of which the steps are given.
        slots: Most episodes at once.
    """
    notebooks: dict[int, _RecordingTeacher] = {}

    def begin(env: SleepEnv, seed: int) -> Predictor:
        # One notebook per episode: in a shared one, slots that are done would go on being asked.
        notebooks[seed] = _RecordingTeacher(teacher if isinstance(teacher, Predictor) else teacher(env, seed), env)
        return notebooks[seed]

    evaluate(lambda: spec.make("train"), begin, seeds, slots)
    return joined([notebooks[seed].lessons(seed) for seed in seeds])


def joined(parts: Sequence[Demonstrations]) -> Demonstrations:
    """Several demonstrations as one, those of several teachers as if by one who is of several minds.

    Args:
        parts: At least one, of episodes with different seeds.
    """
    return Demonstrations(
        {name: np.concatenate([part.observations[name] for part in parts]) for name in parts[0].observations},
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.actions for part in parts]),
        {seed: earned for part in parts for seed, earned in part.baselines.items()},
    )


def clone(
    model: MaskablePPO | PPO,
    demonstrations: Demonstrations,
    epochs: int,
    rng: np.random.Generator,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    entropy: float = 0.0,
) -> float:
    """Fits a policy to demonstrations: cross-entropy over the allowed actions, or over all if it knows no masks.

    The value function is left alone, so that the first updates that follow should be careful ones (``target_kl``).

    Args:
        model: The policy; its own optimizer is not used, and keeps no momentum from here.
        demonstrations: What to imitate.
        epochs: Passes over them.
        rng: Shuffles them.
        batch_size: Steps in a minibatch.
        learning_rate: Step size of Adam.
        entropy: Weight of an entropy bonus. A teacher that never doubts makes a policy that never tries anything else,
            and what it does not try it cannot learn.

    Returns:
        See :func:`agreement`, on the demonstrations.
    """
    policy = model.policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    policy.set_training_mode(True)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(demonstrations)), -(-len(demonstrations) // batch_size)):
            observations = {name: values[rows] for name, values in demonstrations.observations.items()}
            tensors: Any = policy.obs_to_tensor(observations)[0]  # a dictionary, which sb3-contrib does not declare
            actions = torch.as_tensor(demonstrations.actions[rows], device=model.device)
            masks = _masks(model, demonstrations.masks[rows])
            _, log_prob, spread = policy.evaluate_actions(tensors, actions, **masks)
            optimizer.zero_grad()
            loss = -log_prob.mean()
            if entropy:
                assert spread is not None, "the distribution of discrete actions has one"
                loss = loss - entropy * spread.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
            optimizer.step()
    policy.set_training_mode(False)
    return agreement(model, demonstrations)


def agreement(model: MaskablePPO | PPO, demonstrations: Demonstrations) -> float:
    """Share of the demonstrated steps at which a policy does what the teacher did."""
    masks = _masks(model, demonstrations.masks)
    actions, _ = model.predict(demonstrations.observations, deterministic=True, **masks)
    alike = (actions == demonstrations.actions).reshape(len(demonstrations), -1)
    return float(np.mean(alike.all(axis=1)))


def _masks(model: MaskablePPO | PPO, masks: NDArray[np.bool_]) -> dict[str, Any]:
    """What only a policy with masks is to be given."""
    return {"action_masks": masks} if isinstance(model, MaskablePPO) else {}
