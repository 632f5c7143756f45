"""Colours and axes that the plots of all benchmarks have in common."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sleepgym.env.render.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

# Okabe and Ito's colours, which the colour-blind can tell apart; dashes say the same once more.
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")
DPI = 110


def panels(count: int, columns: int, size: tuple[float, float], sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with axes in rows, from left to right and from top to bottom; the last row may be shorter.

    Args:
        count: Axes.
        columns: Axes of a row.
        size: Width and height of the figure in inches.
        sharey: Whether axes share their vertical scale.
    """
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=sharey)
    for spare in axes.ravel()[count:]:
        spare.remove()
    return figure, axes.ravel()[:count].tolist()


def band(ax: Axes, values: Mapping[float, Sequence[float]], label: str, colour: str, **line: Any) -> None:
    """Mean over seeds as a line, and their range as a band.

    Args:
        ax: Axes.
        values: Figures of all seeds by position on the horizontal axis.
        label: Name in the legend.
        colour: Of line and band.
        line: Further properties of the line.
    """
    x = sorted(values)
    ax.plot(x, [statistics.mean(values[n]) for n in x], label=label, marker="o", ms=3, color=colour, **line)
    low, high = [min(values[n]) for n in x], [max(values[n]) for n in x]
    ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def grid(ax: Axes) -> None:
    """Faint lines behind the data."""
    ax.grid(alpha=0.3)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG at the figure's own resolution."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
