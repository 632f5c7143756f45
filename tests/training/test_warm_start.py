"""A cloned policy does what its teacher does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from sleepgym.episode.actions import Action
from sleepgym.evaluation import EpisodeResult, evaluate
from sleepgym.schedulers import NeverSleep, NightOwl
from sleepgym.training import Demonstrations, EnvSpec, LedgerExtractor, agreement, clone, demonstrate, joined

TEACHER = NightOwl()


@pytest.fixture(scope="module")
def spec(quick_card: Path) -> EnvSpec:
    return EnvSpec("SleepLLM-Mini-v0", str(quick_card))


@pytest.fixture(scope="module")
def lessons(spec: EnvSpec) -> Demonstrations:
    return demonstrate(spec, TEACHER, range(8))


@pytest.fixture(scope="module")
def results(spec: EnvSpec) -> list[EpisodeResult]:
    """The same episodes as those of the lessons, evaluated."""
    return evaluate(lambda: spec.make("train"), TEACHER, range(8))


@pytest.fixture(scope="module")
def unseen(spec: EnvSpec) -> Demonstrations:
    return demonstrate(spec, TEACHER, range(100, 104))


def make_model(spec: EnvSpec, algorithm: Any) -> Any:
    kwargs = {"features_extractor_class": LedgerExtractor}
    return algorithm("MultiInputPolicy", spec.training(1, 0, 0.05), policy_kwargs=kwargs, seed=0, device="cpu")


def test_demonstrations_are_the_episodes_of_the_teacher(lessons: Demonstrations, results: list[EpisodeResult]) -> None:
    assert lessons.actions.tolist() == [action for result in results for action in result.actions]
    assert len(lessons) == len(lessons.masks) == len(lessons.observations["ledger"])
    assert lessons.masks[np.arange(len(lessons)), lessons.actions].all()
    again, _ = TEACHER.predict(lessons.observations, action_masks=lessons.masks)
    assert np.array_equal(again, lessons.actions)


@pytest.mark.parametrize("algorithm", [MaskablePPO, PPO])
def test_the_clone_agrees_with_its_teacher_on_streams_it_has_not_seen(
    spec: EnvSpec, lessons: Demonstrations, unseen: Demonstrations, algorithm: Any
) -> None:
    model = make_model(spec, algorithm)
    before = agreement(model, unseen)
    learned = clone(model, lessons, epochs=60, rng=np.random.default_rng(0), batch_size=32)
    assert learned >= 0.95
    assert agreement(model, unseen) >= 0.8 > before


def test_courses_add_up_to_what_the_teacher_earned(lessons: Demonstrations, results: list[EpisodeResult]) -> None:
    for result in results:
        course = lessons.baselines[result.seed]
        assert course.shape == (13,) and course[0] == 0
        assert course[-1] == pytest.approx(result.episode_return, abs=1e-4)


def test_two_teachers_make_a_policy_undecided_where_they_differ(spec: EnvSpec, lessons: Demonstrations) -> None:
    idle = demonstrate(spec, NeverSleep(), range(100, 108))
    both = joined([lessons, idle])
    assert len(both) == len(lessons) + len(idle)
    assert both.baselines.keys() == lessons.baselines.keys() | idle.baselines.keys()
    assert np.array_equal(both.observations["stats"][len(lessons) :], idle.observations["stats"])
    nights = lessons.actions == Action.SLEEP
    assert nights.any()
    sure = []
    for taught in (lessons, both):
        model = make_model(spec, MaskablePPO)
        clone(model, taught, epochs=80, rng=np.random.default_rng(0), batch_size=32)
        tensors: Any = model.policy.obs_to_tensor({k: v[nights] for k, v in lessons.observations.items()})[0]
        with torch.no_grad():
            chances = model.policy.get_distribution(tensors, action_masks=lessons.masks[nights]).distribution.probs
        sure.append(float(chances[:, Action.SLEEP].mean()))
    # One of them sleeps there, and the other never does.
    assert 0.15 < sure[1] < sure[0] - 0.05


def test_an_entropy_bonus_leaves_something_to_be_tried(spec: EnvSpec, lessons: Demonstrations) -> None:
    doubts, agreed = [], []
    for entropy in (0.0, 0.3):
        model = make_model(spec, MaskablePPO)
        agreed.append(clone(model, lessons, 80, np.random.default_rng(0), batch_size=32, entropy=entropy))
        tensors: Any = model.policy.obs_to_tensor(lessons.observations)[0]
        with torch.no_grad():
            actions = torch.as_tensor(lessons.actions)
            _, log_prob, _ = model.policy.evaluate_actions(tensors, actions, action_masks=lessons.masks)
        open_steps = lessons.masks.sum(axis=1) > 1
        doubts.append(float(1 - log_prob.exp()[open_steps].mean()))
    assert doubts[1] > max(2 * doubts[0], 0.02)
    assert min(agreed) > 0.9


def test_cloning_is_the_same_for_the_same_draws(spec: EnvSpec, lessons: Demonstrations) -> None:
    values = []
    for _ in range(2):
        model = make_model(spec, MaskablePPO)
        clone(model, lessons, epochs=2, rng=np.random.default_rng(3))
        values.append(model.policy.action_net.weight.detach().numpy().copy())
    assert np.array_equal(*values)


def test_actions_with_parameters_are_cloned_whole(quick_card: Path, tmp_path: Path) -> None:
    card = tmp_path / "parameters.toml"
    card.write_text(quick_card.read_text() + "\n[parameters]\nfacts = [2, 4]\nsleep = [3, 6]\n")
    spec = EnvSpec("SleepLLM-Mini-v0", str(card))
    lessons = demonstrate(spec, NightOwl(), range(4))
    assert lessons.actions.shape == (len(lessons), 3) and lessons.masks.shape == (len(lessons), 6 + 2 + 2)
    written = lessons.actions[lessons.actions[:, 0] == Action.INJECT]
    assert len(written) and (written[:, 1] == 1).all(), "as many as the card's budget says"
    model = make_model(spec, MaskablePPO)
    assert clone(model, lessons, epochs=80, rng=np.random.default_rng(0), batch_size=16) > 0.9
