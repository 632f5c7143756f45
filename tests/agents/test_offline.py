"""Policies from a dataset alone: what was done is cloned, and implicit Q-learning prefers what was worth more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.training import load_policy

minari = pytest.importorskip("minari", reason="Minari is not installed: pip install 'minari[hdf5]'")

GOOD, BAD = 1, 0
"""Actions of the made-up task: one of them earns, and each is taken half of the time."""


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Always the same observation of SleepLLM-Mini-v0; action 1 is worth 1 more than action 0, and 4 is forbidden."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = gym.make("SleepLLM-Mini-v0")
    env.observation_space.seed(0)
    seen, rng, episodes = env.observation_space.sample(), np.random.default_rng(0), []
    for number in range(20):
        actions = rng.choice([GOOD, BAD], 10)
        episodes.append(
            minari.data_collector.EpisodeBuffer(
                id=number,
                observations={name: np.stack([part] * 11) for name, part in seen.items()},
                actions=actions,
                rewards=(actions == GOOD).astype(float),
                terminations=np.zeros(10, bool),
                truncations=np.arange(10) == 9,
                infos={"action_mask": np.tile(np.array([1, 1, 1, 1, 0, 1], np.int8), (11, 1))},
            )
        )
    minari.create_dataset_from_buffers("made/up-v0", episodes, env=env, eval_env=env, algorithm_name="coin")
    return "made/up-v0"


def test_cloning_does_what_was_done_and_iql_what_was_worth_more(
    call: Callable[..., str], dataset: str, tmp_path: Path
) -> None:
    shares = {}
    for algorithm in ("bc", "iql"):
        call(
            "offline",
            "--algorithm",
            algorithm,
            "--dataset",
            dataset,
            "--updates",
            "300",
            "--learning-rate",
            "0.003",
            "--out",
            algorithm,
        )
        model, card = load_policy(tmp_path / algorithm / "last.zip")
        assert (card.env_id, card.arguments["algorithm"]) == ("SleepLLM-Mini-v0", algorithm)
        assert card.steps == 0 and card.hours is not None and card.hours > 0
        (episode,) = list(minari.load_dataset(dataset).iterate_episodes([0]))
        policy: Any = model.policy
        tensors, _ = policy.obs_to_tensor(episode.observations)
        masks = episode.infos["action_mask"].astype(bool)
        with torch.no_grad():
            chances = policy.get_distribution(tensors, action_masks=masks).distribution.probs
        assert (chances[:, 4] < 1e-6).all()
        shares[algorithm] = float(chances[:, GOOD].mean())
    assert 0.3 < shares["bc"] < 0.7
    assert shares["iql"] > shares["bc"] + 0.2


def test_expectiles_lie_between_the_mean_and_the_maximum(script: Callable[[str], ModuleType], dataset: str) -> None:
    module = script("offline")
    steps = module.steps_of(minari.load_dataset(dataset), "cpu")
    assert len(steps.actions) == 200 and steps.ended.sum() == 20
    args = module.Args(gamma=0.0, reward_scale=1.0, expectile=0.9, learning_rate=1e-2, target=0.1, units=32)
    torch.manual_seed(0)
    critics = module.Iql(minari.load_dataset(dataset).observation_space, 6, args)
    for _ in range(150):
        critics.update(steps)
    # With values 0 and 1 at even odds, the expectile e of a state is e.
    assert critics.value(steps.observations).mean().item() == pytest.approx(0.9, abs=0.07)
