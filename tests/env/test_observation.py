"""The environment's page and the code agree on what is observed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sleepgym.env.card import load_card
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES, Observer, sleep_pressure

PAGE = (Path(__file__).parents[2] / "docs" / "environments" / "sleepllm.md").read_text(encoding="utf-8")


def test_the_page_lists_every_feature_in_order_with_its_range() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (-?\d+)(?: to |, )(\d+) \|", PAGE, flags=re.MULTILINE)
    listed = [(name, (float(low), float(high))) for _, name, low, high in rows]
    assert listed == [*LEDGER_FEATURES.items(), *STATS_FEATURES.items()]
    numbers = [int(number) for number, *_ in rows]
    assert numbers == [*range(len(LEDGER_FEATURES)), *range(len(STATS_FEATURES))]


def test_the_page_shows_the_shapes_of_the_default_card() -> None:
    space = Observer(load_card("SleepLLM-v0")).space
    assert f"ledger: Box{space['ledger'].shape}, stats: Box{space['stats'].shape}" in PAGE


@pytest.mark.parametrize(
    ("load", "awake", "ratio", "expected"),
    [
        (0, 0, 1.0, 0.0),
        (1e9, 0, 1.0, 0.6),
        (0, 10**9, 1.0, 0.3),
        (0, 0, 9.0, 0.1),
        (1e9, 10**9, 9.0, 1.0),
        (0, 0, 0.5, 0),
    ],
)
def test_each_part_of_sleep_pressure_reaches_its_weight(load: float, awake: int, ratio: float, expected: float) -> None:
    assert sleep_pressure(load_card("SleepLLM-v0").pressure, load, awake, ratio) == pytest.approx(expected)
