"""The usual numbers of the rules are those that the sweep on training streams found."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from sleepgym.schedulers import scheduler_named
from sleepgym.schedulers.named import RULES

SWEEPS = Path(__file__).parents[2] / "docs" / "environments"


def best(sweep: str, name: str) -> str:
    rows = [row for row in json.loads((SWEEPS / sweep).read_text())["rows"] if row["scheduler"].startswith(f"{name}:")]
    # Of those that have played the further streams as well; of equals, the first.
    finalists = [row for row in rows if len(row["scores"]) == max(len(row["scores"]) for row in rows)]
    return str(max(finalists, key=lambda row: sum(row["scores"]))["scheduler"])


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if fields(rule) and name != "never-sleep"])
def test_a_rule_has_the_numbers_that_scored_best(name: str) -> None:
    assert scheduler_named(name) == scheduler_named(best("tuning.json", name))
