"""The benchmark of reading notes runs in small, and its tables have what it measures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import notes_page, notes_reading
from sleepgym.sleeper import SleepingLM


@pytest.fixture(scope="module")
def args() -> notes_reading.Args:
    return notes_reading.Args(draws=1, facts=20, edits=2, nights=1, asked=4)


def test_notes_are_read(base, args):
    rows = {(row["notes"], row["others"]): row for row in notes_reading.reading(base.lm, args)}
    assert rows.keys() == {("none", 0), *(("looked up", n) for n in (0, 2, 4)), ("any", 2), ("any", 4)}
    assert rows["looked up", 4]["recalled"] >= 18 > rows["none", 0]["recalled"] and rows["any", 2]["n"] == 20


def test_who_wins_is_counted_apart_from_who_is_wrong(base, args, world):
    rows: dict[str, dict] = {}
    rng, learner, facts = np.random.default_rng(0), SleepingLM(base), world.known_facts()[:10]
    notes_reading.asked(rows, "known", learner, [(fact, world.update(rng, fact)) for fact in facts])
    (row,) = rows.values()
    assert row["n"] == row["without"] == 10 and row["note"] + row["weights"] <= 10 and row["off"] == row["note"]


def test_a_measure_that_tells_right_from_wrong_has_an_area_of_one():
    answers = [{"own": right, "m": value} for right, value in ((True, 3.0), (True, 2.0), (False, 1.0))]
    assert notes_reading.area(answers, "m") == 1.0
    answers.append({"own": False, "m": 2.0})
    assert notes_reading.area(answers, "m") == (1 + 1 + 1 + 0.5) / 4


def test_a_threshold_decides_which_answer_counts():
    one = {"kind": "taught", "own": False, "notes": True, "least margin": 2.0}
    other = {"kind": "taught", "own": True, "notes": False, "least margin": 5.0}
    answers = [one, other, one | {"kind": "only noted"}, other | {"kind": "neither"}]
    assert notes_reading.policy(answers, 4.0)["taught"] == {"right": 2, "looked up": 1}
    assert notes_reading.policy(answers, 0.0)["taught"] == {"right": 1, "looked up": 0}
    assert notes_reading.policy(answers, 9.0)["neither"] == {"right": 0, "looked up": 1}


def test_tables_give_shares_with_intervals():
    record = {"model": "tiny", "seeds": 1, "machine": "m", "command": "c"}
    record["reading"] = [{"notes": "any", "others": 2, "n": 10, "recalled": 9, "named": 10}]
    table = notes_page.blocks_of(record)["reading of tiny"]
    assert "| the right one, any others | 2 | 10 | 0.900 [0.596, 0.982] | 1.000 [0.722, 1.000] |" in table
