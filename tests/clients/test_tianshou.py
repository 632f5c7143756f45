"""Tianshou."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("tianshou", reason="Tianshou is not installed: make test-clients")

import numpy as np
import torch
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

from sleepgym.env.wrappers import ActionMask, RecordSleepStatistics


def test_a_masked_dqn_trains_and_never_plays_what_is_forbidden(make: Callable, forbidden: Callable) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (Tianshou explores with it)
    made: list[Any] = []

    def masked() -> Any:
        made.append(ActionMask(RecordSleepStatistics(make(flat=True)), mask_key="mask", observation_key="obs"))
        return made[-1]

    one = masked()
    net = Net(state_shape=one.observation_space["obs"].shape, action_shape=one.action_space.n, hidden_sizes=[32])
    policy = DiscreteQLearningPolicy(model=net, action_space=one.action_space, eps_training=0.5, eps_inference=0.1)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), target_update_freq=10)
    training = Collector(algorithm, DummyVectorEnv([masked] * 2), VectorReplayBuffer(1000, 2), exploration_noise=True)
    test = Collector(algorithm, DummyVectorEnv([masked]))
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=training, test_collector=test, max_epochs=1, epoch_num_steps=64, batch_size=8,
            collection_step_num_env_steps=16, update_step_num_gradient_steps_per_sample=0.25, verbose=False,
            show_progress=False,
        )
    )  # fmt: skip
    assert [forbidden(env) for env in made[1:]] == [0, 0, 0]


def test_environments_in_processes_of_their_own(quick: dict[str, Any]) -> None:
    import gymnasium as gym

    envs = SubprocVectorEnv([lambda: gym.make("sleepgym:SleepLLM-Mini-v0", flat=True, **quick)] * 2, context="spawn")
    try:
        envs.seed([0, 1])
        observations, _ = envs.reset()
        for actions in ([0, 0], [1, 1], [4, 0]):
            observations, rewards, *_ = envs.step(np.array(actions))
        assert np.isfinite(observations).all() and np.isfinite(rewards).all()
        assert not np.array_equal(observations[0], observations[1])
    finally:
        envs.close()
