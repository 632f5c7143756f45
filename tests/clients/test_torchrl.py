"""TorchRL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torchrl", reason="TorchRL is not installed: make test-clients")

import gymnasium as gym
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, GymWrapper, ParallelEnv, TransformedEnv
from torchrl.envs.transforms import ActionMask as MaskActions
from torchrl.envs.utils import check_env_specs
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from sleepgym.env.wrappers import ActionMask, RecordSleepStatistics

ID = "sleepgym:SleepLLM-Mini-v0"


@pytest.mark.parametrize("flat", [False, True])
def test_an_id_is_enough_and_specs_hold(quick: dict[str, Any], flat: bool) -> None:
    env = GymEnv(ID, flat=flat, **quick)
    check_env_specs(env, seed=0)
    env.set_seed(3)
    one = env.rollout(12)
    env.set_seed(3)
    other = env.rollout(1)
    assert torch.equal(one["stats" if not flat else "observation"][0], other["stats" if not flat else "observation"][0])


def masked(make: Callable[..., gym.Env[Any, Any]]) -> EnvBase:
    env = ActionMask(RecordSleepStatistics(make(flat=True)))
    return TransformedEnv(GymWrapper(env, categorical_action_encoding=True), MaskActions())


def test_specs_hold_with_a_mask_and_random_actions_keep_to_it(make: Callable, forbidden: Callable) -> None:
    env = masked(make)
    check_env_specs(env, seed=0)
    env.rollout(60, break_when_any_done=False)
    assert forbidden(env.base_env._env) == 0


def test_a_collector_feeds_a_masked_ppo(make: Callable, forbidden: Callable) -> None:
    """Collectors step under ``no_grad``, where edits and nights still need gradients of their own."""
    torch.manual_seed(0)
    env = masked(make)
    size = env.observation_spec["observation"].shape[-1]
    logits = TensorDictModule(
        nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 6)), ["observation"], ["logits"]
    )
    actor = ProbabilisticActor(
        logits, in_keys={"logits": "logits", "mask": "action_mask"}, distribution_class=MaskedCategorical,
        return_log_prob=True, spec=env.action_spec,
    )  # fmt: skip
    critic = ValueOperator(nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 1)), in_keys=["observation"])
    loss, gae = ClipPPOLoss(actor, critic), GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer, steps = torch.optim.Adam(loss.parameters(), 1e-3), 0
    collector = Collector(env, actor, frames_per_batch=128, total_frames=512)
    for batch in collector:
        steps += batch.numel()
        taken = batch["action_mask"].gather(-1, batch["action"].unsqueeze(-1))
        assert taken.all()
        gae(batch)
        losses = loss(batch)
        total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert torch.isfinite(total)
    assert steps == 512
    assert batch["action"].unique().numel() > 2
    assert forbidden(env.base_env._env) == 0
    collector.shutdown()


def test_environments_in_processes_of_their_own(quick: dict[str, Any]) -> None:
    env = ParallelEnv(2, partial(GymEnv, ID, flat=True, **quick), mp_start_method="spawn")
    try:
        env.set_seed(0)
        rollout = env.rollout(8, break_when_any_done=False)
        assert rollout["observation"].shape[:2] == (2, 8)
        assert not torch.equal(rollout["observation"][0], rollout["observation"][1])
    finally:
        env.close(raise_if_closed=False)


@pytest.mark.parametrize("autoreset", ["SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_vectors_of_gymnasium_are_batches(make_vec: Callable, mode: str, autoreset: str) -> None:
    """TorchRL refuses the mode that is the usual one."""
    given = {"autoreset_mode": gym.vector.AutoresetMode[autoreset]}
    given = {"vector_kwargs": given} if mode == "sync" else given
    env = GymWrapper(make_vec(num_envs=2, vectorization_mode=mode, flat=True, **given))
    check_env_specs(env, seed=0)
    rollout = env.rollout(30, break_when_any_done=False)
    assert rollout.batch_size == (2, 30)
    assert rollout["next", "done"].any()
    assert np.isfinite(rollout["next", "reward"].numpy()).all()
