"""The record of an episode: how every fact stood at every tick."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sleepgym.env.observation import stat
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.history import History, Standing
from sleepgym.episode.stream import Arrival, Rhythm
from sleepgym.facts.fact import Fact

RHYTHM = Rhythm(12, night_start=8, night_ticks=4, arrival_rate=0.5, update_share=0.1, edit_budget=10)


def fact(name: str, home: str = "Rome") -> Fact:
    return Fact(name, f"{name} lives in", home, "home")


def test_each_way_a_fact_can_stand_is_told_from_the_others() -> None:
    env = SleepEnv("SleepLLM-Mini-v0", budget={"pending": 2})
    env.reset(seed=0)
    episode, inbox = env.episode, env.episode.inbox
    inbox.current.clear(), inbox.pending.clear()

    def arrive(*facts: Fact) -> None:
        inbox.arrive([Arrival(each, 0, 1.0) for each in facts])

    arrive(fact("Ann"), fact("Bob"))
    assert episode.standings() == "pp"
    inbox.mark_written([fact("Ann"), fact("Bob")])
    episode.examiner.note([fact("Ann"), fact("Bob")], torch.tensor([1.0, -1.0]))
    assert episode.standings() == "rw"
    arrive(fact("Cem"), fact("Dag"), fact("Eva"))
    assert episode.standings() == "rwlpp"
    # A change of what was written is outdated whether it waits or was lost, and keeps its place.
    arrive(fact("Ann", "Oslo"))
    assert episode.standings() == "owlpp".replace("p", "l", 1)
    arrive(fact("Fay"), fact("Gus"))
    assert episode.standings()[0] == Standing.OUTDATED


def test_the_record_agrees_with_infos_and_observations() -> None:
    little = {"steps": 4, "rehearsal_rows": 1, "validation_rows": 4}
    env = SleepEnv("SleepLLM-Mini-v0", edit={"steps": 4}, sleep=little, episode={"perplexity_rows": 4})
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=2)
    while not env.over:
        history, before = env.episode.history, env.episode
        count, lost, pressure = info["arrived"], info["lost"], stat(observation, "pressure")
        tick, action = info["tick"], Action(int(rng.choice(np.flatnonzero(info["action_mask"]))))
        observation, _, _, _, info = env.step(action)
        assert env.episode is before
        assert len(history) == info["tick"]
        # What the action changed is seen in its first tick already; a tick more and more facts are there.
        assert len(history.standings[tick]) == count
        assert history.offline[tick:] == [action in (Action.NAP, Action.SLEEP)] * (info["tick"] - tick)
        assert history.standings[tick].count(Standing.LOST) <= lost
        if action == Action.WAIT:
            assert history.pressure[tick] == pytest.approx(pressure)
    assert history.recall[-1] == history.standings[-1].count("r") / len(history.standings[-1])


def test_a_copy_is_equal_and_independent() -> None:
    history = History(RHYTHM)
    tick = {"doing": "WAIT", "offline": False, "arrivals": 1, "standings": "p", "served": 0.5}
    history.append(**tick, budget_left=1.0, pressure=0.1, perplexity_ratio=1.0)  # type: ignore[arg-type]
    copy = history.copy()
    assert copy == history
    copy.append(**tick, budget_left=1.0, pressure=0.1, perplexity_ratio=1.0)  # type: ignore[arg-type]
    assert (len(history), len(copy)) == (1, 2)


def test_before_the_first_fact_all_is_recalled() -> None:
    assert History(RHYTHM, ["WAIT"], [False], [0], [""], [1.0], [1.0], [0.0], [1.0]).recall == [1.0]


def test_lists_of_different_lengths_are_no_history() -> None:
    with pytest.raises(ValueError, match=r"expected one entry per tick .* found .*'doing': 1.*'offline': 0"):
        History(RHYTHM, ["WAIT"])
