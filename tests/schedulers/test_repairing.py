"""Schedulers that audit and refresh, on observations made to sit on either side of their thresholds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sleepgym.env.observation import LEDGER_FEATURES
from sleepgym.episode.actions import Action
from sleepgym.schedulers import Mender, Rounds
from sleepgym.schedulers.repairing import unseen

Seen = Callable[..., dict[str, np.ndarray]]
Choice = Callable[..., Action]
RICH = {"budget_left": 0.9, "progress": 0.5}


def with_entries(observation: dict[str, np.ndarray], audited: int, new: int) -> dict[str, np.ndarray]:
    """The observation with so many facts that were audited since they were written, and so many that were not."""
    names = list(LEDGER_FEATURES)
    observation["ledger"][: audited + new, names.index("present")] = 1
    observation["ledger"][:audited, names.index("audited")] = 1
    return observation


def test_rounds_are_made_in_quiet_moments_and_lead_to_repairs(seen: Seen, choice: Choice) -> None:
    rule = Rounds(nap_days=0.5, nap_traffic=0.4, reserve=0.8, traffic_at=0.2, load_at=0.3)
    idle = (Action.INJECT, Action.REFRESH)
    assert choice(rule, seen(since_audit=1, traffic=0.4), *idle) == Action.NAP
    assert choice(rule, seen(since_audit=1, traffic=0.5), *idle) == Action.WAIT
    assert choice(rule, seen(since_audit=0.2, traffic=0.1), *idle) == Action.WAIT
    assert choice(rule, seen(**RICH, traffic=1)) == Action.REFRESH
    assert choice(rule, seen(budget_left=0.3, progress=0.5, traffic=1)) == Action.INJECT
    assert choice(rule, seen(**RICH, traffic=0.2, load=0.3)) == Action.SLEEP
    assert choice(rule, seen(**RICH, traffic=0.3, load=0.3)) == Action.REFRESH


def test_a_mender_audits_what_is_new_and_sleeps_where_repairs_are_not_enough(seen: Seen, choice: Choice) -> None:
    rule = Mender(unseen_at=0.2, degraded_at=0.3, fill_at=0.7, traffic_at=0.3, reserve=0.8)
    idle = (Action.INJECT, Action.REFRESH)
    new = with_entries(seen(ledger_fill=0.5, traffic=1), audited=1, new=1)
    assert unseen(new) == pytest.approx(0.25)
    assert choice(rule, new, *idle) == Action.NAP
    assert choice(rule, with_entries(seen(ledger_fill=0.5, traffic=1), audited=3, new=1), *idle) == Action.WAIT
    assert unseen(seen(ledger_fill=0.0)) == 0
    assert choice(rule, seen(**RICH, traffic=1, ledger_fill=0.5, degraded=0.1, load=0.5)) == Action.REFRESH
    worn = {"ledger_fill": 0.5, "degraded": 0.2, "load": 0.5}
    assert choice(rule, seen(**RICH, **worn, traffic=0.3)) == Action.SLEEP
    assert choice(rule, seen(**RICH, **worn, traffic=0.4)) == Action.REFRESH
    assert choice(rule, seen(traffic=0.1, ledger_fill=0.8, load=0.1)) == Action.SLEEP
    assert choice(rule, seen(traffic=0.1, ledger_fill=0.8, load=0.0)) != Action.SLEEP, "there is nothing to move"


@pytest.mark.parametrize("rule", [Rounds(), Mender()])
def test_a_crowded_ledger_is_pruned_before_more_is_written(rule: Rounds | Mender, seen: Seen) -> None:
    mask = np.ones(len(Action), bool)
    mask[[Action.SLEEP, Action.REFRESH]] = False
    observation = seen(ledger_fill=0.9, traffic=1)
    assert rule.act(observation, mask) == Action.PRUNE
    assert rule.act(seen(ledger_fill=0.7, traffic=1), mask) == Action.INJECT


def test_impossible_days_are_refused() -> None:
    with pytest.raises(ValueError, match="nap_days"):
        Rounds(nap_days=3)
