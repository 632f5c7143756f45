"""Candidates of the card are cards, and what is said about them is paired."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from sleepgym.episode.card import load_card


@pytest.fixture
def candidates(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("candidates")


def test_candidates_are_cards_that_differ(candidates: ModuleType) -> None:
    cards = [load_card(candidates.ENV, **keys) for keys in candidates.CANDIDATES.values()]
    assert cards[0] == load_card(candidates.ENV)
    assert all(one != other for number, one in enumerate(cards) for other in cards[:number])


@pytest.mark.slow
@pytest.mark.slow
def test_a_candidate_is_played_by_rules_and_by_planners(candidates: ModuleType) -> None:
    args = candidates.Args(streams=2, planner_streams=1, draws=1, ticks=2)
    found = candidates.scores(candidates.Job(args, "ledger of 28"))
    assert {len(of) for name, of in found.items() if name.startswith("planner")} == {1}
    assert {len(of) for name, of in found.items() if not name.startswith("planner")} == {2}
    assert found["never-sleep"] != candidates.scores(candidates.Job(args, "the card"))["never-sleep"]


def test_differences_are_those_on_streams_that_both_have_played(candidates: ModuleType) -> None:
    found = {"never-sleep": [0.5, 0.7], "naps": [0.6, 0.6], "every 1.0 days": [0.5, 0.5], "every 2.0 days": [0.4, 0.9]}
    found |= {rule: [0.1, 0.1] for rule in candidates.RULES} | {"rounds": [0.6, 1.0]}
    found |= {"planner": [0.7], "planner without NAP": [0.65], "planner without REFRESH": [0.8]}
    row = candidates.contents({"seed": 0, "candidates": {"one": found}})["candidates"].splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "one", "0.600", "0.600", "0.650", "0.800 (rounds)", "+0.100 [+0.100, +0.100]", "+0.050 [+0.050, +0.050]",
        "-0.100 [-0.100, -0.100]",
    ]  # fmt: skip
