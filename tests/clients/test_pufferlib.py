"""PufferLib's emulation.

PufferLib pins an older gymnasium than sleepgym runs on; its emulation works with the newer one. So it is
installed without what it requires.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pufferlib", reason="PufferLib is not installed: make test-clients")

import pufferlib.emulation
import pufferlib.vector

from sleepgym.env.wrappers import ActionMask


def emulated(make: Callable, buf: Any = None, seed: int = 0) -> Any:
    env = ActionMask(make(flat=True), dtype="float32")
    return pufferlib.emulation.GymnasiumPufferEnv(env, buf=buf, seed=seed)


@pytest.mark.parametrize("backend", ["Serial", "Multiprocessing"])
def test_rows_give_the_mask_back_and_masked_actions_are_allowed(make: Callable, backend: str) -> None:
    workers = {"num_workers": 2} if backend == "Multiprocessing" else {}
    envs = pufferlib.vector.make(
        partial(emulated, make), num_envs=2, backend=getattr(pufferlib.vector, backend), **workers
    )
    try:
        observations, _ = envs.reset(seed=0)
        rng, ended, actions = np.random.default_rng(0), 0, set()
        for _ in range(16):
            parts = observations.view(envs.driver_env.obs_dtype)
            masks = parts["action_mask"].reshape(2, -1)
            assert masks.shape == (2, 6) and masks[:, 0].all()
            chosen = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks], np.int32)
            observations, rewards, terminals, truncations, _ = envs.step(chosen)
            assert np.isfinite(rewards).all()
            ended += int((terminals | truncations).sum())
            actions |= set(chosen.tolist())
        assert ended >= 2 and len(actions) > 2
    finally:
        envs.close()
