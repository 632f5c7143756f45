"""The training scripts learn, validate, log, leave policies behind, and go on from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sleepgym.schedulers import NeverSleep, SchedulerNameError
from sleepgym.sim.fit import FitError
from sleepgym.sim.maker import FITS
from sleepgym.training import LedgerExtractor, PolicyCard, PolicyError, agreement, demonstrate, load_policy

MINI = "SleepLLM-Mini-v0"
SMALL = {
    "ppo": ("--n-steps", "8", "--batch-size", "16", "--epochs", "1", "--reward-scale", "0.05", "--warm-start"),
    "recurrent_ppo": ("--n-steps", "8", "--batch-size", "16", "--epochs", "1"),
    "dqn": ("--learning-starts", "16", "--batch-size", "16", "--gradient-steps", "1"),
}
LOSSES = {"ppo": "train/policy_gradient_loss", "recurrent_ppo": "train/policy_gradient_loss", "dqn": "train/loss"}


@pytest.fixture
def train(call: Callable[..., str], quick_card: Path) -> Callable[..., str]:
    """Trains on the quick card in the folder "run", with two environments."""

    def run(name: str, *arguments: str) -> str:
        few = ("--n-envs", "2", "--eval-episodes", "1", "--eval-every", "16", "--save-every", "16")
        where = ("--env-id", MINI, "--card", str(quick_card), "--out", "run")
        return call(name, *where, *few, *SMALL[name], *arguments)

    return run


@pytest.mark.parametrize(
    ("name", "algorithm", "arguments"),
    [
        ("ppo", "MaskablePPO", ()),
        ("ppo", "PPO", ("--algorithm", "plain", "--extractor", "flat", "--no-anneal")),
        ("recurrent_ppo", "RecurrentPPO", ()),
        ("dqn", "DQN", ()),
    ],
)
def test_a_script_leaves_policies_and_logs_and_resuming_goes_on(
    train: Callable[..., str],
    dashboard_of: Callable[[Path], EventAccumulator],
    tmp_path: Path,
    name: str,
    algorithm: str,
    arguments: tuple[str, ...],
) -> None:
    arguments = (*arguments, "--eval-every", "32", "--save-every", "32")
    train(name, "--total-steps", "64", *arguments)
    last, card = load_policy(tmp_path / "run" / "last.zip")
    assert (card.algorithm, card.steps, last.num_timesteps, card.flat) == (algorithm, 64, 64, name == "dqn")
    assert type(last).__name__ == algorithm
    assert card.arguments["total_steps"] == 64
    best = PolicyCard.read(tmp_path / "run" / "best.zip")
    assert best.steps in (32, 64) and best.validation_score is not None and 0 <= best.validation_score <= 1
    events = dashboard_of(tmp_path / "run")
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "eval/best_score", LOSSES[name]} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("eval/mean_score")] == [32, 64]
    shown = events.Tensors("policy/text_summary")
    assert json.loads(shown[-1].tensor_proto.string_val[0])["steps"] == best.steps

    shown = train(name, "--total-steps", "80", "--resume", "run/last.zip", *arguments)
    assert "run/last.zip" in shown
    again, card = load_policy(tmp_path / "run" / "last.zip")
    assert card.steps == again.num_timesteps == 80
    if name == "dqn":
        # The buffer begins empty: first, as many new steps as in the beginning.
        assert again.learning_starts == 64 + 16  # type: ignore[attr-defined]
    else:
        assert again._n_updates == 5, "one for every 16 steps"  # type: ignore[attr-defined]

    with pytest.raises(PolicyError, match=r"expected reward_scale .* was trained with, found reward_scale 0\.5"):
        train(name, "--total-steps", "96", "--resume", "run/last.zip", *arguments, "--reward-scale", "0.5")


def test_another_algorithm_cannot_go_on(train: Callable[..., str]) -> None:
    train("ppo", "--total-steps", "16", "--eval-episodes", "0", "--algorithm", "plain")
    for name, found in (("ppo", "MaskablePPO"), ("recurrent_ppo", "RecurrentPPO")):
        with pytest.raises(PolicyError, match=f"expected algorithm 'PPO' .* found algorithm '{found}'"):
            train(name, "--total-steps", "32", "--resume", "run/last.zip")


def test_streams_of_a_warm_start_are_none_of_the_test_streams(train: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="expected a seed below 1000, found 1000"):
        train("ppo", "--seed", "1000", "--warm-start", "never-sleep")


def test_the_extractor_is_a_switch(train: Callable[..., str], tmp_path: Path) -> None:
    for extractor, is_set in (("set", True), ("flat", False)):
        train("ppo", "--total-steps", "16", "--eval-episodes", "0", "--extractor", extractor)
        policy, _ = load_policy(tmp_path / "run" / "last.zip")
        assert isinstance(policy.policy.features_extractor, LedgerExtractor) is is_set  # type: ignore[union-attr]
        assert not (tmp_path / "run" / "best.zip").exists()


def test_equal_seeds_train_equal_policies(train: Callable[..., str], tmp_path: Path) -> None:
    weights = []
    for seed in ("3", "3", "4"):
        train("ppo", "--total-steps", "16", "--eval-episodes", "0", "--seed", seed)
        policy, _ = load_policy(tmp_path / "run" / "last.zip")
        weights.append(policy.policy.state_dict())
    same = [all((a == b).all() for a, b in zip(weights[0].values(), w.values(), strict=True)) for w in weights[1:]]
    assert same == [True, False]


def test_patience_ends_training_early(train: Callable[..., str], tmp_path: Path) -> None:
    train("ppo", "--total-steps", "96", "--learning-rate", "0", "--patience", "1")
    assert PolicyCard.read(tmp_path / "run" / "last.zip").steps == 32


def test_a_warm_start_says_how_far_it_agrees(train: Callable[..., str], tmp_path: Path) -> None:
    warm = ("--warm-start", "never-sleep", "--warm-episodes", "2", "--warm-epochs", "60")
    shown = train("ppo", "--total-steps", "16", "--eval-episodes", "0", *warm)
    [share] = re.findall(r"does what never-sleep did in ([\d.]+)% of \d+ steps", shown)
    assert float(share) > 80
    # Hardly moved by two updates: it does what it was taught.
    policy, card = load_policy(tmp_path / "run" / "last.zip")
    unseen = demonstrate(card.spec, NeverSleep(), [77])
    assert agreement(policy, unseen) > 0.8  # type: ignore[arg-type]


def test_rewards_are_relative_to_the_teacher_only_if_wanted(train: Callable[..., str]) -> None:
    warm = ("--warm-start", "never-sleep", "night-owl", "--warm-episodes", "2", "--warm-epochs", "1")
    for wanted in ("--relative", "--no-relative"):
        shown = train("ppo", "--total-steps", "32", "--eval-episodes", "0", wanted, *warm)
        assert "does what never-sleep, night-owl did" in shown
        assert ("relative_return" in shown) == (wanted == "--relative")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--env-id", "SleepSim-v0", "--warm-start", "night-owl"),
            "a real environment for a --warm-start, found SleepSim",
        ),
        (("--relative",), "a --warm-start with --relative, found none"),
        (("--init", "a.zip", "--resume", "b.zip"), "--init or --resume, found both"),
    ],
)
def test_what_cannot_be_had_together_is_refused(
    call: Callable[..., str], arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyCard, "resuming", lambda card, path, names: card)
    with pytest.raises(SystemExit, match=expected):
        call("ppo", *arguments)


def test_a_card_of_ones_own_trains_in_the_sim_with_a_fit(call: Callable[..., str], tmp_path: Path) -> None:
    few = ("--n-envs", "2", "--n-steps", "8", "--batch-size", "16", "--total-steps", "16", "--eval-episodes", "1")
    fit = str(FITS / "SleepLLM-v0.safetensors")
    with pytest.raises(FitError, match="sleepgym fit-sim"):
        call("ppo", "--env-id", "sleepgym:SleepSim-Night-v0", *few)
    call("ppo", "--env-id", "sleepgym:SleepSim-Night-v0", "--fit", fit, "--out", "run", *few)
    assert PolicyCard.read(tmp_path / "run" / "last.zip").arguments["fit"] == fit


def test_every_teacher_needs_an_episode(train: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="an episode for each of 2 schedulers, found 1"):
        train("ppo", "--warm-start", "never-sleep", "night-owl", "--warm-episodes", "1")


def test_an_unknown_teacher_is_reported(train: Callable[..., str]) -> None:
    with pytest.raises(SchedulerNameError, match="expected a scheduler, found 'owl'"):
        train("ppo", "--warm-start", "owl")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
def test_scripts_run_from_the_command_line_on_the_small_environment_itself(
    run_script: Callable[..., str], tmp_path: Path, name: str
) -> None:
    few = ("--n-envs", "4", "--eval-episodes", "2", "--eval-every", "256", "--save-every", "256")
    arguments = ("--env-id", MINI, "--total-steps", "512", "--out", "run", *few, *SMALL[name])
    run_script(f"agents/{name}.py", *arguments, cwd=tmp_path)
    assert PolicyCard.read(tmp_path / "run" / "last.zip").steps == 512


def test_a_policy_from_the_sim_goes_on_with_the_real_model(
    call: Callable[..., str], train: Callable[..., str], tmp_path: Path
) -> None:
    few = ("--n-envs", "4", "--n-steps", "8", "--batch-size", "16", "--epochs", "1", "--units", "16")
    when = ("--total-steps", "64", "--eval-every", "32", "--eval-episodes", "2", "--save-every", "32")
    call("ppo", "--env-id", "SleepSim-v0", "--out", "sim", *few, *when)
    card = PolicyCard.read(tmp_path / "sim" / "best.zip")
    assert card.validation_score is None, "a simulated score is none of the real environment"
    assert card.simulated_score is not None and 0 <= card.simulated_score <= 1
    log = EventAccumulator(str(tmp_path / "sim"))
    log.Reload()
    assert [event.step for event in log.Scalars("eval/simulated_score")] == [32, 64]
    assert "eval/mean_score" not in log.Tags()["scalars"]

    still = ("--total-steps", "16", "--eval-episodes", "0", "--units", "16", "--learning-rate", "0")
    train("ppo", *still, "--init", "sim/best.zip")
    (before, _), (after, _) = (load_policy(tmp_path / name) for name in ("sim/best.zip", "run/last.zip"))
    for name, weights in before.policy.state_dict().items():
        assert (weights == after.policy.state_dict()[name]).all(), name
