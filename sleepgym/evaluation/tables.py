"""Tables that can be rendered for terminals, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from sleepgym.evaluation.bootstrap import Estimate

Value = str | int | float | Estimate
"""Value of a cell."""


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        key: Key in JSON.
        heading: Heading in terminals and Markdown.
        form: Format specification of its values, as in ``format(value, form)``; empty for text.
    """

    key: str
    heading: str
    form: str = ""

    @property
    def is_number(self) -> bool:
        """Whether values are numbers, which are right-aligned."""
        return bool(self.form)


@dataclass(frozen=True)
class Sheet:
    """Table, independent of its output format.

    Attributes:
        title: Title; may be empty.
        columns: Columns in order.
        rows: Rows with one value per column.

    Raises:
        ValueError: A row does not have one value per column.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"expected {len(self.columns)} values per row of {self.title!r}, found {len(row)}: {row!r}"
                )

    def rich(self) -> Table:
        """Renders the table for a terminal; intervals wrap where it is narrow."""
        out = Table(title=escape(self.title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in self.columns:
            out.add_column(escape(column.heading), justify="right" if column.is_number else "left")
        for row in self._shown():
            out.add_row(*(escape(cell) for cell in row))
        return out

    def markdown(self) -> str:
        """Renders the table as a Markdown pipe table, with the title in bold above it."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        marks = ["---:" if column.is_number else "---" for column in self.columns]
        title = [f"**{self.title}**", ""] if self.title else []
        head = [line([column.heading for column in self.columns]), line(marks)]
        return "\n".join([*title, *head, *(line(row) for row in self._shown())]) + "\n"

    def json(self) -> str:
        """Renders the table as JSON: unrounded numbers by key, intervals as objects, null for non-finite numbers."""
        keys = [column.key for column in self.columns]
        rows = [dict(zip(keys, map(_plain, row), strict=True)) for row in self.rows]
        return json.dumps({"title": self.title, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _shown(self) -> list[list[str]]:
        return [
            [format(value, column.form) for value, column in zip(row, self.columns, strict=True)] for row in self.rows
        ]


def _plain(value: Value) -> Any:
    if isinstance(value, Estimate):
        return {name: _plain(number) for name, number in asdict(value).items()}
    # JSON has neither infinity nor NaN, which the perplexity of a damaged model can be.
    return None if isinstance(value, float) and not math.isfinite(value) else value
