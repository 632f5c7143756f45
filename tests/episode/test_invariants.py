"""Whatever is done, ledger, memory and budget agree with each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action


@pytest.fixture(scope="module")
def env() -> SleepEnv:
    """Many arrivals in few ticks, hardly room for them, and two passed nights to the last stage."""
    return SleepEnv(
        "SleepLLM-Mini-v0",
        edit={"steps": 6},
        sleep={"scales": [1.0, 0.5, 0.0], "rehearsal_rows": 2, "validation_rows": 4},
        stream={"arrival_rate": [1.0, 1.0], "update_share": [0.3, 0.5], "known_facts": 2},
        budget={"capacity": 5, "edits": [0.6, 1.0]},
        ticks={"sleep": 1},
        episode={"days": 1, "perplexity_rows": 4},
    )


def writes(env: SleepEnv) -> int:
    return sum(entry.writes for entry in env.episode.learner.state.ledger.values())


Check = Callable[[SleepEnv], None]


def play(env: SleepEnv, check: Check, seed: int, actions: Sequence[Action]) -> set[Action]:
    """Plays actions and checks after each that all agrees, and that every edit is accounted for.

    Returns:
        The actions that were valid at least once.
    """
    _, info = env.reset(seed=seed)
    spent, valid = info["edits_used"], set()
    for action in actions:
        before, kept = writes(env), list(env.episode.learner.state.ledger.items())
        *_, terminated, truncated, info = env.step(action)
        check(env)
        assert info["edits_used"] == env.episode.edits_used
        if not info["invalid_action"]:
            valid.add(action)
        if action == Action.PRUNE and not info["invalid_action"]:
            gone = [entry for key, entry in kept if key not in env.episode.learner.state.ledger]
            assert gone
            assert all(entry.stage == env.card.sleep.last_stage for entry in gone)
            before -= sum(entry.writes for entry in gone)
        # A night that undoes itself leaves no edit behind, and has spent none.
        assert info["edits_used"] - spent == writes(env) - before
        spent = info["edits_used"]
        if terminated or truncated:
            break
    return valid


@given(st.integers(0, 3), st.lists(st.sampled_from(Action), min_size=4, max_size=12))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_ledger_memory_and_budget_agree_after_any_actions(
    env: SleepEnv, assert_consistent: Check, seed: int, actions: list[Action]
) -> None:
    play(env, assert_consistent, seed, actions)


def test_they_agree_from_the_first_edit_of_a_fact_to_its_last_stage(env: SleepEnv, assert_consistent: Check) -> None:
    actions = [Action.INJECT, Action.INJECT, Action.NAP, Action.REFRESH, *[Action.SLEEP] * 5, Action.PRUNE]
    valid = play(env, assert_consistent, 0, [*actions, Action.INJECT, Action.SLEEP])
    assert {Action.INJECT, Action.SLEEP, Action.PRUNE} <= valid


def test_a_night_that_undoes_itself_has_spent_no_edits(env: SleepEnv) -> None:
    # Facts are worn by then, so that the night refreshes, and nothing may change, so that it is undone.
    strict = SleepEnv(
        env.card,
        edit={"covariance_weight": 1e9},
        sleep={"max_perplexity_ratio": 1e-6},
    )
    strict.reset(seed=0)
    while len(strict.episode.learner.state.ledger) < 3:
        strict.step(Action.INJECT)
    _, _, _, _, info = strict.step(Action.NAP)
    assert info["degraded"] > 0
    spent, before = info["edits_used"], writes(strict)
    _, _, _, _, info = strict.step(Action.SLEEP)
    assert info["rolled_back"]
    assert (info["edits_used"], writes(strict)) == (spent, before)
    assert info["edits_left"] == strict.episode.stream.rhythm.edit_budget - spent
