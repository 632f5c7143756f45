"""A shadow knows of a real episode what the sim would, and a planner on it acts in the real environment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.schedulers import NightOwl, SimPlanner
from sleepgym.schedulers.sim_look_ahead import SimLookAhead
from sleepgym.sim.observation import observations
from sleepgym.sim.recorder import Policy
from sleepgym.sim.response import Response
from sleepgym.sim.shadow import Shadow, ShadowError
from tests.sim.conftest import NOTES

CARDS = {
    "mini": {"episode": {"days": 3}},
    "harmful": {"sleep": {"max_perplexity_ratio": 1.0, "max_recall_drop": 0.0}, "budget": {"edits": [3.0, 4.0]}},
    "spaced": {"sleep": {"facts": 3, "spacing": 4, "settled": 4}, "budget": {"edits": [3.0, 4.0]}},
    "noted": {
        "notes": NOTES,
        "stream": {"arrival_rate": [0.8, 1.0], "update_share": [0.3, 0.5]},
        "budget": {"capacity": 6, "inject": 2, "edits": [3.0, 4.0]},
        "sleep": {"refresh": False},
    },
    "chosen": {"parameters": {"facts": [1, 2, 4], "sleep": [1, 3, 5]}},
}


@pytest.mark.parametrize("name", CARDS)
def test_a_shadow_sees_what_the_episode_shows(
    name: str, mini: Callable[..., SleepEnv], busy: Callable[[int], Policy], wear: Response
) -> None:
    env, policy = mini(**CARDS[name]), busy(3)
    observation, _ = env.reset(seed=3)
    shadow = Shadow(env, wear)
    while not env.over:
        action = policy(observation, env.action_masks())
        observation, *_, info = env.step(action)
        shadow.follow(env.choices.of(action))
        moment = shadow.snapshot()
        seen = observations(shadow.setting, moment.streams, moment.state)
        for part, values in observation.items():
            np.testing.assert_allclose(seen[part][0], values, atol=1e-6, err_msg=part)
        assert moment.ended[0] == env.over
    assert shadow._episodes.score[0] == pytest.approx(info["score"], rel=1e-9)


def test_a_shadow_that_lost_its_episode_says_so(mini: Callable[..., SleepEnv], wear: Response) -> None:
    env = mini()
    env.reset(seed=0)
    shadow = Shadow(env, wear)
    env.step(Action.WAIT)
    env.step(Action.WAIT)
    with pytest.raises(ShadowError, match=r"taken WAIT, at tick 1 .*found \(2, 0, 0\); plan for every step"):
        shadow.follow(env.choices.of(Action.WAIT))
    with pytest.raises(ShadowError, match="at its beginning, found tick 2; reset it first"):
        Shadow(env, wear)


def test_a_planner_in_the_sim_acts_in_a_real_episode(mini: Callable[..., SleepEnv], wear: Response) -> None:
    env = mini()
    planner = SimLookAhead(env, SimPlanner(NightOwl(load_at=0.05), draws=2, ticks=8), wear)
    scores = []
    for seed in (0, 1, 0):
        observation, info = env.reset(seed=seed)
        actions = []
        while not env.over:
            mask = env.action_masks()
            actions.append(int(planner.predict(observation, action_masks=mask)[0]))
            assert mask[actions[-1]]
            observation, *_, info = env.step(actions[-1])
        scores.append((info["score"], tuple(actions)))
    assert scores[0][0] != scores[1][0] and len(set(scores[0][1])) > 2
    assert scores[2][0] > 0, "it starts anew with each episode"
