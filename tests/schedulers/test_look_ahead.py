"""LookAhead: it improves on its rule, sees what is better, and leaves its environment alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.evaluation import evaluate, run_episode
from sleepgym.schedulers import AlwaysSleep, LookAhead, NightOwl, Scheduler

Make = Callable[..., SleepEnv]
SIX_TICKS: dict[str, Any] = {"known_facts": 2, "ticks_per_day": 6, "night_start": [0, 5], "night_ticks": [1, 2]}


@dataclass(frozen=True)
class Always(Scheduler):
    """Does one thing where it is allowed."""

    action: Action = Action.WAIT

    def act(self, observation: Any, mask: Any) -> Action:
        return self.action if mask[self.action] else Action.WAIT


@pytest.mark.parametrize("rule", [Always(), pytest.param(AlwaysSleep(), marks=pytest.mark.slow)], ids=["wait", "sleep"])
def test_looking_ahead_to_the_end_never_does_worse_than_the_rule(short: Make, rule: Scheduler) -> None:
    """Each step keeps the best of futures that are played out, one of which is the rule's own."""
    for seed in (1, 3):
        own = run_episode(short(), rule, seed)
        ahead = run_episode(short(), lambda env, _: LookAhead(env, rule, depth=12, width=4, every=1), seed)
        assert ahead.episode_return >= own.episode_return - 1e-6
        assert ahead.episode_return > own.episode_return + 0.5


def test_it_writes_what_waits_where_its_rule_would_never(short: Make) -> None:
    env = short()
    observation, _ = env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        observation, *_ = env.step(Action.WAIT)
    ahead = LookAhead(env, Always(Action.WAIT), depth=6)
    assert ahead.predict(observation, action_masks=env.action_masks())[0] == Action.INJECT
    # With no other branch than the rule's there is nothing to find.
    alone = LookAhead(env, Always(Action.WAIT), depth=6, width=1)
    assert alone.predict(observation, action_masks=env.action_masks())[0] == Action.WAIT


def test_it_stays_awake_where_its_rule_would_sleep_through_questions(short: Make) -> None:
    env = short()
    observation, _ = env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        observation, *_ = env.step(Action.WAIT)
    observation, *_ = env.step(Action.INJECT)
    sleepy = Always(Action.SLEEP)
    assert sleepy.predict(observation, action_masks=env.action_masks())[0] == Action.SLEEP
    assert LookAhead(env, sleepy, depth=3).predict(observation, action_masks=env.action_masks())[0] != Action.SLEEP


def test_its_environment_is_left_alone(short: Make) -> None:
    """Trajectories with and without looking ahead at every step are the same, bit for bit."""

    def trajectory(looking: bool) -> list[Any]:
        env, rule = short(), NightOwl(load_at=0.01)
        observation, info = env.reset(seed=3)
        out, over = [(observation, info)], False
        while not over:
            mask = env.action_masks()
            if looking:
                LookAhead(env, rule, depth=2, width=2).predict(observation, action_masks=mask)
            observation, reward, terminated, truncated, info = env.step(
                int(rule.predict(observation, action_masks=mask)[0])
            )
            out.append((observation, reward, terminated, truncated, info))
            over = terminated or truncated
        # The next episode is part of it: random draws of the environment itself.
        return [*out, env.reset()]

    assert data_equivalence(trajectory(looking=True), trajectory(looking=False), exact=True)


def test_where_nothing_is_better_it_does_what_its_rule_does(short: Make) -> None:
    worthless = short(reward={"served": 0.0, "drift": 0.0, "invalid": 0.0})
    rule = NightOwl(load_at=0.01)
    own = run_episode(worthless, rule, 3)
    ahead = run_episode(worthless, lambda env, _: LookAhead(env, rule, depth=1, width=3, every=1), 3)
    assert ahead.actions == own.actions
    assert Action.SLEEP in own.actions


def test_slots_do_not_change_what_it_does(short: Make) -> None:
    def results(slots: int) -> list[Any]:
        played = evaluate(
            lambda: short(stream=SIX_TICKS),
            lambda env, seed: LookAhead(env, NightOwl(), depth=1, width=2, every=1),
            [1, 3],
            slots,
        )
        return [(result.actions, round(result.score, 6)) for result in played]

    assert results(1) == results(2)


def test_it_plans_on_a_card_with_parameters(short: Make) -> None:
    env = short(stream=SIX_TICKS, parameters={"facts": [1, 4], "sleep": [3, 6]})
    plain = run_episode(
        short(stream=SIX_TICKS), lambda env, _: LookAhead(env, NightOwl(), depth=1, width=2, every=1), 1
    )
    rich = run_episode(env, lambda env, _: LookAhead(env, NightOwl(), depth=1, width=2, every=1), 1)
    assert [np.ravel(action)[0] for action in rich.actions] == list(plain.actions)


@pytest.mark.parametrize("reach", [{"depth": 0}, {"width": 0}, {"every": 0}])
def test_a_branch_of_no_ticks_and_no_branches_are_errors(short: Make, reach: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LookAhead(short(), NightOwl(), **reach)


class Forgetful(LookAhead):
    """Follows its rule anew at every decision."""

    def act(self, observation: Any, mask: Any) -> Action:
        self._plan = ()
        return super().act(observation, mask)


def test_what_was_followed_to_the_end_before_need_not_be_followed_again(short: Make) -> None:
    """The same actions come of it, with fewer steps of branches."""
    rule, reach = NightOwl(load_at=0.01), {"depth": 12, "width": 2, "every": 1}
    actions, steps = [], []
    for kind in (LookAhead, Forgetful):
        env, counted = short(stream=SIX_TICKS), 0
        plain = type(env).step

        def step(self: SleepEnv, action: Any, plain: Any = plain) -> Any:
            nonlocal counted
            counted += 1
            return plain(self, action)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(env), "step", step)
            played = run_episode(env, lambda env, _, kind=kind: kind(env, rule, **reach), 1)
        actions.append(played.actions)
        steps.append(counted)
    assert actions[0] == actions[1]
    assert steps[0] < 0.75 * steps[1]


def test_between_its_attempts_it_does_what_its_rule_does(short: Make) -> None:
    env = short()
    observation, _ = env.reset(seed=1)
    while not env.action_masks()[Action.INJECT]:
        observation, *_ = env.step(Action.WAIT)
    ahead = LookAhead(env, Always(Action.WAIT), depth=6, every=2)
    chosen = [int(ahead.predict(observation, action_masks=env.action_masks())[0]) for _ in range(4)]
    assert chosen == [Action.INJECT, Action.WAIT, Action.INJECT, Action.WAIT]
