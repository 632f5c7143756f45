"""Windows: what people see, and what happens where there is no display."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action

MINI = "SleepLLM-Mini-v0"
Screen = list[NDArray[np.uint8]]


def test_people_see_every_moment_as_it_is_drawn(screen: Screen) -> None:
    watched, drawn = SleepEnv(MINI, render_mode="human"), SleepEnv(MINI, render_mode="rgb_array")
    expected = []
    for env in (watched, drawn):
        env.reset(seed=0)
        expected.append(drawn.render() if env is drawn else None)
        env.step(Action.WAIT)
    expected = [expected[-1], drawn.render()]
    assert len(screen) == 2
    for seen, picture in zip(screen, expected, strict=True):
        assert np.array_equal(seen, picture)
    assert watched.render() is None
    assert np.array_equal(screen[-1], screen[-2])


def test_closing_twice_changes_nothing_and_the_next_reset_opens_a_window(screen: Screen) -> None:
    env = SleepEnv(MINI, render_mode="human")
    env.close()
    env.reset(seed=0)
    assert len(plt.get_fignums()) == 1
    env.close()
    env.close()
    assert plt.get_fignums() == []
    env.reset(seed=0)
    assert len(plt.get_fignums()) == 1
    assert len(screen) == 2


def test_each_environment_has_a_window_of_its_own(screen: Screen) -> None:
    one, other = (SleepEnv(MINI, render_mode="human") for _ in range(2))
    one.reset(seed=0), other.reset(seed=0)
    assert len(plt.get_fignums()) == 2
    one.close()
    assert len(plt.get_fignums()) == 1


def test_a_window_that_was_closed_by_its_user_stays_closed(screen: Screen) -> None:
    env = SleepEnv(MINI, render_mode="human")
    env.reset(seed=0)
    plt.close("all")
    env.step(Action.WAIT)
    assert len(screen) == 1
    assert plt.get_fignums() == []


def test_what_a_fork_does_is_not_shown(screen: Screen) -> None:
    env = SleepEnv(MINI, render_mode="human")
    env.reset(seed=0)
    fork = env.fork()
    fork.step(Action.WAIT)
    fork.close()
    assert fork.render_mode is None
    assert len(screen) == 1
    env.step(Action.WAIT)
    assert len(screen) == 2


def test_without_a_window_people_are_told_what_to_do() -> None:
    plt.switch_backend("agg")
    with pytest.raises(DependencyNotInstalled, match=r"expected a display .* found .*'agg'.* use .*rgb_array"):
        SleepEnv(MINI, render_mode="human").reset(seed=0)
    assert plt.get_fignums() == []


def test_a_toolkit_without_a_display_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**arguments: object) -> None:
        raise ImportError("Cannot load backend 'TkAgg' as 'headless' is currently running")

    monkeypatch.setattr(plt, "figure", refuse)
    with pytest.raises(DependencyNotInstalled, match=r"found Cannot load backend 'TkAgg'.* use .*rgb_array"):
        SleepEnv(MINI, render_mode="human").reset(seed=0)


def test_an_environment_without_a_mode_says_so() -> None:
    env = SleepEnv(MINI)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None
    with pytest.raises(ValueError, match=r"render_mode in .*'human'.*'rgb_array'.*'ansi'.*found 'movie'"):
        SleepEnv(MINI, render_mode="movie")
