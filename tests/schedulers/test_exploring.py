"""Policies that explore draw as their names say, from the seed of each episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sleepgym.episode.actions import Action
from sleepgym.schedulers import NightOwl, Scheduler, SchedulerNameError
from sleepgym.schedulers.exploring import explorer_named

ALL = np.ones(len(Action), bool)


def drawn(scheduler: Scheduler, seen: Any, mask: np.ndarray, times: int = 2000) -> np.ndarray:
    """Shares of the actions."""
    chosen = [scheduler.act(seen, mask) for _ in range(times)]
    return np.bincount(chosen, minlength=len(Action)) / times


def test_mixes_draw_by_weight_what_is_allowed(seen: Callable[..., Any]) -> None:
    mix = explorer_named("mix:1,3,0,0,4,0")(None, 0)  # type: ignore[operator]
    np.testing.assert_allclose(drawn(mix, seen(), ALL), [1 / 8, 3 / 8, 0, 0, 4 / 8, 0], atol=0.04)
    without = ALL.copy()
    without[Action.SLEEP] = False
    np.testing.assert_allclose(drawn(mix, seen(), without), [1 / 4, 3 / 4, 0, 0, 0, 0], atol=0.04)
    only = np.arange(len(Action)) == Action.NAP
    assert mix.act(seen(), only) == Action.NAP, "whatever its weight"


def test_a_rule_that_wanders_takes_a_random_action_in_a_share_of_the_steps(seen: Callable[..., Any]) -> None:
    rule = NightOwl().act(seen(), ALL)
    shares = drawn(explorer_named("night-owl~0.3")(None, 0), seen(), ALL)  # type: ignore[operator]
    assert shares[rule] == pytest.approx(0.7 + 0.3 / 6, abs=0.04)
    np.testing.assert_allclose(np.delete(shares, rule), 0.05, atol=0.03)


def test_equal_seeds_draw_equally(seen: Callable[..., Any]) -> None:
    one, other = (explorer_named("mix:1,1,1,1,1,1")(None, 5) for _ in range(2))  # type: ignore[operator]
    third = explorer_named("mix:1,1,1,1,1,1")(None, 6)  # type: ignore[operator]
    played = [[each.act(seen(), ALL) for _ in range(20)] for each in (one, other, third)]
    assert played[0] == played[1] != played[2]


def test_rules_are_themselves_and_mistakes_are_named() -> None:
    assert explorer_named("night-owl:load_at=0.05") == NightOwl(load_at=0.05)
    for text in ("mix:1,2", "mix:1,2,3,4,5,six", "night-owl~often", "owl~0.1"):
        with pytest.raises(SchedulerNameError, match="expected"):
            explorer_named(text)
