"""d3rlpy on the flat form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

d3rlpy = pytest.importorskip("d3rlpy", reason="d3rlpy is not installed: make test-clients")


def test_a_dqn_learns_online_and_from_what_was_recorded(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    d3rlpy.seed(0)
    env = make(flat=True)
    dqn = d3rlpy.algos.DQNConfig(batch_size=8).create(device="cpu:0")
    buffer = d3rlpy.dataset.create_fifo_replay_buffer(limit=1000, env=env)
    dqn.fit_online(env, buffer, n_steps=48, n_steps_per_epoch=24, update_start_step=24, show_progress=False)
    assert buffer.transition_count >= 40
    cql = d3rlpy.algos.DiscreteCQLConfig(batch_size=8).create(device="cpu:0")
    cql.fit(buffer, n_steps=8, n_steps_per_epoch=8, show_progress=False)
    score = d3rlpy.metrics.evaluate_qlearning_with_environment(cql, env, n_trials=1)
    assert np.isfinite(score)
