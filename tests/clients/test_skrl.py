"""skrl."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("skrl", reason="skrl is not installed: make test-clients")

import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils.spaces.torch import unflatten_tensorized_space
from torch import nn

from sleepgym.env.wrappers import ActionMask, RecordSleepStatistics


class Policy(CategoricalMixin, Model):
    def __init__(self, env: Any) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        CategoricalMixin.__init__(self)
        self.net = nn.Linear(env.observation_space["observation"].shape[0], env.action_space.n)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        parts = unflatten_tensorized_space(self.observation_space, inputs["observations"])
        return self.net(parts["observation"]).masked_fill(parts["action_mask"] == 0, -1e9), {}


class Value(DeterministicMixin, Model):
    def __init__(self, env: Any) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = nn.Linear(self.num_observations, 1)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_a_masked_ppo_trains_on_a_vector(make_vec: Callable, forbidden: Callable, tmp_path: Path, mode: str) -> None:
    """Trainers step under ``no_grad`` or ``inference_mode``, where edits and nights need gradients of their own."""
    torch.manual_seed(0)
    name = "env_wrappers" if mode == "vector_entry_point" else "wrappers"
    wrappers = {name: [RecordSleepStatistics, ActionMask]}
    envs = make_vec(num_envs=2, flat=True, vectorization_mode=mode, **wrappers)
    env = wrap_env(envs, verbose=False)
    memory = RandomMemory(memory_size=16, num_envs=env.num_envs, device="cpu")
    cfg = PPO_CFG(rollouts=16, learning_epochs=2, mini_batches=2)
    cfg.experiment.directory, cfg.experiment.write_interval, cfg.experiment.checkpoint_interval = str(tmp_path), 0, 0
    models = {"policy": Policy(env), "value": Value(env)}
    agent = PPO(
        models=models, memory=memory, observation_space=env.observation_space, action_space=env.action_space,
        device="cpu", cfg=cfg,
    )  # fmt: skip
    before = models["policy"].net.weight.detach().clone()
    trainer = {"timesteps": 64, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=agent, cfg=trainer).train()
    assert not torch.equal(models["policy"].net.weight, before)
    assert [forbidden(one) for one in envs.envs] == [0, 0]


def test_dictionaries_and_vectors_are_laid_out(make: Callable) -> None:
    sizes = []
    for flat in (False, True):
        env = wrap_env(make(flat=flat), verbose=False)
        observations, _ = env.reset()
        for _ in range(4):
            observations, rewards, *_ = env.step(torch.zeros((1, 1), dtype=torch.int64))
            assert torch.isfinite(observations).all() and rewards.shape == (1, 1)
        sizes.append(observations.shape)
    assert sizes[0] == sizes[1]
