"""The usual numbers of the rules are those that the sweep on training streams found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleepgym.schedulers import scheduler_named
from sleepgym.schedulers.named import RULES

SWEEP = Path(__file__).parents[2] / "docs" / "environments" / "tuning.json"


@pytest.mark.parametrize("name", [name for name in RULES if name != "always-sleep"])
def test_a_rule_has_the_numbers_that_scored_best(name: str) -> None:
    rows = [row for row in json.loads(SWEEP.read_text())["rows"] if row["scheduler"].partition(":")[0] == name]
    # Those that have played the further streams as well; of equals, the first.
    finalists = [row for row in rows if len(row["scores"]) == max(len(row["scores"]) for row in rows)]
    assert scheduler_named(name) == scheduler_named(max(finalists, key=lambda row: sum(row["scores"]))["scheduler"])
