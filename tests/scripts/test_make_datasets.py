"""The script that records real episodes for offline learning goes on where it stopped; datasets hold what was seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tyro
from safetensors.numpy import load_file

minari = pytest.importorskip("minari", reason="Minari is not installed: pip install 'minari[hdf5]'")


@pytest.fixture
def call(
    load_script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """What the script prints when called in an empty folder."""
    module = load_script("scripts/make_datasets.py")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        module.main(tyro.cli(module.Args, args=arguments))
        return capsys.readouterr().out

    return run


def test_episodes_are_recorded_once_and_datasets_hold_them(
    call: Callable[..., str], quick_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    arguments = ["--env-id", "SleepLLM-Mini-v0", "--card", str(quick_card), "--players", "random=random"]
    arguments += ["owl=night-owl", "--high", "owl", "--parts", "parts"]
    out = call(*arguments, "--episodes", "1")
    assert "2 episodes, 0 of them played already" in out
    for name in ("random", "owl", "mixed"):
        minari.delete_dataset(f"sleepgym/SleepLLM-Mini-v0/{name}-v0")
    out = call(*arguments, "--episodes", "2")
    assert "4 episodes, 2 of them played already" in out
    assert "is there already" in call(*arguments, "--episodes", "2")

    sets = {name: minari.load_dataset(f"sleepgym/SleepLLM-Mini-v0/{name}-v0") for name in ("random", "owl", "mixed")}
    for name in ("random", "owl"):
        assert sets[name].total_episodes == 2
        for episode, seed in zip(sets[name].iterate_episodes(), (50_000, 50_001), strict=True):
            part = load_file(tmp_path / "parts" / "SleepLLM-Mini-v0" / name / f"{seed}.safetensors")
            steps = len(part["actions"])
            assert (episode.actions == part["actions"]).all() and (episode.rewards == part["rewards"]).all()
            assert episode.observations["ledger"].shape[0] == steps + 1
            masks = episode.infos["action_mask"][:-1]
            assert masks[np.arange(steps), episode.actions].all(), "nothing forbidden was played"
            assert episode.infos["sleep"]["length"][-1] == steps
            assert (episode.truncations | episode.terminations).nonzero()[0].tolist() == [steps - 1]
    # A share of each, on different streams.
    mixed = list(sets["mixed"].iterate_episodes())
    assert (mixed[0].rewards == next(sets["random"].iterate_episodes()).rewards).all()
    assert (mixed[1].rewards == list(sets["owl"].iterate_episodes())[1].rewards).all()
    returns = [[episode.rewards.sum() for episode in sets[name].iterate_episodes()] for name in ("random", "owl")]
    metadata = sets["mixed"].storage.metadata
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == pytest.approx(tuple(map(np.mean, returns)))
    assert sets["mixed"].recover_environment().observation_space == sets["mixed"].observation_space
    # Episodes of another player or card are not taken for these.
    other = [text.replace("owl=night-owl", "owl=never-sleep") for text in arguments]
    with pytest.raises(SystemExit, match="what never-sleep plays, found episodes of another player"):
        call(*other, "--episodes", "2")
    with pytest.raises(SystemExit, match="what random plays, found episodes of another card"):
        call(*[text for text in arguments if text not in ("--card", str(quick_card))], "--episodes", "2")


def test_reference_scores_of_nobody_are_refused(call: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="expected players as NAME=PLAYER, random and ppo"):
        call("--players", "random=random")
