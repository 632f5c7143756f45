"""A small model without training, and environments on it: contracts do not depend on how well it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.fastweights import FastWeightModel, ModelSpec, Rule110, Trained, save_model

ENV_ID = "FastWeights-v0"


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of environments with a small model and few documents."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    task = Rule110(cells=5, deepest=2, queries=4)
    model = FastWeightModel(ModelSpec(task.vocabulary, 10, width=8, blocks=1, heads=1), seed=3)
    save_model(path, Trained(model, task))
    return {"model": {"file": str(path)}, "stream": {"documents": 3, "window_ticks": 8}}


@pytest.fixture
def env_id() -> str:
    """Id of the environment."""
    return ENV_ID


@pytest.fixture
def make(quick: dict[str, Any], env_id: str) -> Callable[..., FastWeightsEnv]:
    def made(**overrides: Any) -> FastWeightsEnv:
        env = gym.make(env_id, **(quick | overrides)).unwrapped
        assert isinstance(env, FastWeightsEnv)
        return env

    return made
