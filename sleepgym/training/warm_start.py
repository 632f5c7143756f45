"""Warm starts: behaviour cloning of hand-written schedulers before reinforcement learning."""

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
from sleepgym.evaluation import Maker, evaluate
from sleepgym.schedulers import Predictor
from sleepgym.training.envs import Baselines, EnvSpec


@dataclass(frozen=True)
class Demonstrations:
    """Observations and actions of a teacher.

    Attributes:
        observations: Observations ``[steps, ...]`` by name.
        masks: Allowed actions, bool ``[steps, actions]``.
        actions: Actions of the teacher, int64 ``[steps]``, or ``[steps, 3]`` on a card with parameters.
        baselines: Cumulative rewards of the teacher by seed; see :class:`~sleepgym.training.envs.RelativeReward`.
    """

    observations: dict[str, NDArray[np.float32]]
    masks: NDArray[np.bool_]
    actions: NDArray[np.int64]
    baselines: Baselines

    def __len__(self) -> int:
        return len(self.actions)


class _RecordingTeacher:
    """Wrapper of a teacher that records its observations, masks and actions in one episode."""

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
        """Returns the teacher's actions, and records them."""
        actions, state = self.teacher.predict(observation, state, action_masks=action_masks)  # type: ignore[call-arg]
        self.observations.append(observation)
        self.masks.append(np.asarray(action_masks, bool))
        self.actions.append(np.stack([self._complete(action) for action in actions]))
        return actions, state

    def demonstrations(self, seed: int) -> Demonstrations:
        """Returns the demonstrations of the finished episode."""
        names = self.observations[0]
        return Demonstrations(
            {name: np.concatenate([batch[name] for batch in self.observations]) for name in names},
            np.concatenate(self.masks),
            np.concatenate(self.actions),
            {seed: self._baseline()},
        )

    def _baseline(self) -> NDArray[np.float64]:
        """Returns the teacher's cumulative reward by tick, ``[horizon + 1]``; constant after a collapse."""
        history, traffic = self.episode.history, self.episode.stream.traffic
        ticks = map(Tick, traffic, history.served, history.perplexity_ratio)
        rewards = [sum(self.episode.reward([tick]).values()) for tick in ticks]
        return np.cumsum([0.0, *rewards, *[0.0] * (len(traffic) - len(rewards))])

    def _complete(self, action: Any) -> NDArray[np.int64]:
        """Completes an operator by the card's usual parameters, if the action space requires them."""
        if self.env.action_space.contains(action):
            return np.asarray(action, np.int64)
        return self.env.choices.usual(operator_of(action))


def demonstrate(spec: EnvSpec, teacher: Predictor | Maker, seeds: Sequence[int], slots: int = 16) -> Demonstrations:
    """Records a scheduler on streams of the split ``train``.

    Args:
        spec: The environment, with dictionary observations.
        teacher: Scheduler to record, or a factory of one per episode.
        seeds: Seeds of the streams; the steps are in their order.
        slots: Maximum number of parallel episodes.
    """
    recorders: dict[int, _RecordingTeacher] = {}

    def begin(env: SleepEnv, seed: int) -> Predictor:
        # One recorder per episode: a shared one would also be asked for actions of finished slots.
        recorders[seed] = _RecordingTeacher(teacher if isinstance(teacher, Predictor) else teacher(env, seed), env)
        return recorders[seed]

    evaluate(lambda: spec.make("train"), begin, seeds, slots)
    return joined([recorders[seed].demonstrations(seed) for seed in seeds])


def joined(parts: Sequence[Demonstrations]) -> Demonstrations:
    """Concatenates demonstrations, of one or several teachers.

    Args:
        parts: At least one, of episodes with different seeds.
    """
    return Demonstrations(
        {name: np.concatenate([part.observations[name] for part in parts]) for name in parts[0].observations},
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.actions for part in parts]),
        {seed: rewards for part in parts for seed, rewards in part.baselines.items()},
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
    """Fits a policy to demonstrations by cross-entropy over the allowed actions, or over all without mask support.

    The value function is not trained, so that the first reinforcement learning updates should be limited
    (``target_kl``).

    Args:
        model: The policy; its own optimiser is not used and keeps its state.
        demonstrations: Demonstrations to imitate.
        epochs: Passes over the demonstrations.
        rng: Source of the shuffling.
        batch_size: Steps per minibatch.
        learning_rate: Step size of Adam.
        entropy: Weight of an entropy bonus, which keeps exploration after cloning a deterministic teacher.

    Returns:
        Agreement with the demonstrations, see :func:`agreement`.
    """
    policy = model.policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    policy.set_training_mode(True)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(demonstrations)), -(-len(demonstrations) // batch_size)):
            observations = {name: values[rows] for name, values in demonstrations.observations.items()}
            tensors: Any = policy.obs_to_tensor(observations)[0]  # a dictionary; sb3-contrib's type hint lacks it
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
    """Returns the share of the demonstrated steps at which a policy's likeliest action is the teacher's."""
    masks = _masks(model, demonstrations.masks)
    actions, _ = model.predict(demonstrations.observations, deterministic=True, **masks)
    alike = (actions == demonstrations.actions).reshape(len(demonstrations), -1)
    return float(np.mean(alike.all(axis=1)))


def _masks(model: MaskablePPO | PPO, masks: NDArray[np.bool_]) -> dict[str, Any]:
    """Returns the keyword arguments for masks; none for policies without mask support."""
    return {"action_masks": masks} if isinstance(model, MaskablePPO) else {}
