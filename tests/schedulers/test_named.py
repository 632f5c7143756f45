"""Schedulers by name: what a text means, and what is said about one that means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from sleepgym.schedulers import (
    FixedPeriod,
    LookAhead,
    NeverSleep,
    NightOwl,
    RandomScheduler,
    SchedulerNameError,
    known_schedulers,
    scheduler_named,
)
from sleepgym.schedulers.named import EVERY_RULE


@pytest.mark.parametrize("name", EVERY_RULE)
def test_a_name_alone_has_the_usual_numbers(name: str) -> None:
    assert scheduler_named(name) == EVERY_RULE[name]()
    assert name in known_schedulers()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("night-owl:load_at=0.05", NightOwl(load_at=0.05)),
        ("night-owl:load_at=5e-2,traffic_at=1,anyway_at=0", NightOwl(load_at=0.05, traffic_at=1, anyway_at=0)),
        ("fixed-period:days=0.75", FixedPeriod(days=0.75)),
        ("never-sleep:nap_days=0.5", NeverSleep(nap_days=0.5)),
        ("never-sleep:nap_days=none", NeverSleep()),
    ],
)
def test_numbers_follow_a_colon(text: str, expected: Any) -> None:
    assert scheduler_named(text) == expected


def test_random_draws_from_the_episodes_seed(short: Any) -> None:
    made = scheduler_named("random")(short(), 7)  # type: ignore[operator]
    assert isinstance(made, RandomScheduler)
    assert made.seed == 7


@pytest.mark.parametrize(
    ("text", "rule", "depth", "width"),
    [
        ("look-ahead:depth=16,width=3,rule=night-owl", NightOwl(), 16, 3),
        ("look-ahead:rule=night-owl", NightOwl(), LookAhead.depth, LookAhead.width),
        ("look-ahead:width=2,rule=night-owl:load_at=0.1,traffic_at=0.2", NightOwl(0.2, 0.1), LookAhead.depth, 2),
    ],
)
def test_look_ahead_is_made_from_its_environment(short: Any, text: str, rule: Any, depth: int, width: int) -> None:
    env = short()
    made = scheduler_named(text)(env, 0)  # type: ignore[operator]
    assert isinstance(made, LookAhead)
    assert (made.env, made.rule, made.depth, made.width) == (env, rule, depth, width)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nightowl", r"found 'nightowl'; known are .*night-owl \(traffic_at, load_at, anyway_at\).*random; look-ahead"),
        ("", "found ''"),
        ("night-owl:", r"field=number, found ''; known are night-owl \(traffic_at"),
        ("night-owl:load_at", "field=number, found 'load_at'"),
        ("night-owl:load=1", "field=number, found 'load=1'"),
        ("night-owl:load_at=much", "a number for night-owl:load_at, found 'much'"),
        ("night-owl:load_at=none", "a number for night-owl:load_at, found 'none'"),
        ("night-owl:load_at=inf", "a number for night-owl:load_at, found 'inf'"),
        ("night-owl:load_at=1,load_at=2", "load_at twice"),
        ("always-sleep:days=1", "known are none"),
        ("fixed-period:days=3", r"fixed-period:days=3: expected days in 0\.\.2"),
        ("random:seed=1", "without numbers"),
        ("look-ahead", "with a rule, as in look-ahead:rule=night-owl"),
        ("look-ahead:depth=3", "with a rule"),
        ("look-ahead:rule=night-owl,depth=3", "put rule=... last"),
        ("look-ahead:rule=random", "expected a scheduler, found 'random'"),
        ("look-ahead:depth=1.5,rule=night-owl", "a whole number for look-ahead:depth, found '1.5'"),
        ("look-ahead:width=0,rule=night-owl", "width of at least 1"),
        ("look-ahead:env=1,rule=night-owl", r"found 'env=1'; known are look-ahead \(depth, width, every\)"),
    ],
)
def test_what_means_nothing_is_an_error_that_says_what_is_known(text: str, said: str) -> None:
    with pytest.raises(SchedulerNameError, match=said):
        scheduler_named(text)
