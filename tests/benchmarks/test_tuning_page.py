"""A sweep's record gives the tables that agents/tune.py printed, as far as it has data for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType

import pytest

from sleepgym.evaluation import EpisodeResult


@pytest.fixture
def record(episode: Callable[..., EpisodeResult]) -> dict:
    """Two schedulers: one combination of each has played a stream more than the other one of the first."""
    played = {"owl:a=1": (0.5, 0.6), "owl:a=2": (0.9,), "period:days=1": (0.3, 0.4)}
    rows = []
    for name, scores in played.items():
        episodes = [asdict(episode(seed=seed, score=score)) for seed, score in enumerate(scores)]
        rows.append({"scheduler": name, "scores": list(scores), "episodes": episodes})
    return json.loads(json.dumps({"seed": 0, "rows": rows}))


def test_whole_episodes_give_all_tables(benchmark: Callable[[str], ModuleType], record: dict) -> None:
    blocks = benchmark("tuning_page").contents(record)
    assert blocks["pairs"].splitlines()[-1].startswith("| period:days=1 | -0.200 ")
    for title in ("owl: 1 combinations on 2 streams", "owl: 1 combinations on 1 streams", "period: 1 combinations"):
        assert f"**{title}" in blocks["rounds"]
    assert "| recall |" in blocks["rounds"]


def test_scores_alone_give_the_same_pairs_and_no_tables(benchmark: Callable[[str], ModuleType], record: dict) -> None:
    page = benchmark("tuning_page")
    whole = page.contents(record)["pairs"]
    for row in record["rows"]:
        del row["episodes"]
    assert page.contents(record) == {"pairs": whole}


def test_one_scheduler_has_nobody_to_be_compared_with(benchmark: Callable[[str], ModuleType], record: dict) -> None:
    alone = record | {"rows": record["rows"][:1]}
    assert benchmark("tuning_page").contents(alone).keys() == {"rounds"}
