"""Making an environment loads what an episode needs: training, the terminal and pictures are loaded by their users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEAVY = ("accelerate", "peft", "PIL", "pydantic", "safetensors", "scipy", "tokenizers", "torch", "transformers")
"""Not loaded by `import sleepgym`, which registers environments and no more."""

UNNEEDED = (
    "bitsandbytes", "datasets", "gguf", "matplotlib", "pandas", "peft", "ray", "rich", "sb3_contrib", "sklearn",
    "stable_baselines3", "tensorboard", "tyro",
)  # fmt: skip
"""Not loaded to play an episode either."""

OF_SIMS = {"pydantic", "rich", "safetensors", "scipy"}
"""Needed for cards, tables, fits and intervals: what else is heavy belongs to a model, and a sim has none."""

IMPORT = "import sleepgym"
EPISODE = """
import gymnasium as gym
import sleepgym
env = gym.make("SleepLLM-Mini-v0")
env.reset(seed=0)
env.step(0)
"""
SIMULATED = """
import gymnasium as gym
import sleepgym
from sleepgym.evaluation import simulate, stratified_bootstrap
from sleepgym.schedulers import scheduler_named
env = gym.make("SleepSim-v0")
rule = scheduler_named("night-owl")
observation, info = env.reset(seed=0)
env.step(rule.predict(observation, action_masks=info["action_mask"])[0])
"""
# What torch and transformers load of what they find installed is theirs to choose.
STOCK = f"""
import gymnasium, numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = {str(ROOT / "sleepgym" / "lm" / "tiny")!r}
AutoModelForCausalLM.from_pretrained(folder)
AutoTokenizer.from_pretrained(folder)
"""


def loaded_by(code: str, after: str = "") -> set[str]:
    """Top-level modules that some code loads in a fresh interpreter, or in one that has run other code before."""
    now = "{name.partition('.')[0] for name in sys.modules}"
    report = (
        f"import json, sys\n{after}\nbefore = {now if after else 'set()'}\n{code}\nprint(json.dumps([*{now} - before]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", report], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def after_import() -> set[str]:
    return loaded_by(IMPORT)


@pytest.fixture(scope="module")
def after_a_step() -> set[str]:
    return loaded_by(EPISODE, after=STOCK)


@pytest.fixture(scope="module")
def after_a_simulated_step() -> set[str]:
    return loaded_by(SIMULATED)


@pytest.mark.parametrize("package", sorted({*HEAVY, *UNNEEDED}))
def test_importing_sleepgym_does_not_load(package: str, after_import: set[str]) -> None:
    assert package not in after_import


@pytest.mark.parametrize("package", UNNEEDED)
def test_a_step_of_an_environment_does_not_load(package: str, after_a_step: set[str]) -> None:
    assert "sleepgym" in after_a_step
    assert package not in after_a_step


@pytest.mark.parametrize("package", sorted({*HEAVY, *UNNEEDED} - OF_SIMS))
def test_a_step_of_a_sim_does_not_load(package: str, after_a_simulated_step: set[str]) -> None:
    assert package not in after_a_simulated_step
