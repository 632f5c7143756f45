"""The reward's terms, and what counts as a correct answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleepgym.episode.reward import Drift, Invalid, Reward, Served, Tick, question_weights, served

REWARD = Reward((Served(2.0), Drift(10.0, limit=3.0), Invalid(0.5)))
NONE = np.array([], dtype=bool)


def test_terms_add_up_over_the_ticks_of_an_action() -> None:
    terms = REWARD([Tick(0.5, 0.8, 1.0, invalid=True), Tick(1.0, 0.4, 1.1)])
    assert terms == pytest.approx({"served": 2 * (0.5 * 0.8 + 0.4), "drift": -1.0, "invalid": -0.5})


def test_perplexity_below_the_bare_models_earns_nothing() -> None:
    assert REWARD([Tick(1.0, 0.0, 0.7)])["drift"] == 0


def test_drift_counts_up_to_the_ratio_at_which_the_episode_ends() -> None:
    assert REWARD([Tick(1.0, 0.0, 3.0)])["drift"] == REWARD([Tick(1.0, 0.0, math.inf)])["drift"] == -20.0


@given(
    st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
    st.floats(1, 1e6, exclude_min=True),
    st.lists(
        st.builds(Tick, st.floats(0, 1), st.floats(0, 1), st.floats(), st.booleans()),
        max_size=4,
    ),
)
@example([0.0, 0.0, 0.0], 3.0, [Tick(1.0, 1.0, math.inf), Tick(1.0, 1.0, math.nan)])
def test_rewards_are_finite_whatever_became_of_the_model(weights: list[float], limit: float, ticks: list[Tick]) -> None:
    terms = Reward((Served(weights[0]), Drift(weights[1], limit), Invalid(weights[2])))(ticks)
    assert all(math.isfinite(value) for value in terms.values())
    assert terms["drift"] <= 0 or not ticks


def test_offline_ticks_serve_nobody() -> None:
    assert REWARD([Tick(1.0, 0.0, 1.0)] * 3)["served"] == 0


def test_question_weights_follow_popularity_and_recency() -> None:
    popular = question_weights(np.array([1.0, 0.5]), np.array([5.0, 5.0]), 3.0, 10.0)
    assert popular == pytest.approx([2 / 3, 1 / 3])
    recent = question_weights(np.array([1.0, 1.0]), np.array([0.0, 1e9]), 3.0, 10.0)
    assert recent == pytest.approx([0.8, 0.2])


def test_served_is_the_share_of_questions_answered() -> None:
    weights, correct = np.array([0.7, 0.3]), np.array([True, False])
    known = np.array([True, True, False, False])
    assert served(weights, correct, known, 0.2) == pytest.approx(0.8 * 0.7 + 0.2 * 0.5)


def test_a_kind_of_fact_of_which_there_are_none_gets_no_questions() -> None:
    assert served(np.empty(0), NONE, np.array([True, False]), 0.2) == 0.5
    assert served(np.array([1.0]), np.array([True]), NONE, 0.2) == 1.0
    assert served(np.empty(0), NONE, NONE, 0.2) == 1.0
