"""Whatever decides is evaluated; what the mask forbids is counted, shown, and told once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import ActionError, ActionTypeError
from sleepgym.episode.actions import Action
from sleepgym.evaluation import EpisodeResult, episodes_sheet, evaluate, run_episode
from sleepgym.schedulers import NightOwl, Scheduler, SchedulerTypeError
from sleepgym.training.dashboard import figures_of_result

Make = Callable[..., SleepEnv]


class Pruner(Scheduler):
    """Prunes what cannot be pruned."""

    def act(self, observation: Any, mask: Any) -> Action:
        return Action.PRUNE


def prune(observation: Any, mask: Any) -> int:
    return 5


@pytest.mark.parametrize(
    "scheduler", [Pruner(), Pruner, prune, lambda env, seed: Pruner()], ids=["object", "class", "function", "maker"]
)
def test_forbidden_actions_are_counted_and_told_once(short: Make, scheduler: Any) -> None:
    with pytest.warns(
        UserWarning, match="expected allowed actions from .*, found PRUNE in the episode of seed 1"
    ) as told:
        results = evaluate(short, scheduler, [1, 2, 3], slots=2)
    assert len([each for each in told if "expected allowed actions" in str(each.message)]) == 1
    assert [result.invalid for result in results] == [len(result.actions) for result in results]
    assert all(result.invalid == 12 for result in results)


def test_who_keeps_to_the_mask_is_not_warned_of(short: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert run_episode(short(), NightOwl(), 1).invalid == 0


def test_policies_that_know_no_masks_are_counted_without_a_warning(short: Make) -> None:
    class Policy:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: Any = True
        ) -> Any:
            return np.full(len(episode_start), Action.PRUNE), state

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert run_episode(short(), Policy(), 1).invalid == 12


def test_they_are_shown_in_tables_and_figures(episode: Callable[..., EpisodeResult]) -> None:
    results = {"pruner": [episode(invalid=3), episode(seed=2, invalid=4)], "owl": [episode(), episode(seed=2)]}
    rows = json.loads(episodes_sheet(results, np.random.default_rng(0)).json())["rows"]
    assert {row["scheduler"]: row["invalid"] for row in rows} == {"pruner": 3.5, "owl": 0}
    assert figures_of_result(episode(invalid=3))["invalid"] == 3


def test_a_class_is_made_anew_for_every_episode(short: Make) -> None:
    made: list[Any] = []

    class Counting(Scheduler):
        def __init__(self) -> None:
            self.steps = 0
            made.append(self)

        def act(self, observation: Any, mask: Any) -> Action:
            self.steps += 1
            return Action.WAIT

    evaluate(short, Counting, [1, 2, 3], slots=2)
    assert [one.steps for one in made] == [12] * 3


@pytest.mark.parametrize(
    ("scheduler", "error", "message"),
    [
        (lambda observation, mask: "sleep", ActionTypeError, r"found 'sleep', a text; say Action\.SLEEP"),
        (lambda observation, mask: None, ActionTypeError, "found None"),
        (lambda observation, mask: 0.5, ActionTypeError, "found 0.5"),
        (lambda observation, mask: 6, ActionError, "found 6"),
        ("night-owl", SchedulerTypeError, "found 'night-owl'"),
        (lambda observation: 0, SchedulerTypeError, "expected a function of"),
        (lambda env, seed: "night-owl", SchedulerTypeError, "found 'night-owl'"),
    ],
)
def test_mistakes_are_told_in_words(short: Make, scheduler: Any, error: type[Exception], message: str) -> None:
    for play in (lambda: run_episode(short(), scheduler, 1), lambda: evaluate(short, scheduler, [1, 2])):
        with pytest.raises(error, match=message):
            play()


@pytest.mark.parametrize("answer", [None, 0, np.zeros(1, int), (np.zeros(1, int),), [np.zeros(1, int), None]])
def test_a_policy_answers_with_actions_and_a_state(short: Make, answer: Any) -> None:
    class Policy:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: Any = True
        ) -> Any:
            return answer

    with pytest.raises(ActionTypeError, match=r"expected predict\(\) of Policy to return actions and a state"):
        run_episode(short(), Policy(), 1)
