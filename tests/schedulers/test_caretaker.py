"""Caretaker: thresholds decide in order, alone and in batches."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES, FeatureNameError, stats_column
from sleepgym.episode.actions import Action
from sleepgym.schedulers import Caretaker, Scheduler
from sleepgym.schedulers.caretaker import RANGES, decisions

ALL = np.ones(len(Action), bool)
NEVER = {
    "sleep_traffic": 0.2, "sleep_load": 1.0, "anyway_load": 2.0, "prune_fill": 1.0, "inject_pending": 1.0,
    "refresh_share": 0.1, "refresh_reserve": 2.0, "nap_days": 1.0, "nap_load": 0.0, "nap_traffic": 1.0,
    "nap_reserve": 2.0,
}  # fmt: skip
"""Thresholds that nothing below reaches; each case lowers some of them."""


def seen(**stats: float) -> dict[str, np.ndarray]:
    values = {"traffic": 1.0, "budget_left": 0.5, "progress": 0.5, **stats}
    return {
        "ledger": np.zeros((4, len(LEDGER_FEATURES)), np.float32),
        "stats": np.array([values.get(name, 0.0) for name in STATS_FEATURES], np.float32),
    }


@pytest.mark.parametrize(
    ("thresholds", "stats", "action"),
    [
        ({}, {}, Action.WAIT),
        ({"sleep_load": 0.3, "sleep_traffic": 0.2}, {"load": 0.3, "traffic": 0.2}, Action.SLEEP),
        ({"sleep_load": 0.3, "sleep_traffic": 0.2}, {"load": 0.3, "traffic": 0.3}, Action.WAIT),
        ({"anyway_load": 0.8}, {"load": 0.8}, Action.SLEEP),
        ({"prune_fill": 0.5}, {"ledger_fill": 0.6}, Action.PRUNE),
        ({"inject_pending": 0.5}, {"pending": 0.5}, Action.INJECT),
        ({"inject_pending": 0.5}, {"pending": 0.4}, Action.WAIT),
        ({"refresh_reserve": 0.9, "refresh_share": 0.1}, {"degraded": 0.1, "ledger_fill": 0.9}, Action.REFRESH),
        ({"refresh_reserve": 0.9, "refresh_share": 0.2}, {"degraded": 0.1, "ledger_fill": 0.9}, Action.WAIT),
        ({"refresh_reserve": 1.1, "refresh_share": 0.1}, {"degraded": 0.1, "ledger_fill": 0.9}, Action.WAIT),
        ({"nap_reserve": 0.5, "nap_days": 1.0, "nap_load": 0.2}, {"load": 0.2, "since_audit": 0.5}, Action.NAP),
        ({"nap_reserve": 0.5, "nap_days": 1.0, "nap_load": 0.2}, {"load": 0.2, "since_audit": 0.4}, Action.WAIT),
        ({"nap_reserve": 0.5, "nap_days": 1.0, "nap_traffic": 0.5}, {"since_audit": 0.9}, Action.WAIT),
        ({"anyway_load": 0.8, "prune_fill": 0.5}, {"load": 0.9, "ledger_fill": 0.9}, Action.SLEEP),
        ({"inject_pending": 0.1, "prune_fill": 0.5}, {"pending": 0.5, "ledger_fill": 0.9}, Action.PRUNE),
    ],
)
def test_the_first_threshold_that_is_reached_decides(thresholds, stats, action) -> None:
    assert Caretaker(**(NEVER | thresholds)).act(seen(**stats), ALL) == action


def test_what_is_forbidden_is_passed_over() -> None:
    rule = Caretaker(**(NEVER | {"anyway_load": 0.1, "inject_pending": 0.1}))
    mask = ALL.copy()
    mask[Action.SLEEP] = False
    assert rule.act(seen(load=0.5, pending=0.5), mask) == Action.INJECT


def test_a_batch_is_decided_as_each_of_it_alone() -> None:
    rng = np.random.default_rng(0)
    low, high = np.array([(f.low, f.high) for f in STATS_FEATURES.values()], np.float32).T
    batch = {
        "ledger": np.zeros((200, 4, len(LEDGER_FEATURES)), np.float32),
        "stats": rng.uniform(low, high, (200, len(STATS_FEATURES))).astype(np.float32),
    }
    masks = rng.random((200, len(Action))) < 0.7
    masks[:, Action.WAIT] = True
    rule = Caretaker(
        sleep_load=0.6, anyway_load=1.8, prune_fill=0.5, inject_pending=0.5, refresh_share=0.5, nap_load=0.3,
        nap_traffic=0.8, nap_reserve=0.3,
    )  # fmt: skip
    together, _ = rule.predict(batch, action_masks=masks)
    assert len(set(together.tolist())) == len(Action)
    np.testing.assert_array_equal(together, Scheduler.choose(rule, batch, masks))
    each = {name: np.full(200, value) for name, value in vars(rule).items()}
    np.testing.assert_array_equal(together, decisions(each, batch, masks))
    without, _ = rule.predict({**batch, "ledger": batch["ledger"]})
    assert without.shape == (200,)
    assert stats_column(batch, "load").shape == (200,)
    with pytest.raises(FeatureNameError, match="nearest is 'load'"):
        stats_column(batch, "loads")


@pytest.mark.parametrize("name", RANGES)
def test_thresholds_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name} in 0..{RANGES[name][1]:g}, found -0.1"):
        Caretaker(**{name: -0.1})
