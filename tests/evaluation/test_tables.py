"""One table, three forms: nothing that a name contains can break any of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from sleepgym.evaluation import Column, Estimate, Sheet


def sheet(*rows: Any, title: str = "scores") -> Sheet:
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "mean | score", ".2f"),
        Column("edits", "edits", ".0f"),
    )
    return Sheet(title, columns, rows)


def shown(one: Sheet, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(one.rich())
    return console.export_text()


def test_markdown_by_hand() -> None:
    expected = (
        "**scores**\n\n"
        "| scheduler | mean \\| score | edits |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b | 0.50 [0.25, 0.75] | 12 |\n"
        "| [red] | 0.12 | 3 |\n"
    )
    assert sheet(("a|b", Estimate(0.5, 0.25, 0.75), 12.4), ("[red]", 0.123, 3)).markdown() == expected
    assert sheet(title="").markdown().startswith("| scheduler")


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = sheet(("one", 0.1, 1), ("a|b", 0.2, 2)).markdown().splitlines()[2:]
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_a_terminal_shows_names_as_they_are() -> None:
    text = shown(sheet(("[red]night[/red]", Estimate(0.5, 0.25, 0.75), 12), title="[bold]all"))
    assert "[red]night[/red]" in text
    assert "[bold]all" in text
    assert "0.50 [0.25, 0.75]" in text


def test_a_terminal_shows_headings_as_they_are() -> None:
    columns = (Column("scheduler", "scheduler"), Column("difference", "score - [i]owl", "+.1f"))
    assert "score - [i]owl" in shown(Sheet("", columns, [("one", 0.5)]))


def test_json_is_unrounded_and_knows_no_infinity() -> None:
    one = sheet(("ä", Estimate(1 / 3, 0.1, float("inf")), 7), ("b", float("nan"), 8))
    assert json.loads(one.json()) == {
        "title": "scores",
        "rows": [
            {"scheduler": "ä", "score": {"point": 1 / 3, "low": 0.1, "high": None}, "edits": 7},
            {"scheduler": "b", "score": None, "edits": 8},
        ],
    }


def test_a_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected 3 values per row of 'scores', found 2"):
        sheet(("one", 0.5))
