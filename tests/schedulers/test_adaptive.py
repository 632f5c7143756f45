"""Each rule on observations made to sit on either side of its thresholds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sleepgym.episode.actions import Action
from sleepgym.schedulers import BudgetAware, Drowsiness, NightOwl, PressureRule

Seen = Callable[..., dict[str, np.ndarray]]
Choice = Callable[..., Action]
IDLE = (Action.INJECT, Action.REFRESH)


def test_pressure_rule_naps_then_sleeps_as_pressure_rises(seen: Seen, choice: Choice) -> None:
    rule = PressureRule(nap_at=0.4, sleep_at=0.8, night_relief=0.0)
    assert choice(rule, seen(pressure=0.3, since_audit=1), *IDLE) == Action.WAIT
    assert choice(rule, seen(pressure=0.5, since_audit=1), *IDLE) == Action.NAP
    assert choice(rule, seen(pressure=0.5, since_audit=0), *IDLE) == Action.WAIT
    assert choice(rule, seen(pressure=0.5, since_audit=1)) == Action.INJECT
    assert choice(rule, seen(pressure=0.81, since_audit=0)) == Action.SLEEP
    assert choice(rule, seen(pressure=0.81, since_audit=0), Action.SLEEP) == Action.INJECT


def test_night_relief_makes_it_sleep_and_nap_earlier_by_night(seen: Seen, choice: Choice) -> None:
    rule = PressureRule(nap_at=0.4, sleep_at=0.8, night_relief=0.4)
    assert choice(rule, seen(pressure=0.5, night=1)) == Action.SLEEP
    assert choice(rule, seen(pressure=0.5, night=0)) == Action.INJECT
    assert choice(rule, seen(pressure=0.1, night=1, since_audit=1), *IDLE) == Action.NAP


def test_drowsiness_sleeps_when_audits_find_a_share_of_the_written_degraded(seen: Seen, choice: Choice) -> None:
    rule = Drowsiness(degraded_at=0.25, nap_days=0.5)
    # 3 and 2 of 10 written facts, in a ledger of 20.
    assert choice(rule, seen(degraded=3 / 20, ledger_fill=10 / 20)) == Action.SLEEP
    assert choice(rule, seen(degraded=2 / 20, ledger_fill=10 / 20)) == Action.INJECT
    assert choice(rule, seen(degraded=2 / 20, ledger_fill=10 / 20, since_audit=1), *IDLE) == Action.NAP
    assert choice(rule, seen(degraded=2 / 20, ledger_fill=10 / 20, since_audit=0.2), *IDLE) == Action.WAIT


def test_drowsiness_does_not_sleep_where_nothing_is_known_degraded(seen: Seen, choice: Choice) -> None:
    assert choice(Drowsiness(degraded_at=0.0), seen(ledger_fill=0.5)) == Action.INJECT
    assert choice(Drowsiness(), seen(), *IDLE) == Action.WAIT


def test_night_owl_sleeps_where_traffic_is_low_and_there_is_something_to_settle(seen: Seen, choice: Choice) -> None:
    owl = NightOwl(traffic_at=0.2, load_at=0.1, anyway_at=0.5)
    assert choice(owl, seen(traffic=0.2, load=0.11)) == Action.SLEEP
    assert choice(owl, seen(traffic=0.21, load=0.11)) == Action.INJECT
    assert choice(owl, seen(traffic=0.2, load=0.09)) == Action.INJECT
    assert choice(owl, seen(traffic=1, load=0.5)) == Action.SLEEP
    assert choice(owl, seen(traffic=0, load=0.4), Action.SLEEP, *IDLE) == Action.WAIT


def test_budget_aware_sleeps_as_the_owl_does(seen: Seen, choice: Choice) -> None:
    rule = BudgetAware(traffic_at=0.2, load_at=0.1)
    assert choice(rule, seen(traffic=0.2, load=0.11)) == Action.SLEEP
    assert choice(rule, seen(traffic=0.21, load=0.11)) == Action.INJECT


def test_budget_aware_repairs_and_naps_by_day_while_edits_are_plenty(seen: Seen, choice: Choice) -> None:
    rule = BudgetAware(nap_days=0.5, reserve=0.8)
    # Half of the episode is left: an even spending has half of the budget left, of which 0.8 are kept.
    rich = {"traffic": 1.0, "progress": 0.5, "budget_left": 0.41, "since_audit": 1.0}
    poor = rich | {"budget_left": 0.39}
    assert choice(rule, seen(**rich), Action.INJECT) == Action.REFRESH
    assert choice(rule, seen(**poor), Action.INJECT) == Action.WAIT
    assert choice(rule, seen(**rich), *IDLE) == Action.NAP
    assert choice(rule, seen(**poor), *IDLE) == Action.WAIT
    # At night, a nap would be a night's worth of time for nothing but a look.
    assert choice(rule, seen(**(rich | {"traffic": 0.1})), *IDLE) == Action.WAIT


def test_budget_aware_always_writes_what_arrives(seen: Seen, choice: Choice) -> None:
    assert choice(BudgetAware(), seen(traffic=1, budget_left=0.01)) == Action.INJECT
