"""The planner above the ladder: it tries actions in the sim, and follows trained policies and a rule from there on.

    sleepgym leaderboard benchmarks.planner:planner --streams 32 --slots 1
    sleepgym leaderboard benchmarks.planner:planner --env-id SleepLLM-Notes-v0 --streams 20 --slots 1

It knows the stream of its episode and what the model answers at every moment: an upper reference, not a contestant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import gymnasium as gym

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.leaderboard.players import player_named
from sleepgym.schedulers import SimLookAhead, SimPlanner
from sleepgym.sim.maker import setting_and_response
from sleepgym.sim.response import Response

FOLLOWED = ("agents/pretrained/ppo-1.zip", "agents/pretrained/ppo-2.zip", "pressure-rule")
"""Players by whose decisions it judges an action."""

ELSEWHERE: Mapping[str, Sequence[str]] = {
    "SleepLLM-Notes-v0": ("agents/pretrained/notes/ppo-1.zip", "note-first:popular_at=0.2")
}
"""The same in environments whose observations or actions are others."""


@cache
def planning(
    env_id: str,
    follows: Sequence[str],
    draws: int = 16,
    ticks: int = 40,
    without: Sequence[Action] = (),
    fit: Path | None = None,
) -> tuple[SimPlanner, Response]:
    """Returns the planner, and what stands in for the model in its branches.

    Args:
        env_id: Id of the environment.
        follows: Players that it follows: the first after every action that it tries; that one of the others takes over
            for good is tried as well.
        draws: Simulated futures of an action.
        ticks: Length of each in ticks.
        without: Actions that it never takes.
        fit: File of the fit; None for the one that is shipped.
    """
    env = gym.make(env_id)
    rule, *others = (player_named(text, env).scheduler for text in follows)
    _, response = setting_and_response(env_id, fit, {})
    return SimPlanner(rule, others, draws=draws, ticks=ticks, without=without), response


def planner(env: SleepEnv, seed: int) -> SimLookAhead:
    """Makes the planner for an episode of an environment of this package."""
    return SimLookAhead(env, *planning(env.card_id, ELSEWHERE.get(env.card_id, FOLLOWED)))
