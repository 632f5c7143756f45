"""A script in the manner of CleanRL's, which is given an id and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

SCRIPT = "tests/clients/cleanrl_ppo.py"


def test_a_script_of_one_file_trains_on_the_flat_id(run_script: Callable[..., str], tmp_path: Path) -> None:
    arguments = "--env-id sleepgym:SleepLLM-Mini-Flat-v0 --num-envs 2 --num-steps 32 --total-timesteps 128 --no-cuda"
    printed = run_script(SCRIPT, *arguments.split(), cwd=tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss=(\S+)", printed)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    returns = [float(reward) for reward in re.findall(r"episodic_return=(\S+)", printed)]
    assert returns and np.isfinite(returns).all()
