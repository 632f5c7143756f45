"""Minari."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("minari", reason="Minari is not installed: make test-clients")
pytest.importorskip("jax", reason="Minari's DataCollector needs jax: pip install 'minari[create]'")
pytest.importorskip("h5py", reason="Minari keeps data with h5py: pip install 'minari[hdf5]'")

import minari

from sleepgym.env.wrappers import ActionMask, RecordSleepStatistics


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: env,
        lambda env: ActionMask(env),
        lambda env: RecordSleepStatistics(env, every_step=True),
    ],
    ids=["plain", "mask", "statistics"],
)
@pytest.mark.parametrize("flat", [False, True], ids=["dictionary", "flat"])
def test_a_data_set_with_infos_is_recorded_and_read_back(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrap: Callable, flat: bool
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(wrap(make(flat=flat)), record_infos=True)
    lengths, scores = [], []
    for seed in (0, 1):
        _, info = env.reset(seed=seed)
        env.action_space.seed(seed)
        over, length = False, 0
        while not over:
            *_, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
            over, length = terminated or truncated, length + 1
        lengths.append(length)
        scores.append(info["score"])
    dataset = env.create_dataset("sleepllm/random-v0", algorithm_name="random")
    read = minari.load_dataset("sleepllm/random-v0")
    assert dataset.total_steps == read.total_steps == sum(lengths)
    for episode, length, score in zip(read.iterate_episodes(), lengths, scores, strict=True):
        assert len(episode.actions) == length
        infos: dict[str, Any] = episode.infos
        assert infos["action_mask"].shape == (length + 1, 6)
        assert infos["action_mask"][np.arange(length), episode.actions].all()
        assert infos["score"][-1] == score
    # The environment can be made again from what the data set holds of it.
    again = read.recover_environment()
    assert again.observation_space == env.observation_space
    assert again.unwrapped.card == env.unwrapped.card
    env.close()
