"""The script that makes the sim of a card records what is missing, and fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from scripts import fit_sim
from sleepgym.schedulers.exploring import explorer_named
from sleepgym.sim.fit_files import load_fit


def test_what_is_recorded_suits_the_card() -> None:
    assert fit_sim.policies_of("SleepLLM-Notes-v0", ()) == fit_sim.NOTE_POLICIES
    assert fit_sim.policies_of("SleepLLM-v0", ()) == fit_sim.POLICIES
    assert fit_sim.policies_of("SleepLLM-v0", ("night-owl",)) == ("night-owl",)
    for policies in (fit_sim.POLICIES, fit_sim.NOTE_POLICIES):
        assert all(explorer_named(name) is not None for name in policies)


@pytest.mark.slow
def test_a_card_gets_a_sim_by_one_command_that_goes_on_where_it_stopped(
    run_script: Callable[..., str], quick_card: Path, tmp_path: Path
) -> None:
    arguments = ["--env", str(quick_card), "--episodes", "records", "--streams", "2"]
    arguments += ["--policies", "mix:1,3,1,1,1,1", "night-owl~0.5"]
    out = run_script("scripts/fit_sim.py", *arguments, "--out", "first.safetensors", cwd=tmp_path)
    assert "4 episodes, 0 of them recorded already" in out and "night.passes" in out
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert len(written) == 4
    out = run_script("scripts/fit_sim.py", *arguments, "--out", "second.safetensors", cwd=tmp_path)
    assert "4 episodes, 4 of them recorded already" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()} == written
    (first, card), (second, _) = (load_fit(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert card.policies == ("mix:1,3,1,1,1,1", "night-owl~0.5") and card.episodes == 4
    assert all((first.linear[name].weights == model.weights).all() for name, model in second.linear.items())
    envs = gym.make_vec("SleepSim-Mini-v0", num_envs=8, card=quick_card, fit=tmp_path / "first.safetensors")
    envs.reset(seed=0)
    envs.step([1] * 8)
