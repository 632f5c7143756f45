"""The sweep tries every combination and says which was best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sleepgym.schedulers import scheduler_named


def test_the_best_of_all_combinations_is_named(call: Callable[..., str], quick_card: Path, tmp_path: Path) -> None:
    where = ("--env-id", "SleepLLM-Mini-v0", "--card", str(quick_card), "--out", "tuned.json")
    shown = call("tune", *where, "--episodes", "2", "--schedulers", "never-sleep", "fixed-period")
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert (found["split"], found["episodes"], len(found["rows"])) == ("train", 2, 10)
    for name in ("never-sleep", "fixed-period"):
        best = max(row["score"]["point"] for row in found["rows"] if row["scheduler"].startswith(name))
        [line] = [line for line in shown.splitlines() if line.startswith(f"best {name}: {best:.3f} with ")]
        winner = line.split(" with ")[1]
        assert {row["scheduler"]: row["score"]["point"] for row in found["rows"]}[winner] == best
    assert all(row["score"]["low"] <= row["score"]["point"] <= row["score"]["high"] for row in found["rows"])


def test_every_combination_of_every_grid_is_a_scheduler(script: Callable[[str], ModuleType]) -> None:
    tune = script("tune")
    for name in tune.GRIDS:
        texts = tune.combinations(name)
        made = {scheduler_named(text) for text in texts}
        assert len(made) == len(texts) > 1


def test_an_unknown_scheduler_is_reported(call: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match=r"expected schedulers out of never-sleep, .* found owl"):
        call("tune", "--schedulers", "owl")
