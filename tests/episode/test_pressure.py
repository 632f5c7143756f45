"""Sleep pressure; what else is observed is tested with the environment."""

from __future__ import annotations

import pytest

from sleepgym.episode.card import load_card
from sleepgym.episode.pressure import sleep_pressure


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
