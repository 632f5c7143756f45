"""Validation keeps the best policy and stops when none gets better; the dashboard shows every episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sleepgym.episode.actions import Action
from sleepgym.evaluation import evaluate
from sleepgym.training import (
    CheckpointCallback,
    DashboardCallback,
    EnvSpec,
    LedgerExtractor,
    PolicyCard,
    ValidationCallback,
    load_policy,
    training_callbacks,
)
from sleepgym.training.callbacks import SimValidationCallback

MINI = "SleepLLM-Mini-v0"


def make_model(card: Path, algorithm: Any = MaskablePPO, **numbers: Any) -> Any:
    usual = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}
    extractor = {"features_extractor_class": LedgerExtractor}
    envs = EnvSpec(MINI, str(card)).training(2, 3, 0.05)
    return algorithm("MultiInputPolicy", envs, policy_kwargs=extractor, **(usual | numbers))


def policy_card(card: Path, algorithm: Any = "MaskablePPO") -> PolicyCard:
    return PolicyCard(algorithm=algorithm, env_id=MINI, card=str(card), seed=0, steps=0)


def test_training_stops_when_the_score_no_longer_rises(quick_card: Path, tmp_path: Path) -> None:
    model = make_model(quick_card, learning_rate=0.0)  # nothing is learned: no validation beats the first
    validation = ValidationCallback(policy_card(quick_card), [1000, 1001], every=8, folder=tmp_path, patience=2)
    model.learn(80, validation)
    assert model.num_timesteps == 24
    assert list(validation.scores) == [8, 16, 24] and len(set(validation.scores.values())) == 1
    assert PolicyCard.read(tmp_path / "best.zip").steps == 8


def test_without_patience_training_goes_on(quick_card: Path, tmp_path: Path) -> None:
    model = make_model(quick_card, learning_rate=0.0)
    model.learn(32, ValidationCallback(policy_card(quick_card), [1000], every=8, folder=tmp_path))
    assert model.num_timesteps == 32


@pytest.mark.parametrize("algorithm", [MaskablePPO, PPO])
def test_the_best_policy_is_the_one_that_was_validated(quick_card: Path, tmp_path: Path, algorithm: Any) -> None:
    model = make_model(quick_card, algorithm, learning_rate=0.05)
    card = policy_card(quick_card, algorithm.__name__)
    validation = ValidationCallback(card, [1000, 1001], every=8, folder=tmp_path)
    model.learn(24, validation)
    best, found = load_policy(tmp_path / "best.zip")
    assert found.validation_score == max(validation.scores.values()) == validation.scores[found.steps]
    assert type(best) is algorithm
    again = evaluate(lambda: found.spec.make("validation"), best, [1000, 1001])
    assert np.mean([result.score for result in again]) == pytest.approx(found.validation_score)


def test_a_better_policy_from_before_a_resume_is_not_replaced(quick_card: Path, tmp_path: Path) -> None:
    model = make_model(quick_card).learn(8)
    perfect = policy_card(quick_card).model_copy(update={"steps": 5, "validation_score": 1.0})
    perfect.save(model, tmp_path / "best.zip")
    before = PolicyCard.read(tmp_path / "best.zip")
    validation = ValidationCallback(policy_card(quick_card), [1000], every=8, folder=tmp_path, patience=1)
    model.learn(80, validation, reset_num_timesteps=False)
    assert model.num_timesteps == 16 and PolicyCard.read(tmp_path / "best.zip") == before


@pytest.mark.parametrize("resumed", [False, True])
def test_the_best_policy_of_another_run_or_environment_is_none_of_this_one(
    resumed: bool, quick_card: Path, tmp_path: Path
) -> None:
    model = make_model(quick_card).learn(8)
    other = policy_card(quick_card).model_copy(
        update={"validation_score": 1.0} | ({"card": "other"} if resumed else {})
    )
    other.save(model, tmp_path / "best.zip")
    validation = ValidationCallback(policy_card(quick_card), [1000], every=8, folder=tmp_path)
    model.learn(8, validation, reset_num_timesteps=not resumed)
    assert PolicyCard.read(tmp_path / "best.zip").validation_score == validation.best < 1.0


def test_patience_ends_training_in_the_sim_too(tmp_path: Path) -> None:
    card = PolicyCard(algorithm="PPO", env_id="SleepSim-v0", seed=1, steps=0)
    envs = card.spec.training(2, 1, 1.0)
    model = PPO("MultiInputPolicy", envs, n_steps=8, batch_size=16, learning_rate=0.0, device="cpu")
    validation = SimValidationCallback(card, [1000], every=16, folder=tmp_path, patience=2)
    model.learn(160, validation)
    assert model.num_timesteps == 48 and validation.without_gain == 2


def test_checkpoints_are_written_on_the_way_and_at_the_end(quick_card: Path, tmp_path: Path) -> None:
    model = make_model(quick_card)
    checkpoints = CheckpointCallback(policy_card(quick_card), every=10, folder=tmp_path)
    steps: list[int] = []
    checkpoints._save = lambda save=checkpoints._save: (save(), steps.append(checkpoints.num_timesteps))  # type: ignore[method-assign, misc]
    model.learn(24, checkpoints)
    assert steps == [10, 20, 24]
    assert PolicyCard.read(tmp_path / "last.zip").steps == load_policy(tmp_path / "last.zip")[0].num_timesteps == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.json", "last.zip"]


def test_dashboard_and_validation_write_what_they_say(quick_card: Path, tmp_path: Path) -> None:
    model = make_model(quick_card)
    model.set_logger(configure(str(tmp_path), ["tensorboard"]))
    callbacks = training_callbacks(
        policy_card(quick_card),
        tmp_path,
        save_every=16,
        eval_every=16,
        eval_episodes=2,
        eval_seed=1000,
        patience=0,
    )
    model.learn(32, callbacks)
    model.logger.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1, "tensorboard follows one file of a folder"
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    names = ["score", "recall", "edits_used", "sleeps", "naps", "ppl_ratio", "degraded", "gpu_or_cpu_seconds"]
    names += [f"action_frac/{action.name}" for action in Action]
    expected = {f"sleepgym/{name}" for name in names} | {
        f"eval/mean_{name}" for name in [*names, "reward", "ep_length"]
    }
    expected |= {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/value_loss", "train/approx_kl"}
    assert expected <= set(tags["scalars"])
    assert tags["images"] == ["eval/hypnogram"]
    assert {"card/text_summary", "policy/text_summary"} <= set(tags["tensors"])
    scores = {event.step: event.value for event in events.Scalars("eval/mean_score")}
    assert scores == pytest.approx(callbacks[2].scores)  # type: ignore[attr-defined]
    shares = [events.Scalars(f"sleepgym/action_frac/{action.name}") for action in Action]
    assert all(sum(event.value for event in episode) == pytest.approx(1) for episode in zip(*shares, strict=True))


def test_without_tensorboard_nothing_is_shown(quick_card: Path) -> None:
    callback = DashboardCallback(policy_card(quick_card))
    make_model(quick_card).learn(8, callback)
    assert callback.dashboard is None
