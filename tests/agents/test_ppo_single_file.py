"""PPO in one file trains in the sim, goes on from what it wrote, and its policies play."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sleepgym.evaluation import simulate
from sleepgym.sim.maker import setting_and_response

SMALL = ("--num-envs", "4", "--num-steps", "8", "--minibatches", "2", "--epochs", "1", "--units", "16")


@pytest.fixture
def train(call: Callable[..., str]) -> Callable[..., str]:
    return lambda *arguments: call("ppo_single_file", *SMALL, *arguments)


@pytest.fixture
def module(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("ppo_single_file")


def test_it_trains_and_goes_on_and_plays(train: Callable[..., str], module: ModuleType, tmp_path: Path) -> None:
    train("--total-steps", "96", "--out", "first")
    about = json.loads((tmp_path / "first" / "policy.json").read_text(encoding="utf-8"))
    assert (about["steps"], about["arguments"]["units"]) == (96, 16)
    train("--total-steps", "32", "--out", "second", "--load", "first", "--learning-rate", "0")
    one, two = (module.Player(tmp_path / name) for name in ("first", "second"))
    for mine, other in zip(one.agent.parameters(), two.agent.parameters(), strict=True):
        assert torch.equal(mine, other), "a learning rate of 0 changes nothing"
    setting, response = setting_and_response("SleepLLM-v0", None, {"episode": {"days": 1}})
    results = simulate(setting, response, one, seeds=range(3))
    assert all(0 <= result.score <= 1 and result.invalid == 0 for result in results)


def test_equal_seeds_train_equal_policies(train: Callable[..., str], module: ModuleType, tmp_path: Path) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        train("--total-steps", "32", "--out", name, "--seed", seed)
    a, b, c = (list(module.Player(tmp_path / name).agent.parameters()) for name in "abc")
    assert all(torch.equal(mine, other) for mine, other in zip(a, b, strict=True))
    assert not all(torch.equal(mine, other) for mine, other in zip(a, c, strict=True))


def test_forbidden_actions_are_never_drawn(module: ModuleType) -> None:
    torch.manual_seed(0)
    agent = module.Agent(11, 21, 6, 16)
    mask = torch.tensor([[True, False, True, False, False, False]]).expand(500, -1)
    policy, _ = agent(torch.rand(500, 60, 11), torch.rand(500, 21), mask)
    assert set(policy.sample().tolist()) == {0, 2}
    assert np.isfinite(policy.entropy().detach().numpy()).all()
