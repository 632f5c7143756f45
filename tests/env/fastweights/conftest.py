"""A small model without training, and environments on it: contracts do not depend on how well it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.registration import register
from sleepgym.fastweights import FastWeightModel, ModelSpec, Rule110, Trained, save_model

CARD = Path(__file__).parents[3] / "benchmarks" / "fastweights_card.toml"
ENV_ID = "FastWeights-Test-v0"


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of environments with a small model and few documents."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    task = Rule110(cells=5, deepest=2, queries=4)
    model = FastWeightModel(ModelSpec(task.vocabulary, 10, width=8, blocks=1, heads=1), seed=3)
    save_model(path, Trained(model, task))
    return {"model": {"file": str(path)}, "stream": {"documents": 3}}


@pytest.fixture
def env_id() -> Iterator[str]:
    """An id that is registered as those of cards are."""
    register(ENV_ID, "fastweights.env:FastWeightsEnv", "fastweights.vector:FastWeightsVectorEnv", card=str(CARD))
    yield ENV_ID
    del gym.registry[ENV_ID]


@pytest.fixture
def make(quick: dict[str, Any], env_id: str) -> Callable[..., FastWeightsEnv]:
    def made(**overrides: Any) -> FastWeightsEnv:
        env = gym.make(env_id, **(quick | overrides)).unwrapped
        assert isinstance(env, FastWeightsEnv)
        return env

    return made
