"""rl_zoo3: its scripts for training and watching, by id."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed: make test-clients")

ID = "SleepLLM-Mini-Flat-v0"
ROOT = Path(__file__).parents[2]


def zoo(folder: Path, script: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"rl_zoo3.{script}", "--env", ID, "--gym-packages", "sleepgym", "-f", "logs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(value: Any) -> str:
    """As Python, which is how rl_zoo3 reads a keyword's value."""
    return repr(value).replace(" ", "")


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_it_trains_and_plays(tmp_path: Path, quick: dict[str, Any], algorithm: str) -> None:
    own = {
        "ppo": "  n_steps: 16\n  batch_size: 16\n  normalize: true\n",
        "dqn": "  learning_starts: 8\n  batch_size: 8\n",
    }
    (tmp_path / "sleep.yml").write_text(
        f"{ID}:\n  n_envs: {2 if algorithm == 'ppo' else 1}\n  n_timesteps: !!float 64\n  policy: MlpPolicy\n"
        + own[algorithm],
        encoding="utf-8",
    )
    fewer = ["--env-kwargs", *(f"{section}:{written(values)}" for section, values in quick.items())]
    trained = zoo(tmp_path, "train", "--algo", algorithm, "--conf-file", "sleep.yml", "--seed", "1", *fewer)
    assert "Saving to logs" in trained
    assert (tmp_path / "logs" / algorithm / f"{ID}_1" / f"{ID}.zip").is_file()
    played = zoo(tmp_path, "enjoy", "--algo", algorithm, "-n", "30", "--no-render", *fewer)
    assert "Episode Reward" in played
