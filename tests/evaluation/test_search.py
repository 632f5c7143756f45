"""A search in the sim finds thresholds, and says what they score on streams that did not choose them."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.episode.card import load_card
from sleepgym.evaluation.search import search_rule, sim_scores_of
from sleepgym.schedulers import Caretaker
from sleepgym.schedulers.caretaker import RANGES
from sleepgym.sim.rollouts import Rollouts
from sleepgym.sim.setting import Setting
from tests.sim.conftest import Wear


@pytest.fixture(scope="module")
def mini() -> Setting:
    return Setting.of(load_card("SleepLLM-Mini-v0"))


def test_candidates_are_played_as_each_alone(mini: Setting) -> None:
    rules = [Caretaker(), Caretaker(sleep_load=0.1, sleep_traffic=1.0), Caretaker(inject_pending=0.5)]
    thresholds = np.array([list(vars(rule).values()) for rule in rules])
    together = sim_scores_of(mini, Wear(), thresholds, [3, 4, 5])
    for rule, scores in zip(rules, together, strict=True):
        alone = Rollouts.of(mini, Wear(), [3, 4, 5])
        while not alone.over.all():
            masks = alone.masks
            alone.step(rule.predict(alone.observe(), action_masks=masks)[0], masks)
        np.testing.assert_allclose(alone.episodes.score, scores, rtol=1e-12)


def test_a_search_improves_on_its_first_round_and_is_reproducible(mini: Setting) -> None:
    done: list[tuple[int, int]] = []

    def search(rounds: int) -> tuple[float, Caretaker]:
        found = search_rule(
            mini, Wear(), np.random.default_rng(0), 24, rounds, 8, lambda now, total: done.append((now, total))
        )
        seeds = range(50)
        return float(sim_scores_of(mini, Wear(), np.array([list(vars(found.rule).values())]), seeds).mean()), found.rule

    first, _ = search(1)
    last, rule = search(4)
    assert last > first
    assert last > sim_scores_of(mini, Wear(), np.array([list(vars(Caretaker()).values())]), range(50)).mean()
    assert all(low <= getattr(rule, name) <= high for name, (low, high) in RANGES.items())
    assert done[:3] == [(1, 3), (2, 3), (3, 3)] and done[-1] == (6, 6)
    assert search(4)[1] == rule


def test_a_search_without_candidates_is_refused(mini: Setting) -> None:
    with pytest.raises(ValueError, match="candidates=0"):
        search_rule(mini, Wear(), np.random.default_rng(0), candidates=0)
